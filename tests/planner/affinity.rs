//! The endpoints that clients with session affinity keep after any change.
//!
//! They keep exactly the endpoints that a fresh start would allow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kube_dnat::planner::diff::{ElementTimeout, TimeLeft};
use kube_dnat::planner::model::{
    Address as _, EndpointSlice, Event, Object, ObjectKind, OwnAddresses, Protocol, Service,
    ServiceName, ServicePort, SliceEndpoints, SlicePort, TrafficPolicy,
};
use kube_dnat::planner::ruleset::{Key, SetName, Table, Value, Verdict};
use kube_dnat::sync::{ClientsToUnpin, State};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reading::read_back;
use crate::specification::{Objects, OfNode};
use crate::world::{
    Tables, commit_plan, event, forgotten, key, last_words, remote_endpoint, state, update,
};

/// The address and port of an endpoint.
type EndpointAddr = (Ipv4Addr, u16);

/// A client and its destination.
type Client = (Ipv4Addr, (Protocol, Ipv4Addr, u16));

/// The endpoint that each client is pinned to, and the timeout in seconds.
type Clients = BTreeMap<Client, (EndpointAddr, u32)>;

/// A client that is neither a Pod nor at an address of the node.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

/// Sources: an external one, Pods of this and another node, an endpoint, and another external one.
const SOURCES: [Ipv4Addr; 5] = [
    OUTSIDE,
    Ipv4Addr::new(10, 244, 1, 99),
    Ipv4Addr::new(10, 244, 9, 9),
    Ipv4Addr::new(10, 244, 1, 3),
    Ipv4Addr::new(10, 99, 0, 1),
];

/// The objects, and the addresses of the node.
struct World {
    objects: Objects,
    node: OfNode<Ipv4Addr>,
    /// The node's own addresses.
    own: BTreeSet<Ipv4Addr>,
}

impl World {
    fn new(events: &[Event], table: &Table<Ipv4Addr>) -> Self {
        let node_ip = table.entries(SetName::NodeIps).next();
        let primary_ip = node_ip.and_then(|(key, _)| {
            if let Key::Address(address) = key {
                Some(*address)
            } else {
                None
            }
        });
        let events = last_words(events);
        let own_addresses = events.iter().find_map(|event| match event {
            Event::OwnAddresses(own) => Some(&own.all),
            Event::Update(_)
            | Event::Listed(_)
            | Event::Interrupted(..)
            | Event::NodeMissing(_) => None,
        });
        Self {
            objects: Objects::of(&events),
            node: OfNode {
                primary_ip,
                pods: "10.244.0.0/16".parse().unwrap(),
            },
            own: own_addresses
                .into_iter()
                .flatten()
                .copied()
                .filter_map(Ipv4Addr::from_ip)
                .chain(primary_ip)
                .collect(),
        }
    }

    /// Returns the timeout of a client that may keep the endpoint; `None` if it may not.
    fn keeps(&self, (source, target): Client, endpoint: EndpointAddr) -> Option<u32> {
        self.objects
            .keeps(&self.node, (source, self.own.contains(&source)), target)
            .filter(|(list, _)| list.contains(&endpoint))
            .map(|(_, seconds)| seconds)
    }

    /// Connects every client that is not pinned to every destination.
    fn connect(&self, clients: &mut Clients, draw: usize) {
        for (number, target) in self
            .objects
            .destinations(self.node.primary_ip)
            .into_iter()
            .enumerate()
        {
            for source in SOURCES.into_iter().chain(self.node.primary_ip) {
                let keeps =
                    self.objects
                        .keeps(&self.node, (source, self.own.contains(&source)), target);
                let Some((list, seconds)) = keeps.filter(|(list, _)| !list.is_empty()) else {
                    continue;
                };
                let chosen = list.iter().nth((draw + number) % list.len()).unwrap();
                let client = clients.entry((source, target));
                client.or_insert((*chosen, seconds));
            }
        }
    }
}

/// Returns the kernel's verdict for a pinned client's connection to an endpoint.
fn gone(
    table: &Table<Ipv4Addr>,
    (_, target): Client,
    (endpoint, number): EndpointAddr,
) -> Option<Verdict> {
    let (protocol, address, port) = target;
    let key = Key::Sent(address, port, endpoint, number);
    let data = table.get(SetName::Gone(protocol), &key)?;
    match data.value {
        Value::Verdict(verdict) => Some(verdict),
        Value::Nothing | Value::Endpoint(..) | Value::Address(_) => None,
    }
}

