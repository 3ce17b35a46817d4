//! Conntrack entries after any change: exactly the stale ones are deleted.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use kube_dnat::planner::conntrack::{ConntrackEntry, DirtyFrontends};
use kube_dnat::planner::model::{
    Endpoint, EndpointSlice, Event, Object, ObjectKind, OwnAddresses, Placement, Protocol, Service,
    ServiceName, ServicePort, SliceEndpoints, SlicePort, TrafficPolicy,
};
use kube_dnat::planner::ruleset::{Key, SetName, Table};
use kube_dnat::sync::State;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reading::read_back;
use crate::specification::{Expected, Objects, OfNode};
use crate::world::{
    Tables, commit, event, event_with, key, last_words, remote_endpoint, state, update,
};

/// An address and port.
type AddressPort = (Ipv4Addr, u16);

/// Sources: an external one, a Pod, and a Pod that is an endpoint.
const SOURCES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 9),
    Ipv4Addr::new(10, 244, 9, 9),
    Ipv4Addr::new(10, 244, 1, 3),
];

/// The source port of all clients, which is not a node port.
const SOURCE_PORT: u16 = 40_000;

/// The destination that another program translates to.
const FOREIGN: AddressPort = (Ipv4Addr::new(10, 99, 9, 9), 9);

/// The objects, and the addresses of the node.
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

    /// Returns every frontend, and every node port at every address that may be the node's.
    fn destinations(&self) -> BTreeSet<(Protocol, AddressPort)> {
        let all = self.objects.destinations(self.node.primary_ip);
        all.into_iter()
            .map(|(protocol, ip, number)| (protocol, (ip, number)))
            .collect()
    }

    /// Returns whether a Service claims a frontend.
    fn has_frontend(&self, (address, port): AddressPort) -> bool {
        self.objects.services.iter().any(|service| {
            let ips = [
                &service.cluster_ips,
                &service.external_ips,
                &service.load_balancer_ips,
            ];
            ips.into_iter().flatten().any(|ip| *ip == address)
                && service.ports.iter().any(|own| own.port == port)
        })
    }

    /// Returns the entries that the rules create for these destinations.
    fn entries(
        &self,
        destinations: &BTreeSet<(Protocol, AddressPort)>,
    ) -> Vec<ConntrackEntry<Ipv4Addr>> {
        let mut entries = Vec::new();
        for (protocol, destination) in destinations {
            for source in SOURCES.into_iter().chain(self.node.primary_ip) {
                let entry = |reply_source, masqueraded: bool| ConntrackEntry {
                    established: false,
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

    /// Returns whether the rules would create the same entry for its client.
    fn would_create(&self, entry: &ConntrackEntry<Ipv4Addr>) -> bool {
        let one = BTreeSet::from([(entry.protocol, entry.destination)]);
        self.entries(&one).contains(entry)
    }

    /// Returns whether an entry is useless: the rules differ from it, and its endpoint does not
    /// answer.
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
        !answering.into_iter().any(|(endpoint, is_used, drains)| {
            let answers = entry.protocol == Protocol::Udp || is_used || drains;
            endpoint == entry.reply_source && answers
        })
    }
}

/// Returns the frontends that the last commit affects.
fn dirty_frontends(state: &mut State) -> DirtyFrontends<Ipv4Addr> {
    state.take_dirty_frontends().ipv4
}

/// The existing conntrack entries.
#[derive(Default)]
struct Conntrack(BTreeSet<ConntrackEntry<Ipv4Addr>>);

impl Conntrack {
    /// Lets every client send before a change, and deletes the entries that it makes stale.
    ///
    /// All useless entries must be stale, and none that the rules would create again.
    fn change(
        &mut self,
        state: &State,
        dirty: &DirtyFrontends<Ipv4Addr>,
        before: &World,
        after: &World,
    ) {
        let destinations = &before.destinations() | &after.destinations();
        self.0.extend(before.entries(&destinations));
        let frontends = state.families.ipv4.frontends(dirty);
        self.0.retain(|entry| {
            let is_stale = frontends.is_stale(entry);
            if after.would_create(entry) {
                assert!(!is_stale, "would be created again: {entry:?}");
            } else if after.is_useless(entry) {
                assert!(is_stale, "is useless: {entry:?}, dirty: {dirty:?}");
            }
            !is_stale
        });
        let is_node_port = |at| !before.has_frontend(at) && !after.has_frontend(at);
        assert_others_stay(&frontends, &destinations, is_node_port);
    }
}

/// Asserts that flows with the port number of a Service, but not of it, stay.
fn assert_others_stay(
    frontends: &kube_dnat::planner::conntrack::AnsweringFrontends<'_, Ipv4Addr>,
    destinations: &BTreeSet<(Protocol, AddressPort)>,
    is_node_port: impl Fn(AddressPort) -> bool,
) {
    for (protocol, at) in destinations {
        let entry = |source, destination, reply_source| ConntrackEntry {
            established: false,
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
        // Other programs translate connections only to the node's addresses.
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
        batches in vec(vec(event_with(0.2), 1..6), 1..6),
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
            let dirty = dirty_frontends(&mut state);
            conntrack.change(&state, &dirty, &before, &after);
            before = after;
        }
    }

    #[test]
    fn entries_follow_changes_while_the_daemon_was_not_running(
        previous in vec(event(), 1..20),
        wanted in vec(event(), 1..20),
    ) {
        let (mut earlier, mut kernel) = (state(), Tables::default());
        for event in &previous {
            let _ = earlier.apply(event.clone());
        }
        commit(&mut earlier, &mut kernel);
        let before = World::new(&previous, &kernel.ipv4);
        let mut state = state();
        for event in &wanted {
            let _ = state.apply(event.clone());
        }
        read_back(&mut state, &mut kernel, &[]);
        let after = World::new(&wanted, &kernel.ipv4);
        let dirty = dirty_frontends(&mut state);
        Conntrack::default().change(&state, &dirty, &before, &after);
    }
}

#[test]
fn an_additional_endpoint_makes_no_entry_stale() {
    use crate::cost::{service_named, slice_named};
    let (mut state, mut kernel) = (state(), Tables::default());
    let _ = state.apply(service_named("shop/cart", 1));
    let _ = state.apply(slice_named("shop/cart", 0..3));
    commit(&mut state, &mut kernel);
    assert!(!dirty_frontends(&mut state).is_empty());
    for (endpoints, is_dirty) in [(0..4, false), (0..4, false), (0..3, true)] {
        let _ = state.apply(slice_named("shop/cart", endpoints));
        commit(&mut state, &mut kernel);
        assert_eq!(!dirty_frontends(&mut state).is_empty(), is_dirty);
    }
}

const NAME: &str = "shop/cart";

/// Returns a Service with an external IP and external policy Local.
fn local_policy_service() -> Event {
    let service = Service {
        name: ServiceName::from_key(&NAME.into()),
        created: Some(0),
        has_selector: true,
        cluster_ips: [[10, 96, 0, 1].into()].into(),
        external_ips: [[203, 0, 113, 5].into()].into(),
        load_balancer_ips: Box::default(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Local,
        affinity: None,
        source_ranges: Box::default(),
        health_check_node_port: None,
        features: None,
        ports: [ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }]
        .into(),
    };
    update(
        key(ObjectKind::Service, NAME),
        Some(Object::Service(service.into())),
    )
}

/// Returns the slice of that Service, with endpoints whose node is not known.
fn unplaced_slice(addresses: &[Ipv4Addr]) -> Event {
    let endpoints = addresses.iter().map(|address| Endpoint {
        placement: Placement::Unknown,
        ..remote_endpoint(*address)
    });
    let slice = EndpointSlice {
        service: ServiceName::from_key(&NAME.into()),
        mirrored: false,
        triggered: None,
        ports: [SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }]
        .into(),
        addresses: SliceEndpoints::Ipv4(endpoints.collect()),
    };
    update(
        key(ObjectKind::EndpointSlice, NAME),
        Some(Object::Slices([slice].into())),
    )
}

/// With external policy Local, Pods reach all endpoints, and a Pod that is the endpoint is
/// masqueraded.
#[test]
fn the_connection_of_an_endpoint_to_itself_stays() {
    let (mut state, mut kernel) = (state(), Tables::default());
    let [_, other, itself] = SOURCES;
    let (mut events, mut conntrack) = (vec![local_policy_service()], Conntrack::default());
    let _ = state.apply(local_policy_service());
    commit(&mut state, &mut kernel);
    let _ = dirty_frontends(&mut state);
    let mut before = World::new(&events, &kernel.ipv4);
    for endpoints in [&[itself, other][..], &[itself]] {
        events.push(unplaced_slice(endpoints));
        let _ = state.apply(unplaced_slice(endpoints));
        commit(&mut state, &mut kernel);
        let after = World::new(&last_words(&events), &kernel.ipv4);
        let dirty = dirty_frontends(&mut state);
        assert!(!dirty.is_empty());
        conntrack.change(&state, &dirty, &before, &after);
        before = after;
    }
    let to_itself = conntrack
        .0
        .iter()
        .filter(|entry| entry.source.0 == itself && entry.reply_source.0 == itself);
    assert!(to_itself.clone().count() > 0);
}

/// With external policy Local, the node reaches all endpoints, and masquerading may give its
/// connection another of its addresses.
#[test]
fn the_connection_of_the_node_from_another_of_its_addresses_stays() {
    let (mut state, mut kernel) = (state(), Tables::default());
    let [outside, other, endpoint] = SOURCES;
    let (bridge, primary) = ([172, 17, 0, 1].into(), [192, 168, 77, 2].into());
    let _ = state.apply(Event::OwnAddresses(OwnAddresses {
        of_default_route: vec![IpAddr::V4(primary)],
        all: [IpAddr::V4(primary), IpAddr::V4(bridge)].into(),
    }));
    let _ = state.apply(local_policy_service());
    let _ = state.apply(unplaced_slice(&[endpoint, other]));
    commit(&mut state, &mut kernel);
    let _ = dirty_frontends(&mut state);
    let _ = state.apply(unplaced_slice(&[endpoint]));
    commit(&mut state, &mut kernel);
    let dirty = dirty_frontends(&mut state);
    let frontends = state.families.ipv4.frontends(&dirty);
    let is_stale = |source, endpoint| {
        frontends.is_stale(&ConntrackEntry {
            established: false,
            protocol: Protocol::Tcp,
            source: (source, SOURCE_PORT),
            destination: ([203, 0, 113, 5].into(), 80),
            reply_source: (endpoint, 8080),
            reply_destination: (primary, 50_000),
        })
    };
    assert!(!is_stale(bridge, endpoint));
    assert!(is_stale(bridge, other), "the endpoint is gone");
    assert!(
        is_stale(outside, endpoint),
        "the endpoint is not on this node"
    );
}
