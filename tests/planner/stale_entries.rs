//! Entries of connection tracking after any change: what the rules would not do any more goes, and
//! nothing else.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kube_dnat::planner::conntrack::{ConntrackEntry, DirtyFrontends};
use kube_dnat::planner::model::{Event, Protocol};
use kube_dnat::planner::ruleset::{Key, SetName, Table};
use kube_dnat::sync::State;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::specification::{Expected, Objects, OfNode};
use crate::world::{Tables, commit, event, last_words, read_and_commit, state};

type At = (Ipv4Addr, u16);

/// A client outside, a Pod, one that is an endpoint; with a source port that is no node port.
const SOURCES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 9),
    Ipv4Addr::new(10, 244, 9, 9),
    Ipv4Addr::new(10, 244, 1, 3),
];
const SOURCE_PORT: u16 = 40_000;

/// Another program's translation.
const FOREIGN: At = (Ipv4Addr::new(10, 99, 9, 9), 9);

/// What the objects say, and where node ports are served.
struct World {
    objects: Objects,
    node: OfNode<Ipv4Addr>,
}

impl World {
    fn new(events: &[Event], table: &Table<Ipv4Addr>) -> Self {
        let node_ip = table.entries(SetName::NodeIps).next();
        Self {
            objects: Objects::of(&last_words(events)),
            node: OfNode {
                primary_ip: node_ip.and_then(|(key, _)| {
                    if let Key::Address(address) = key {
                        Some(*address)
                    } else {
                        None
                    }
                }),
                pods: "10.244.0.0/16".parse().unwrap(),
            },
        }
    }

    /// Every frontend, and node ports at every address that may be the node's.
    fn destinations(&self) -> BTreeSet<(Protocol, At)> {
        let all = self.objects.destinations(self.node.primary_ip);
        all.into_iter()
            .map(|(protocol, ip, number)| (protocol, (ip, number)))
            .collect()
    }

    /// Whether a Service claims this as a frontend.
    fn has(&self, (address, port): At) -> bool {
        self.objects.services.iter().any(|service| {
            let ips = [
                &service.cluster_ips,
                &service.external_ips,
                &service.load_balancer_ips,
            ];
            let mut ips = ips.into_iter().flatten();
            let mut ports = service.ports.iter();
            ips.any(|ip| *ip == address) && ports.any(|own| own.port == port)
        })
    }

    /// The entries that the rules make for these destinations.
    fn entries(&self, destinations: &BTreeSet<(Protocol, At)>) -> Vec<ConntrackEntry<Ipv4Addr>> {
        let mut entries = Vec::new();
        for (protocol, destination) in destinations {
            for source in SOURCES.into_iter().chain(self.node.primary_ip) {
                let entry = |reply_source, masqueraded: bool| ConntrackEntry {
                    protocol: *protocol,
                    source: (source, SOURCE_PORT),
                    destination: *destination,
                    reply_source,
                    reply_destination: match self.node.primary_ip.filter(|_| masqueraded) {
                        Some(ip) => (ip, 50_000),
                        None => (source, SOURCE_PORT),
                    },
                };
                let (address, port) = *destination;
                let outcome = self
                    .objects
                    .expected(&self.node, source, (*protocol, address, port));
                match outcome {
                    Expected::Translated(endpoints) => {
                        entries.extend(endpoints.into_iter().map(|(endpoint, masqueraded)| {
                            let endpoint: std::net::SocketAddrV4 = endpoint.parse().unwrap();
                            entry((*endpoint.ip(), endpoint.port()), masqueraded)
                        }));
                    }
                    Expected::NotTranslated => entries.push(entry(*destination, false)),
                    Expected::Rejected | Expected::Dropped => {}
                }
            }
        }
        entries
    }

    /// Whether the rules would make this entry for its client, too.
    fn would_make(&self, entry: &ConntrackEntry<Ipv4Addr>) -> bool {
        let one = BTreeSet::from([(entry.protocol, entry.destination)]);
        self.entries(&one).contains(entry)
    }

    /// Whether the entry is useless: its client would get something else by it than by the rules, and
    /// whoever is to answer does not.
    fn is_useless(&self, entry: &ConntrackEntry<Ipv4Addr>) -> bool {
        let answering = self
            .objects
            .answering(&self.node, entry.protocol, entry.destination);
        if entry.reply_source == entry.destination {
            return answering.is_some();
        }
        let Some(answering) = answering else {
            return true;
        };
        let mut endpoints = answering.into_iter();
        !endpoints.any(|(endpoint, of_rules, drains)| {
            let answers = entry.protocol == Protocol::Udp || of_rules || drains;
            endpoint == entry.reply_source && answers
        })
    }
}

