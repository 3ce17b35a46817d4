//! The `gone` maps: the destinations and endpoints whose clients must not stay.

use std::collections::{BTreeMap, BTreeSet};

use super::{AllowedClients, ClientTarget, LostEndpoint};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, Key, SetName, SlotRange, Table, Value, Verdict};

/// Returns the destinations of a slot with its endpoint.
pub(super) fn slot_targets<A: Address>(
    slot: &Element<A>,
    node_ips: &BTreeSet<A>,
) -> Vec<LostEndpoint<A>> {
    let Value::Endpoint(address, port) = slot.value else {
        return Vec::new();
    };
    let endpoint = (address, port);
    if let Key::Slot(protocol, address, port, _) = slot.key {
        vec![((protocol, address, port), endpoint)]
    } else if let Key::NodeportSlot(protocol, port, _) = slot.key {
        node_ips
            .iter()
            .map(|ip| ((protocol, *ip, port), endpoint))
            .collect()
    } else {
        Vec::new()
    }
}

/// Returns the endpoints that clients may have from an existing table but may not keep.
///
/// These are the endpoints in the table's slots, with node ports also at these addresses, and those
/// that an earlier process had already denied.
#[must_use]
pub fn gone_in_table<A: Address>(
    table: &Table<A>,
    mut node_ips: BTreeSet<A>,
    allowed: &AllowedClients<A>,
) -> BTreeMap<LostEndpoint<A>, Verdict> {
    for (key, _) in table.entries(SetName::NodeIps) {
        if let Key::Address(address) = key {
            node_ips.insert(*address);
        }
    }
    let has = |set, key| table.get(set, &key).is_some();
    let is_sticky = |(protocol, address, port): ClientTarget<A>, is_node_port: bool| {
        if is_node_port {
            // A frontend at the address takes precedence over the node port.
            let frontend = Key::Frontend(protocol, address, port);
            has(SetName::StickyNodeports(protocol), Key::Port(port))
                && !has(SetName::Services, frontend)
        } else {
            has(SetName::Sticky(protocol), Key::AddressPort(address, port))
        }
    };
    let denied = |lost: LostEndpoint<A>| Some((lost, allowed.verdict(&lost)?));
    let mut gone: BTreeMap<_, _> = denied_in_table(table).filter_map(denied).collect();
    for (set, is_node_port) in [
        (SetName::Endpoints, false),
        (SetName::NodeportEndpoints, true),
    ] {
        for slot in table.elements_of(set) {
            let only_inside = is_in_cluster_list(&slot.key);
            gone.extend(
                slot_targets(&slot, &node_ips)
                    .into_iter()
                    .filter(|(target, _)| is_sticky(*target, is_node_port))
                    .filter_map(denied)
                    .filter(|(_, verdict)| !only_inside || *verdict != Verdict::GoneOutside),
            );
        }
    }
    gone
}

/// Returns whether a slot is in the list for clients inside, with external policy Local.
fn is_in_cluster_list<A: Address>(slot: &Key<A>) -> bool {
    if let Key::Slot(.., slot) | Key::NodeportSlot(.., slot) = slot {
        *slot >= SlotRange::CLUSTER
    } else {
        false
    }
}

/// Returns the destinations and endpoints that the table denies.
fn denied_in_table<A: Address>(table: &Table<A>) -> impl Iterator<Item = LostEndpoint<A>> {
    Protocol::ALL.into_iter().flat_map(|protocol| {
        let elements = table.entries(SetName::Gone(protocol));
        elements.filter_map(move |(key, _)| lost_endpoint(SetName::Gone(protocol), key))
    })
}

/// Returns the destination and endpoint of an element of a `gone` map.
#[must_use]
pub fn lost_endpoint<A: Address>(set: SetName, key: &Key<A>) -> Option<LostEndpoint<A>> {
    let (SetName::Gone(protocol), Key::Sent(address, port, endpoint, number)) = (set, *key) else {
        return None;
    };
    Some(((protocol, address, port), (endpoint, number)))
}

/// Returns the `gone` map and key for a destination and endpoint.
#[must_use]
pub fn gone_key<A: Address>(lost: &LostEndpoint<A>) -> (SetName, Key<A>) {
    let ((protocol, address, port), (endpoint, number)) = *lost;
    let key = Key::Sent(address, port, endpoint, number);
    (SetName::Gone(protocol), key)
}
