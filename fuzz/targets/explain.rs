//! A query of `explain`, evaluated against the tables of manifests.
//!
//! The first line is the query, the second the address of a client, and the others are manifests.

#![no_main]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use kube_dnat::manifests::read_text;
use kube_dnat::planner::explain::{
    Destination, KnownFrontend, Lookup, Outcome, Query, Source, SourceKind, Target, suggest, trace,
};
use kube_dnat::planner::model::{Address, Protocol};
use kube_dnat::planner::ruleset::{Element, ElementData, Key, Program, SetName, Table, Value};
use kube_dnat::sync::State;
use kube_dnat_fuzz::{NODE, facts};
use libfuzzer_sys::fuzz_target;

/// A table in memory.
struct Memory<'a, A: Address>(&'a Table<A>);

impl<A: Address> Lookup<A> for Memory<'_, A> {
    type Error = Infallible;

    fn get(&mut self, set: SetName, key: &Key<A>) -> Result<Option<ElementData<A>>, Infallible> {
        Ok(self.0.get(set, key).cloned())
    }

    fn all(&mut self, set: SetName) -> Result<Vec<Element<A>>, Infallible> {
        Ok(self.0.elements_of(set).collect())
    }

    fn pinned(
        &mut self,
        _: Protocol,
        _: &Key<A>,
    ) -> Result<Option<(Value<A>, Duration)>, Infallible> {
        Ok(None)
    }

    fn is_local_address(&self, address: A) -> bool {
        self.0
            .get(SetName::NodeIps, &Key::Address(address))
            .is_some()
    }
}

/// Evaluates the rules for each kind of source.
///
/// # Panics
/// If the probabilities of the endpoints are not 1 together.
fn evaluate<A: Address>(
    table: &Table<A>,
    program: &Program,
    target: &Target,
    client: Option<IpAddr>,
) {
    let Some(address) = A::from_ip(target.address) else {
        return;
    };
    for kind in [SourceKind::Pod, SourceKind::Node, SourceKind::Elsewhere] {
        let destination = Destination {
            protocol: target.protocol,
            address,
            port: target.port,
        };
        let source = Source {
            address: client.and_then(A::from_ip),
            kind,
        };
        let Ok((_, path)) = trace(&mut Memory(table), program, destination, source);
        if let Outcome::Translated { endpoints, .. } = path.outcome {
            let total: f64 = endpoints.iter().map(|chance| chance.probability).sum();
            assert!((total - 1.0).abs() < 1e-9, "{endpoints:?}");
        }
    }
}

/// Returns the frontends of a table, as `explain` collects them.
fn known<A: Address>(table: &Table<A>) -> Vec<KnownFrontend> {
    let elements = table.elements_of(SetName::Services);
    let elements = elements.chain(table.elements_of(SetName::Nodeports));
    elements
        .filter_map(|element| {
            let (protocol, address, port) = match element.key {
                Key::Frontend(protocol, address, port) => (protocol, Some(address.into()), port),
                Key::Nodeport(protocol, port) => (protocol, None, port),
                _ => return None,
            };
            Some(KnownFrontend {
                protocol,
                address,
                port,
                service: element.comment?.to_string(),
            })
        })
        .collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut parts = text.splitn(3, '\n');
    let [query, client, manifests] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let Ok(query) = query.parse::<Query>() else {
        return;
    };
    let Ok(listing) = read_text(manifests, NODE) else {
        return;
    };
    let mut state = State::new(facts());
    for event in listing.events {
        let _diagnostics = state.apply(event);
    }
    let (tables, programs) = (state.desired_tables(), state.programs());
    let (ipv4, ipv6): (&Table<Ipv4Addr>, &Table<Ipv6Addr>) = (
        &tables.ipv4,
        tables.ipv6.as_ref().expect("a node with IPv6"),
    );
    let mut frontends = known(ipv4);
    frontends.extend(known(ipv6));
    let client = client.parse().ok();
    match query {
        Query::Frontend(target) => {
            evaluate(ipv4, &programs.ipv4, &target, client);
            let program = programs.ipv6.expect("a node with IPv6");
            evaluate(ipv6, &program, &target, client);
            drop(suggest(Some(&target), None, &frontends));
        }
        Query::Address(address) => {
            let program = programs.ipv6.expect("a node with IPv6");
            let at_address = frontends
                .iter()
                .filter(|frontend| frontend.address == Some(address));
            for frontend in at_address {
                let target = Target {
                    protocol: frontend.protocol,
                    address,
                    port: frontend.port,
                };
                evaluate(ipv4, &programs.ipv4, &target, client);
                evaluate(ipv6, &program, &target, client);
            }
        }
        Query::Service(service) => {
            for element in ipv4.elements() {
                if let (Some(comment), Key::Frontend(_, _, port)) = (&element.comment, element.key)
                {
                    let _ = service.matches(comment, port);
                }
            }
            drop(suggest(None, Some(&service), &frontends));
        }
    }
});