fn is_forgotten(
    stale: &ClientsToUnpin<Ipv4Addr>,
    (source, target): Client,
    (ip, number): EndpointAddr,
) -> bool {
    let (protocol, address, port) = target;
    let key = Key::Client(source, address, port);
    stale.covers(protocol, &key, &Value::Endpoint(ip, number))
}

/// Returns a timeout of which ten seconds have passed.
fn ten_seconds_later(seconds: u32) -> ElementTimeout {
    ElementTimeout {
        whole: Duration::from_secs(seconds.into()),
        left: Duration::from_secs(u64::from(seconds) - 10),
    }
}

/// Returns the new remaining time of a client that connected ten seconds ago.
///
/// `seconds` is the timeout before the change. `None` if the timeout does not change.
fn time(
    stale: &ClientsToUnpin<Ipv4Addr>,
    (source, target): Client,
    seconds: u32,
) -> Option<TimeLeft> {
    let (protocol, address, port) = target;
    let key = Key::Client(source, address, port);
    stale.new_time_left(protocol, &key, ten_seconds_later(seconds), Duration::ZERO)
}

/// Returns whether the table pins the clients of a destination.
fn is_sticky(table: &Table<Ipv4Addr>, (_, (protocol, address, port)): Client) -> bool {
    let frontend = Key::AddressPort(address, port);
    table.get(SetName::Sticky(protocol), &frontend).is_some()
        || table
            .get(SetName::StickyNodeports(protocol), &Key::Port(port))
            .is_some()
}

/// Commits all changes, or everything after a restart; returns the clients to forget.
fn commit(state: &mut State, kernel: &mut Tables, restarted: bool) -> ClientsToUnpin<Ipv4Addr> {
    if restarted {
        read_back(state, kernel, &[]);
        return state.families.ipv4.clients_to_unpin().unwrap();
    }
    let plan = state.plan_changes();
    let affected = plan.ipv4.effects.to_unpin.clone();
    commit_plan(state, kernel, plan);
    affected
}

/// Returns a Service without ports and addresses.
fn cluster_ip_service(name: &str) -> Service {
    Service {
        name: ServiceName::from_key(&name.into()),
        created: Some(0),
        has_selector: true,
        cluster_ips: Box::default(),
        external_ips: Box::default(),
        load_balancer_ips: Box::default(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Box::default(),
        health_check_node_port: None,
        features: None,
        ports: Box::default(),
    }
}

/// Returns a slice of a Service with these ports and endpoints `10.244.1.LAST`.
fn slice_of(name: &str, ports: &[(&str, u16)], last: &[u8]) -> Event {
    let ports = ports.iter().map(|(name, port)| SlicePort {
        name: (*name).into(),
        protocol: Protocol::Tcp,
        port: *port,
    });
    let endpoint = |last: &u8| remote_endpoint(Ipv4Addr::new(10, 244, 1, *last));
    let slice = EndpointSlice {
        service: ServiceName::from_key(&name.into()),
        mirrored: false,
        triggered: None,
        ports: ports.collect(),
        addresses: SliceEndpoints::Ipv4(last.iter().map(endpoint).collect()),
    };
    update(
        key(ObjectKind::EndpointSlice, name),
        Some(Object::Slices([slice].into())),
    )
}

/// Returns the name of a Service that does not fit a comment.
fn long_name() -> String {
    format!("{}/{}", "n".repeat(63), "s".repeat(63))
}

/// Returns a Service with two ports and session affinity.
fn long_named() -> Event {
    let name = long_name();
    let port = |name: &str, port| ServicePort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port,
        node_port: None,
    };
    let service = Service {
        cluster_ips: [IpAddr::from([10, 96, 0, 1])].into(),
        affinity: Some(10_800),
        ports: [port("http", 80), port("https", 81)].into(),
        ..cluster_ip_service(&name)
    };
    update(
        key(ObjectKind::Service, &name),
        Some(Object::Service(service.into())),
    )
}

/// Returns its slice with endpoints `10.244.1.LAST`.
fn long_named_slice(last: &[u8]) -> Event {
    slice_of(&long_name(), &[("http", 8080), ("https", 8443)], last)
}

