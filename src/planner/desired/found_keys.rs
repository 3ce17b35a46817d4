//! The keys of elements that a table may have for a frontend, whatever is desired.

use super::Claim;
use super::frontend::{FrontendKey, maps};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    DynamicChain, Element, FrontendKind, Key, SetName, TcpPickup, Value, Verdict,
};

/// The most slots of one list.
const MAX_SLOTS: u32 = 65_536;

/// Returns the keys of the verdicts that a table may have for a frontend.
#[must_use]
pub fn verdict_keys<A: Address>(claim: &Claim<A>) -> Vec<(SetName, Key<A>)> {
    let frontend = match *claim {
        Claim::Frontend(protocol, address, port) => FrontendKey::Frontend(protocol, address, port),
        Claim::Nodeport(protocol, port) => FrontendKey::Nodeport(protocol, port),
        Claim::Ranges(protocol, address) => FrontendKey::Ranges(protocol, address),
    };
    let (maps, protocol) = (maps(frontend.kind()), claim.protocol());
    let restricted: &[SetName] = match frontend.kind() {
        FrontendKind::Address => &[SetName::ServicesRestricted, SetName::ServicesDenied],
        FrontendKind::Nodeport | FrontendKind::Range => &[],
    };
    let by_frontend = [maps.dispatch, maps.cluster, maps.local];
    let by_frontend = by_frontend.into_iter().chain(restricted.iter().copied());
    let sticky = maps.sticky.map(|sticky| sticky(protocol));
    let by_protocol = [(maps.external)(protocol)].into_iter().chain(sticky);
    let closing = maps.close_removed.filter(|_| protocol == Protocol::Tcp);
    let closing = closing.into_iter().flat_map(|set| TcpPickup::ALL.map(set));
    by_frontend
        .map(|set| (set, frontend.key()))
        .chain(
            by_protocol
                .chain(closing)
                .map(|set| (set, frontend.key_without_protocol())),
        )
        .collect()
}

/// Returns the keys of the elements that a table may have because of this element: the slots that a
/// verdict balances over, and shared elements.
#[must_use]
pub fn keys_behind<A: Address>(element: &Element<A>) -> Vec<(SetName, Key<A>)> {
    let slots = match (element.value, FrontendKey::of_key(&element.key)) {
        (
            Value::Verdict(Verdict::Dynamic(
                DynamicChain::Pick(_, list, count)
                | DynamicChain::Hashed(_, _, list, count)
                | DynamicChain::Sticky(_, list, count),
            )),
            Some(frontend),
        ) => {
            let slots = 0..count.min(MAX_SLOTS);
            slots.map(|slot| frontend.slot(list, slot)).collect()
        }
        _ => Vec::new(),
    };
    let shared = shared_by(element).map(|shared| (shared.set, shared.key));
    slots.into_iter().chain(shared).collect()
}

/// Returns the shared elements that an element may need.
pub fn shared_by<A: Address>(element: &Element<A>) -> impl Iterator<Item = Element<A>> + use<A> {
    let address = if let Key::Frontend(_, address, _) = element.key {
        let sets = [
            SetName::ClusterIps,
            SetName::ClusterIpsSticky,
            SetName::LoadBalancerIps,
        ];
        Some(sets.map(|set| (set, Key::Address(address))))
    } else {
        None
    };
    let hairpin = match element.value {
        Value::Endpoint(address, _) | Value::Address(address) => {
            Some((SetName::Hairpin, Key::Pair(address, address)))
        }
        Value::Nothing | Value::Verdict(_) => None,
    };
    address
        .into_iter()
        .flatten()
        .chain(hairpin)
        .map(|(set, key)| Element::shared(set, key))
}
