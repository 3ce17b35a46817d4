//! The rules, evaluated on the planned tables, have the outcomes of the specification.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use kube_dnat::planner::desired::NodePortAddresses;
use kube_dnat::planner::explain::{Destination, Lookup, Outcome, Source, SourceKind, trace};
use kube_dnat::planner::model::addr::Family;
use kube_dnat::planner::model::{Address, Event, Object, Protocol};
use kube_dnat::planner::ruleset::{Element, ElementData, Key, SetName, Table, Value};
use kube_dnat::sync::State;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::specification::{Expected, Objects, OfNode};
use crate::world::{Tables, event, event_with, last_words, state, state_serving};

/// A table in memory, on a node with one address.
struct Memory<'a, A: Address> {
    table: &'a Table<A>,
    own: Option<A>,
}

impl<A: Address> Lookup<A> for Memory<'_, A> {
    type Error = Infallible;

    fn get(&mut self, set: SetName, key: &Key<A>) -> Result<Option<ElementData<A>>, Infallible> {
        Ok(self.table.get(set, key).cloned())
    }

    fn all(&mut self, set: SetName) -> Result<Vec<Element<A>>, Infallible> {
        Ok(self.table.elements_of(set).collect())
    }

    fn pinned(
        &mut self,
        _: Protocol,
        _: &Key<A>,
    ) -> Result<Option<(Value<A>, Duration)>, Infallible> {
        Ok(None)
    }

    fn is_local_address(&self, address: A) -> bool {
        self.own == Some(address)
    }
}

/// Converts an outcome to that of the specification.
fn as_expected(outcome: Outcome) -> Expected {
    match outcome {
        Outcome::Translated {
            endpoints,
            only_from,
            ..
        } => {
            assert_eq!(only_from, None, "the source is known");
            let total: f64 = endpoints.iter().map(|chance| chance.probability).sum();
            assert!((total - 1.0).abs() < 1e-9, "{endpoints:?}");
            let of = endpoints
                .into_iter()
                .map(|chance| (chance.endpoint, chance.masqueraded.is_some()));
            Expected::Translated(of.collect())
        }
        Outcome::Rejected { .. } => Expected::Rejected,
        Outcome::Dropped { .. } => Expected::Dropped,
        Outcome::NotTranslated { .. } => Expected::NotTranslated,
    }
}

/// Compares the outcomes of all relevant connections in one family.
fn assert_outcomes<A: Address>(
    events: &[Event],
    state: &State,
    table: &Table<A>,
    pods: &str,
    sources: [&str; 5],
) {
    let objects = Objects::of(events);
    let own = table.entries(SetName::NodeIps).next();
    let own = own.and_then(|(key, _)| {
        if let Key::Address(address) = key {
            Some(*address)
        } else {
            None
        }
    });
    let pods = A::from_net(pods.parse().unwrap()).unwrap();
    let node = OfNode {
        primary_ip: own,
        pods,
    };
    let programs = state.programs();
    let program = match A::FAMILY {
        Family::Ipv4 => programs.ipv4,
        Family::Ipv6 => programs.ipv6.unwrap(),
    };
    let mut frontends = objects.destinations(own);
    // Each address also with a port that no Service has.
    let unknown_ports: Vec<_> = frontends
        .iter()
        .map(|(protocol, ip, _)| (*protocol, *ip, 99))
        .collect();
    frontends.extend(unknown_ports);
    let sources = sources.map(|ip| A::from_ip(ip.parse::<IpAddr>().unwrap()).unwrap());
    for (protocol, address, port) in frontends {
        for source in sources.into_iter().chain(own) {
            let kind = if own == Some(source) {
                SourceKind::Node
            } else if A::contains(pods, source) {
                SourceKind::Pod
            } else {
                SourceKind::Elsewhere
            };
            let frontend = Destination {
                protocol,
                address,
                port,
            };
            let source_of = Source {
                address: Some(source),
                kind,
            };
            let mut memory = Memory { table, own };
            let Ok((_, path)) = trace(&mut memory, &program, frontend, source_of);
            let outcome = format!("{source} -> {address}:{port}/{protocol}: {path:#?}");
            let expected = objects.expected(&node, source, (protocol, address, port));
            match (as_expected(path.outcome), expected) {
                // A hash of the source selects one of the endpoints.
                (Expected::Translated(one), Expected::Translated(all)) if one.len() == 1 => {
                    let hashes = "by a hash of the source address";
                    let is_hashed = path.steps.iter().any(|step| step.found.ends_with(hashes));
                    assert!(one.is_subset(&all), "{outcome}: {all:?}");
                    assert!(is_hashed || all.len() == 1, "{outcome}: {all:?}");
                }
                (actual, expected) => assert_eq!(actual, expected, "{outcome}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_do_what_kube_proxy_does(events in vec(event_with(0.3), 1..40)) {
        let events = last_words(&events);
        let mut state = state();
        for event in &events {
            let _ = state.apply(event.clone());
        }
        let Tables { ipv4, ipv6 } = Tables::fresh(&state);
        // A Pod, a Pod that is an endpoint, and three external sources, in some source ranges or
        // none.
        assert_outcomes::<Ipv4Addr>(&events, &state, &ipv4, "10.244.0.0/16", [
            "10.244.9.9", "10.244.1.3", "192.0.2.9", "203.0.113.9", "192.168.77.9",
        ]);
        assert_outcomes::<Ipv6Addr>(&events, &state, &ipv6, "fd00:10:244::/56", [
            "fd00:10:244::99", "fd00:10:244::3", "2001:db8::9", "fd00:77::9", "fd00:10:96::ff",
        ]);
    }

    #[test]
    fn node_ports_are_not_served_at_addresses_that_only_services_have(
        events in vec(event(), 1..40),
    ) {
        let events = last_words(&events);
        let mut state = state_serving(NodePortAddresses::In(Vec::new()));
        let (mut own, mut of_default_route) = (BTreeSet::new(), Vec::new());
        let (mut of_node, mut of_services) = (None, BTreeSet::new());
        for event in &events {
            let _ = state.apply(event.clone());
            match event {
                Event::OwnAddresses(addresses) => {
                    own.clone_from(&addresses.all);
                    of_default_route.clone_from(&addresses.of_default_route);
                }
                Event::Update(update) => match &update.object {
                    Some(Object::Node(node)) => of_node = Some(node.addresses.clone()),
                    Some(Object::Service(service)) => {
                        let ips = [
                            &service.cluster_ips,
                            &service.external_ips,
                            &service.load_balancer_ips,
                        ];
                        if service.cluster_ips.iter().any(IpAddr::is_ipv4) {
                            of_services.extend(ips.into_iter().flatten().copied());
                        }
                    }
                    _ => {}
                },
                Event::Listed(_) | Event::Interrupted(..) | Event::NodeMissing(_) => {}
            }
        }
        let of_node = of_node.unwrap_or(of_default_route);
        let serves = |ip: &IpAddr| !of_services.contains(ip) || of_node.contains(ip);
        let expected: Vec<_> = own
            .into_iter()
            .filter(|ip| ip.is_ipv4() && serves(ip))
            .map(|ip| ip.to_string())
            .collect();
        let ipv4 = Tables::fresh(&state).ipv4;
        let found: Vec<_> = ipv4
            .entries(SetName::NodeIps)
            .map(|(key, _)| key.to_string())
            .collect();
        prop_assert_eq!(found, expected);
    }
}