#[test]
fn ports_of_a_service_with_a_long_name_are_distinct() {
    let (mut state, mut kernel) = (state(), Tables::default());
    let _ = state.apply(long_named());
    let _ = state.apply(long_named_slice(&[2, 3]));
    let _ = commit(&mut state, &mut kernel, false);
    let before = kernel.ipv4.clone();
    let _ = state.apply(long_named_slice(&[1, 2, 3]));
    let affected = commit(&mut state, &mut kernel, false);
    for (port, number) in [(80, 8080), (81, 8443)] {
        let client = (
            SOURCES[0],
            (Protocol::Tcp, Ipv4Addr::new(10, 96, 0, 1), port),
        );
        for last in [2, 3] {
            let endpoint = (Ipv4Addr::new(10, 244, 1, last), number);
            assert!(!is_forgotten(&affected, client, endpoint), "{client:?}");
        }
    }
    // Endpoints that stay keep their slots, too.
    for slot in before.elements_of(SetName::Endpoints) {
        let now = kernel.ipv4.get(SetName::Endpoints, &slot.key).unwrap();
        assert_eq!(now.value, slot.value, "{}", slot.key);
    }
}

#[test]
fn a_frontend_at_an_address_of_the_node_takes_precedence_over_a_node_port() {
    const NAME: &str = "shop/cart";
    let address = Ipv4Addr::new(10, 96, 0, 1);
    let (mut state, mut kernel) = (state(), Tables::default());
    let _ = state.apply(Event::OwnAddresses(OwnAddresses {
        of_default_route: vec![address.into()],
        ..OwnAddresses::default()
    }));
    let port = |name: &str, port, node_port| ServicePort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port,
        node_port,
    };
    let service = Service {
        affinity: Some(10_800),
        cluster_ips: [address.into()].into(),
        ports: [port("a", 30_000, None), port("b", 80, Some(30_000))].into(),
        ..cluster_ip_service(NAME)
    };
    let _ = state.apply(update(
        key(ObjectKind::Service, NAME),
        Some(Object::Service(service.into())),
    ));
    let _ = state.apply(slice_of(NAME, &[("a", 8080), ("b", 8443)], &[2]));
    let _ = commit(&mut state, &mut kernel, false);
    let affected = state.families.ipv4.clients_to_unpin().unwrap();
    let client = (SOURCES[0], (Protocol::Tcp, address, 30_000));
    let endpoint = Ipv4Addr::new(10, 244, 1, 2);
    assert!(!is_forgotten(&affected, client, (endpoint, 8080)));
    assert!(is_forgotten(&affected, client, (endpoint, 8443)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_keeps_exactly_what_a_fresh_start_would_allow(
        steps in vec((vec(event(), 1..5), prop::bool::weighted(0.2), any::<u8>()), 1..8),
    ) {
        let (mut state, mut kernel) = (state(), Tables::default());
        let (mut events, mut clients) = (Vec::new(), Clients::new());
        for (batch, restarts, draw) in steps {
            events.extend(batch.iter().cloned());
            if restarts {
                state = crate::world::state();
                for event in last_words(&events) {
                    let _ = state.apply(event);
                }
            } else {
                for event in batch {
                    let _ = state.apply(event);
                }
            }
            let affected = commit(&mut state, &mut kernel, restarts);
            let world = World::new(&events, &kernel.ipv4);
            for (client, (endpoint, seconds)) in &clients {
                let keeps = world.keeps(*client, *endpoint);
                let forgotten = is_forgotten(&affected, *client, *endpoint);
                prop_assert_eq!(!forgotten, keeps.is_some(), "{:?} {:?}", client, endpoint);
                if let Some(now) = keeps {
                    let left = (now != *seconds).then(|| TimeLeft::Time(ten_seconds_later(now)));
                    prop_assert_eq!(time(&affected, *client, *seconds), left, "{:?}", client);
                }
                // Until the client is forgotten, its connections are denied. A client inside may
                // stay meanwhile at a local endpoint that clients outside keep.
                let gone = gone(&kernel.ipv4, *client, *endpoint);
                let nobody_keeps = world.keeps((OUTSIDE, client.1), *endpoint).or(keeps).is_none();
                if is_sticky(&kernel.ipv4, *client) && nobody_keeps {
                    prop_assert!(gone.is_some(), "{:?} {:?}", client, endpoint);
                }
                prop_assert!(gone != Some(Verdict::GONE) || keeps.is_none());
                prop_assert!(gone != Some(Verdict::Unremembered));
            }
            clients.retain(|client, (endpoint, seconds)| {
                let keeps = world.keeps(*client, *endpoint);
                *seconds = keeps.unwrap_or_default();
                keeps.is_some()
            });
            forgotten(&mut state, &mut kernel);
            world.connect(&mut clients, draw.into());
        }
    }
}
