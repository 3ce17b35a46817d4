//! Whether the kernel has the desired elements of all Services.

use std::net::{Ipv4Addr, Ipv6Addr};

use kube_dnat::netlink::Kernel;
use kube_dnat::planner::desired::{NodeFacts, PodSource};
use kube_dnat::planner::diff::TableStatus;
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::Address;
use kube_dnat::planner::ruleset::{Key, SETS, SetName, SlotRange, Table};
use kube_dnat::sync::State;
use kube_dnat::watch::manifests;
use serde_json::Value;

use crate::lab::{Family, Namespace};

/// Returns the desired elements of Services, of both families.
pub(super) fn desired(objects: &[Value]) -> Vec<String> {
    let cidrs = Family::ALL.map(|family| family.cluster_cidr().parse().expect("a CIDR"));
    let mut state = State::new(NodeFacts {
        pods: PodSource::ClusterCidr(cidrs.into()),
        ..NodeFacts::default()
    });
    let documents: Vec<_> = objects.iter().map(Value::to_string).collect();
    let text = format!("---\n{}", documents.join("\n---\n"));
    let listing = manifests::read_text(&text, "node-1").expect("objects");
    for event in listing.events {
        assert_eq!(state.apply(event), []);
    }
    let Dual { ipv4, ipv6 } = state.desired_tables();
    let ipv6 = ipv6.expect("both families");
    let mut elements = elements(&ipv4);
    elements.extend(self::elements(&ipv6));
    elements
}

/// Returns the elements of Services that the kernel has; nothing if it does not have our tables.
pub(super) fn found(namespace: &Namespace) -> Option<Vec<String>> {
    namespace.run(|| {
        let mut kernel = Kernel::open().expect("nf_tables");
        let mut all = found_in::<Ipv4Addr>(&mut kernel)?;
        all.extend(found_in::<Ipv6Addr>(&mut kernel)?);
        Some(all)
    })
}

fn found_in<A: Address>(kernel: &mut Kernel) -> Option<Vec<String>> {
    // Another process changes the tables all the time, which a dump reports as an error.
    let TableStatus::Ours(shape) = kernel.inspect::<A>().ok()? else {
        return None;
    };
    let sets: Vec<_> = of_services().collect();
    let table = kernel.read_elements(&shape.table, &sets).ok()??;
    Some(elements(&table))
}

fn of_services() -> impl Iterator<Item = SetName> {
    let names = SETS
        .iter()
        .flat_map(|row| row.names.iter().map(|(name, _)| *name));
    names.filter(|name| name.has_service_keys())
}

/// Returns the elements as text without the order of endpoints, which depends on the past.
fn elements<A: Address>(table: &Table<A>) -> Vec<String> {
    let list = |slot: u32| slot / SlotRange::CLUSTER * SlotRange::CLUSTER;
    let line = |set: SetName| {
        table.elements_of(set).map(move |mut element| {
            if let Key::Slot(.., slot) | Key::NodeportSlot(.., slot) = &mut element.key {
                *slot = list(*slot);
            }
            format!("{set} {element}")
        })
    };
    let mut lines: Vec<_> = of_services().flat_map(line).collect();
    lines.sort_unstable();
    lines
}
