//! Which UDP frontends were touched since connection tracking was last looked through. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::conntrack::udp_claims;
use crate::desired::Claim;
use crate::model::{Address, Protocol, Service, ServiceName, Store};
use crate::ruleset::{Key, Table};

/// The UDP frontends of one family that changes touched.
#[derive(Debug)]
pub(super) struct Touched<A> {
    /// What Services had before changes that are not committed yet.
    had: BTreeMap<ServiceName, BTreeSet<Claim<A>>>,
    /// What Services had and have whose changes are committed.
    committed: BTreeSet<Claim<A>>,
}

impl<A> Default for Touched<A> {
    fn default() -> Self {
        Self {
            had: BTreeMap::new(),
            committed: BTreeSet::new(),
        }
    }
}

impl<A: Address> Touched<A> {
    /// Takes in what a Service was before it changed or went.
    pub(super) fn note(&mut self, before: &Service) {
        let claims = udp_claims(before);
        if !claims.is_empty() {
            self.had
                .entry(before.name.clone())
                .or_default()
                .extend(claims);
        }
    }

    /// Takes in that what changed of the Services `names` is committed, and which frontends they
    /// have now.
    pub(super) fn committed(&mut self, names: &BTreeSet<ServiceName>, now: BTreeSet<Claim<A>>) {
        self.committed.extend(now);
        let had = std::mem::take(&mut self.had);
        for (name, claims) in had {
            if names.contains(&name) {
                self.committed.extend(claims);
            } else {
                self.had.insert(name, claims);
            }
        }
    }

    /// What was touched, once.
    pub(super) fn take(&mut self) -> BTreeSet<Claim<A>> {
        std::mem::take(&mut self.committed)
    }
}

/// The UDP frontends that these Services claim now.
pub(super) fn claimed<'a, A: Address>(
    names: impl IntoIterator<Item = &'a ServiceName>,
    store: &Store,
) -> BTreeSet<Claim<A>> {
    let services = names.into_iter().filter_map(|name| store.service(name));
    services.flat_map(|service| udp_claims(service)).collect()
}

/// The UDP frontends of a table that an earlier process left: of Services that went while we were
/// away nothing else is known.
pub(super) fn found<A: Address>(table: &Table<A>) -> impl Iterator<Item = Claim<A>> {
    table.elements().filter_map(|element| {
        if let Key::Frontend(Protocol::Udp, address, port) = element.key {
            Some(Claim::Frontend(Protocol::Udp, address, port))
        } else if let Key::Nodeport(Protocol::Udp, port) = element.key {
            Some(Claim::Nodeport(Protocol::Udp, port))
        } else {
            None
        }
    })
}