/// What was touched by the last commit.
fn touched(state: &mut State) -> DirtyFrontends<Ipv4Addr> {
    state.take_dirty_frontends().ipv4
}

/// Entries that are there: what the rules made, and nothing deleted yet.
#[derive(Default)]
struct Conntrack(BTreeSet<ConntrackEntry<Ipv4Addr>>);

impl Conntrack {
    /// Every client sends, before and after a change. Deletes what is stale by then: all that is
    /// useless, and nothing that the rules would make again.
    fn change(
        &mut self,
        state: &State,
        touched: &DirtyFrontends<Ipv4Addr>,
        before: &World,
        after: &World,
    ) {
        let destinations = &before.destinations() | &after.destinations();
        self.0.extend(before.entries(&destinations));
        let frontends = state.families.ipv4.frontends(touched);
        self.0.retain(|entry| {
            let goes = frontends.is_stale(entry);
            if after.would_make(entry) {
                assert!(!goes, "would be made again: {entry:?}");
            } else if after.is_useless(entry) {
                assert!(goes, "is useless: {entry:?}, touched: {touched:?}");
            }
            !goes
        });
        let is_node_port = |at| !before.has(at) && !after.has(at);
        assert_others_left_alone(&frontends, &destinations, is_node_port);
    }
}

/// Flows that have a number of a Service, and are none of it.
fn assert_others_left_alone(
    frontends: &kube_dnat::planner::conntrack::AnsweringFrontends<'_, Ipv4Addr>,
    destinations: &BTreeSet<(Protocol, At)>,
    is_node_port: impl Fn(At) -> bool,
) {
    for (protocol, at) in destinations {
        let entry = |source, destination, reply_source| ConntrackEntry {
            protocol: *protocol,
            source,
            destination,
            reply_source,
            reply_destination: source,
        };
        let client = (SOURCES[0], SOURCE_PORT);
        let of_node = entry(*at, client, client);
        assert!(!frontends.is_stale(&of_node), "{of_node:?}");
        let elsewhere = (Ipv4Addr::new(198, 18, 0, 1), at.1);
        for reply_source in [elsewhere, FOREIGN] {
            let other = entry(client, elsewhere, reply_source);
            assert!(!frontends.is_stale(&other), "{other:?}");
        }
        // Only a node's address is shared with other programs.
        if is_node_port(*at) {
            let translated = entry(client, *at, FOREIGN);
            assert!(!frontends.is_stale(&translated), "{translated:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn entries_follow_every_change(
        batches in vec(vec(event(), 1..6), 1..6),
    ) {
        let (mut state, mut kernel) = (state(), Tables::default());
        commit(&mut state, &mut kernel);
        let _ = state.take_dirty_frontends();
        let (mut events, mut conntrack) = (Vec::new(), Conntrack::default());
        let mut before = World::new(&events, &kernel.ipv4);
        for batch in batches {
            for event in batch {
                events.push(event.clone());
                let _ = state.apply(event);
            }
            commit(&mut state, &mut kernel);
            let after = World::new(&events, &kernel.ipv4);
            let touched = touched(&mut state);
            conntrack.change(&state, &touched, &before, &after);
            before = after;
        }
    }

    #[test]
    fn entries_follow_what_changed_while_the_daemon_was_away(
        had in vec(event(), 1..20),
        wanted in vec(event(), 1..20),
    ) {
        let (mut earlier, mut kernel) = (state(), Tables::default());
        for event in &had {
            let _ = earlier.apply(event.clone());
        }
        commit(&mut earlier, &mut kernel);
        let before = World::new(&had, &kernel.ipv4);
        let mut state = state();
        for event in &wanted {
            let _ = state.apply(event.clone());
        }
        read_and_commit(&mut state, &mut kernel);
        let after = World::new(&wanted, &kernel.ipv4);
        let touched = touched(&mut state);
        Conntrack::default().change(&state, &touched, &before, &after);
    }
}

#[test]
fn more_endpoints_make_no_entry_stale() {
    use crate::cost::{service_named, slice_named};
    let (mut state, mut kernel) = (state(), Tables::default());
    let _ = state.apply(service_named("shop/cart", 1));
    let _ = state.apply(slice_named("shop/cart", 0..3));
    commit(&mut state, &mut kernel);
    assert!(!touched(&mut state).is_empty());
    for (endpoints, looks) in [(0..4, false), (0..4, false), (0..3, true)] {
        let _ = state.apply(slice_named("shop/cart", endpoints));
        commit(&mut state, &mut kernel);
        assert_eq!(!touched(&mut state).is_empty(), looks);
    }
}
