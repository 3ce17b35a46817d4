//! Small random clusters, with so few names and addresses that objects conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use kube_dnat::per_family;
use kube_dnat::planner::desired::{NodeFacts, NodePortAddresses, PodSource};
use kube_dnat::planner::diff::Plan;
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::{
    Address, Balance, Endpoint, EndpointSlice, Event, Hints, Node, Object, ObjectKey, ObjectKind,
    OwnAddresses, Placement, PortRange, PortRanges, Protocol, Service, ServiceCidr,
    ServiceFeatures, ServiceName, ServicePort, SliceEndpoints, SlicePort, Topology, TrafficPolicy,
    Update, WeightTarget, Weights,
};
use kube_dnat::planner::ruleset::{
    DynamicChain, Element, Key, SetName, SlotRange, Table, Value, Verdict,
};
use kube_dnat::sync::{FamilyState, Skipped, State, SyncPlan};
use proptest::collection::vec;
use proptest::prelude::*;

/// Returns a state that recognises Pods by their addresses.
pub(crate) fn state() -> State {
    state_serving(NodePortAddresses::Primary)
}

/// Returns a state that serves node ports at these addresses of the node.
pub(crate) fn state_serving(node_port_addresses: NodePortAddresses) -> State {
    State::new(NodeFacts {
        node_port_addresses,
        pods: PodSource::ClusterCidr(vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd00:10:244::/56".parse().unwrap(),
        ]),
        own_addresses: Some(OwnAddresses {
            of_default_route: vec![IpAddr::from([192, 168, 77, 2])],
            ..OwnAddresses::default()
        }),
        ..NodeFacts::default()
    })
}

pub(crate) fn key(kind: ObjectKind, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        name: name.into(),
    }
}

/// Returns a ready endpoint on another node.
pub(crate) fn remote_endpoint(address: Ipv4Addr) -> Endpoint<Ipv4Addr> {
    Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        placement: Placement::Remote,
        topology: None,
    }
}

pub(crate) fn update(key: ObjectKey, object: Option<Object>) -> Event {
    Event::Update(Update {
        key,
        object,
        rejected: Vec::new(),
        triggered: None,
    })
}

fn address(low: u8) -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        3 => (0..low).prop_map(|last| IpAddr::from([10, 96, 0, last])),
        1 => (0..low).prop_map(|last| IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, last.into()])),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

fn port() -> impl Strategy<Value = ServicePort> {
    let node_port = prop::option::of(30000_u16..30004);
    // Some have the port number of a node port.
    let number = prop_oneof![3 => 80_u16..83, 1 => 30000_u16..30004];
    ("[ab]?", protocol(), number, node_port).prop_map(|(name, protocol, port, node_port)| {
        ServicePort {
            name: name.into(),
            protocol,
            port,
            node_port,
        }
    })
}

/// Generates internal and external policy, affinity timeout and source ranges.
fn policies() -> impl Strategy<Value = (TrafficPolicy, TrafficPolicy, Option<u32>, Vec<IpNet>)> {
    let policy = || prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)];
    let affinity = prop::option::weighted(0.4, prop_oneof![Just(10_800), Just(90)]);
    let ranges = [
        "10.0.0.0/8",
        "192.168.77.0/24",
        "0.0.0.0/0",
        "fd00::/8",
        "192.0.2.0/24",
    ];
    let range = (0..ranges.len()).prop_map(move |index| ranges[index].parse().unwrap());
    (policy(), policy(), affinity, vec(range, 0..3))
}

/// Generates weights of zones, nodes and endpoints.
fn weights() -> impl Strategy<Value = Weights> {
    let name = |name: usize| Arc::from(["a", "b"][name]);
    let target = prop_oneof![
        (0_usize..2).prop_map(move |zone| WeightTarget::Zone(name(zone))),
        (0_usize..2).prop_map(move |node| WeightTarget::Node(name(node))),
        (0_u8..9).prop_map(|last| WeightTarget::Address(IpAddr::from([10, 244, 1, last]))),
    ];
    let weight = prop_oneof![Just(0_u16), 1_u16..5, Just(100)];
    vec((target, weight), 1..4).prop_map(Weights::new)
}

/// Generates port ranges.
fn port_ranges() -> impl Strategy<Value = PortRanges> {
    let range = |first, last| PortRange::new(first, last).unwrap();
    let ranges = [
        (Protocol::Tcp, range(500, 509)),
        (Protocol::Udp, range(500, 599)),
        (Protocol::Sctp, range(1, 1)),
        // The ports of Services are among them.
        (Protocol::Tcp, range(1, 81)),
    ];
    let ranges = prop::sample::subsequence(ranges.to_vec(), 1..3);
    ranges.prop_map(|ranges| PortRanges::new(ranges).unwrap())
}

/// The time in which the shares of new endpoints grow.
pub(crate) const SLOW_START: Duration = Duration::from_mins(1);

/// Generates the features of a Service, which has port ranges with this probability.
fn features(ranges: f64) -> impl Strategy<Value = ServiceFeatures> {
    let features = (
        prop::option::weighted(0.05, prop::sample::select(Balance::ALL.to_vec())),
        prop::option::weighted(0.2, weights()),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.05),
        prop::option::weighted(ranges, port_ranges()),
    );
    features.prop_map(
        |(balance, weights, slow_start, close_removed, port_ranges)| ServiceFeatures {
            close_removed,
            balance,
            weights,
            slow_start: slow_start.then_some(SLOW_START),
            port_ranges,
            ..ServiceFeatures::default()
        },
    )
}

/// Returns the features of a Service with or without session affinity, if there are any.
fn features_beside(
    affinity: Option<u32>,
    features: ServiceFeatures,
) -> Option<Box<ServiceFeatures>> {
    let features = ServiceFeatures {
        // The parser rejects a hash beside session affinity.
        balance: features.balance.filter(|_| affinity.is_none()),
        ..features
    };
    (features != ServiceFeatures::default()).then(|| Box::new(features))
}

fn service(name: String, ranges: f64) -> impl Strategy<Value = Service> {
    let addresses = || vec(address(6), 0..3);
    (
        prop::option::of(0_i64..4),
        any::<bool>(),
        vec(address(6), 1..3),
        addresses(),
        addresses(),
        (
            vec(port(), 1..4),
            prop::option::weighted(0.2, 30000_u16..30004),
        ),
        policies(),
        features(ranges),
    )
        .prop_map(
            move |(
                created,
                has_selector,
                cluster_ips,
                external_ips,
                lb_ips,
                (ports, check),
                policies,
                features,
            )| {
                let (internal_policy, external_policy, affinity, source_ranges) = policies;
                // The parser rejects a port that repeats another.
                let mut seen = BTreeSet::new();
                let mut unique = |port: &ServicePort| {
                    seen.insert((port.protocol, Some(port.port), None, None))
                        && seen.insert((port.protocol, None, Some(port.name.clone()), None))
                        && port
                            .node_port
                            .is_none_or(|node| seen.insert((port.protocol, None, None, Some(node))))
                };
                let ports: Vec<_> = ports.into_iter().filter(|port| unique(port)).collect();
                let node_ports: Vec<_> = ports.iter().map(|port| port.node_port).collect();
                Service {
                    name: ServiceName::from_key(&name.as_str().into()),
                    created,
                    has_selector,
                    cluster_ips: cluster_ips.into(),
                    external_ips: external_ips.into(),
                    load_balancer_ips: lb_ips.into(),
                    internal_policy,
                    external_policy,
                    affinity,
                    source_ranges: source_ranges.into(),
                    health_check_node_port: check
                        .filter(|check| !node_ports.contains(&Some(*check))),
                    ports: ports.into(),
                    features: features_beside(affinity, features),
                }
            },
        )
}

fn endpoint<A: Address>(address: impl Fn(u8) -> A + Clone) -> impl Strategy<Value = Endpoint<A>> {
    let names = (vec(0_usize..2, 0..2), any::<bool>(), any::<bool>());
    let hints = prop::option::weighted(0.3, names).prop_map(|hints| {
        hints.map(|(zones, has_nodes, names_this_node)| {
            let zones = zones.into_iter().map(|zone| ["a", "b"][zone].into());
            Hints {
                zones: zones.collect(),
                has_nodes,
                has_this_node: has_nodes && names_this_node,
            }
        })
    });
    let name = || prop::option::of((0_usize..2).prop_map(|name| Arc::from(["a", "b"][name])));
    let topology = (hints, name(), name()).prop_map(|(hints, node, zone)| {
        let topology = Topology { hints, node, zone };
        (topology != Topology::default()).then(|| Arc::new(topology))
    });
    let conditions = (prop::bool::weighted(0.7), any::<bool>(), any::<bool>());
    let place = prop_oneof![
        Just(Placement::Local),
        Just(Placement::Unknown),
        Just(Placement::Remote),
    ];
    (0_u8..9, conditions, place, topology).prop_map(
        move |(last, (ready, serving, terminating), place, topology)| Endpoint {
            address: address(last),
            ready,
            serving,
            terminating,
            placement: place,
            topology,
        },
    )
}

fn addresses() -> impl Strategy<Value = SliceEndpoints> {
    let ipv4 = |last| Ipv4Addr::new(10, 244, 1, last);
    let ipv6 = |last: u8| Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, last.into());
    prop_oneof![
        3 => vec(endpoint(ipv4), 0..7).prop_map(|list| SliceEndpoints::Ipv4(list.into())),
        1 => vec(endpoint(ipv6), 0..7).prop_map(|list| SliceEndpoints::Ipv6(list.into())),
    ]
}

fn slice(service: String) -> impl Strategy<Value = EndpointSlice> {
    let port = ("[ab]?", protocol(), 8080_u16..8083).prop_map(|(name, protocol, port)| SlicePort {
        name: Arc::from(name),
        protocol,
        port,
    });
    let slice = (
        any::<bool>(),
        prop::option::of(0_i64..3),
        vec(port, 1..4),
        addresses(),
    );
    slice.prop_map(
        move |(mirrored, triggered, ports, addresses)| EndpointSlice {
            service: ServiceName::from_key(&service.as_str().into()),
            mirrored,
            triggered,
            ports: ports.into(),
            addresses,
        },
    )
}

/// Generates a report of one object.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    event_with(0.02)
}

/// Generates a report of one object; a Service has port ranges with this probability.
pub(crate) fn event_with(ranges: f64) -> impl Strategy<Value = Event> {
    let name = || (0_u8..4).prop_map(|number| format!("shop/service-{number}"));
    let of_service = name().prop_flat_map(move |name| {
        let key = key(ObjectKind::Service, &name);
        prop::option::weighted(0.8, service(name, ranges)).prop_map(move |service| {
            update(
                key.clone(),
                service.map(|service| Object::Service(service.into())),
            )
        })
    });
    let of_slice = (0_u8..6, name()).prop_flat_map(|(number, service)| {
        let key = key(ObjectKind::EndpointSlice, &format!("shop/slice-{number}"));
        prop::option::weighted(0.8, slice(service)).prop_map(move |slice| {
            update(
                key.clone(),
                slice.map(|slice| Object::Slices([slice].into())),
            )
        })
    });
    let zone = prop::option::of(0_usize..2);
    let pod_cidrs = prop_oneof![
        2 => Just(vec![]),
        2 => Just(vec!["10.244.1.0/24", "fd00:10:244::/124"]),
        1 => Just(vec!["10.244.8.0/22", "192.0.2.0/24"]),
    ];
    let of_node = (vec(address(3), 0..3), zone, pod_cidrs).prop_map(|(addresses, zone, cidrs)| {
        let node = Node {
            addresses,
            zone: zone.map(|zone| ["a", "b"][zone].into()),
            pod_cidrs: cidrs
                .into_iter()
                .map(|cidr| cidr.parse().unwrap())
                .collect(),
            is_leaving: false,
        };
        update(key(ObjectKind::Node, "node-1"), Some(Object::Node(node)))
    });
    let of_cidr = prop::option::of(8_u8..13).prop_map(|len| {
        let cidr = |len| vec![format!("10.96.0.0/{len}").parse().unwrap()];
        let object = len.map(|len| Object::ServiceCidr(ServiceCidr { cidrs: cidr(len) }));
        update(key(ObjectKind::ServiceCidr, "kubernetes"), object)
    });
    let of_machine = (vec(address(3), 0..3), vec(address(6), 0..3));
    let own_addresses = of_machine.prop_map(|(of_default_route, others)| {
        Event::OwnAddresses(OwnAddresses {
            all: of_default_route.iter().copied().chain(others).collect(),
            of_default_route,
        })
    });
    prop_oneof![4 => of_service, 4 => of_slice, 1 => of_node, 1 => of_cidr, 1 => own_addresses]
}

/// The tables of a kernel after all transactions so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) ipv4: Table<Ipv4Addr>,
    pub(crate) ipv6: Table<Ipv6Addr>,
}

impl Tables {
    /// Returns the tables that a fresh start programs.
    pub(crate) fn fresh(state: &State) -> Self {
        let Dual { ipv4, ipv6 } = state.desired_tables();
        let ipv6 = ipv6.unwrap();
        Self { ipv4, ipv6 }
    }

    fn as_mut(&mut self) -> Dual<&mut Table<Ipv4Addr>, &mut Table<Ipv6Addr>> {
        Dual::both(&mut self.ipv4, &mut self.ipv6)
    }
}

/// The state of IPv6, which every node of these tests has.
pub(crate) fn ipv6(state: &State) -> &FamilyState<Ipv6Addr> {
    state.families.ipv6.as_ref().unwrap()
}

/// Skips a Service in both families.
pub(crate) fn skip(state: &mut State, service: &ServiceName) -> Dual<Skipped> {
    per_family!(state.families.as_mut(), |family| family.skip(service))
}

/// Commits a plan to `tables`, each operation checked; returns the number of operations.
pub(crate) fn commit_plan(state: &mut State, tables: &mut Tables, plan: SyncPlan) -> usize {
    let (transactions, effects) = plan.split();
    let counts = per_family!(transactions.zip(tables.as_mut()), |(transaction, table)| {
        transaction.apply(table).unwrap();
        transaction.len()
    });
    let _ = state.committed(effects);
    counts.into_iter().sum()
}

/// Commits what is dirty to `tables`, each operation checked; returns the number of operations.
pub(crate) fn commit(state: &mut State, tables: &mut Tables) -> usize {
    let plan = state.plan_changes();
    let operations = commit_plan(state, tables, plan);
    forgotten(state, tables);
    operations
}

/// Reports that all clients that must not stay have been forgotten.
pub(crate) fn forgotten(state: &mut State, tables: &mut Tables) {
    let families = state.families.as_mut().zip(tables.as_mut());
    per_family!(families, |(family, table)| {
        if let Some(Plan { transaction, delta }) = family.plan_all_unpinned() {
            transaction.apply(table).unwrap();
            family.applied_mut().committed(delta);
        }
    });
}

/// Returns the last event of each object.
pub(crate) fn last_words(events: &[Event]) -> Vec<Event> {
    let mut last = BTreeMap::new();
    for event in events {
        let key = match event {
            Event::Update(update) => Some(update.key.clone()),
            Event::OwnAddresses(_) => None,
            Event::Listed(_) | Event::Interrupted(..) | Event::NodeMissing(_) => continue,
        };
        last.insert(key, event.clone());
    }
    last.into_values().collect()
}

/// Prints a table without the parts that depend on history.
///
/// These are the assignment of endpoints to slots 0..N-1 where no hash selects the slot, and unused
/// chains.
pub(crate) fn normalised<A: Address>(table: &Table<A>) -> Vec<String> {
    type Slots = Vec<(u32, String)>;
    let mut slots: BTreeMap<(SetName, Key<A>), Slots> = BTreeMap::new();
    let mut lines = Vec::new();
    let hashed = hashed(table);
    for element in table.elements() {
        let Some((frontend, slot)) = list_and_slot(element.key) else {
            lines.push(format!("{} {element}", element.set));
            continue;
        };
        let endpoint = match element.value {
            Value::Endpoint(..) | Value::Address(_) => {
                format!("{:?} {:?}", element.value, element.comment)
            }
            Value::Nothing | Value::Verdict(_) => panic!("{element} is no endpoint"),
        };
        slots
            .entry((element.set, frontend))
            .or_default()
            .push((slot, endpoint));
    }
    for ((set, frontend), mut endpoints) in slots {
        let numbers: Vec<_> = endpoints.iter().map(|(slot, _)| *slot).collect();
        let expected: Vec<_> = (0..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "the slots of {frontend}");
        if hashed.contains(&frontend) {
            lines.push(format!("{set} {frontend} {endpoints:?}"));
            continue;
        }
        endpoints.sort_by(|one, other| one.1.cmp(&other.1));
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .map(|(_, endpoint)| endpoint)
            .collect();
        lines.push(format!("{set} {frontend} {}", endpoints.join(" ")));
    }
    lines
}

/// Returns the key of the first slot of the list, and the number of the slot in it; `None` for a key
/// without a slot.
fn list_and_slot<A: Address>(key: Key<A>) -> Option<(Key<A>, u32)> {
    match key {
        Key::Slot(protocol, address, port, slot) => {
            let (list, slot) = in_list(slot);
            Some((Key::Slot(protocol, address, port, list), slot))
        }
        Key::NodeportSlot(protocol, port, slot) => {
            let (list, slot) = in_list(slot);
            Some((Key::NodeportSlot(protocol, port, list), slot))
        }
        Key::RangeSlot(protocol, address, slot) => {
            let (list, slot) = in_list(slot);
            Some((Key::RangeSlot(protocol, address, list), slot))
        }
        Key::Net(_)
        | Key::Address(_)
        | Key::Protocol(_)
        | Key::Port(_)
        | Key::Original
        | Key::Pair(..)
        | Key::AddressPort(..)
        | Key::Frontend(..)
        | Key::Nodeport(..)
        | Key::SourceRange(..)
        | Key::PortRange(..)
        | Key::Ranges(..)
        | Key::Client(..)
        | Key::Sent(..) => None,
    }
}

/// Returns the first slot of the list that has a slot, and the number of the slot in it.
fn in_list(slot: u32) -> (u32, u32) {
    let list = slot / SlotRange::CLUSTER * SlotRange::CLUSTER;
    (list, slot - list)
}

/// Returns the key of the first slot of each list that a hash selects from.
fn hashed<A: Address>(table: &Table<A>) -> BTreeSet<Key<A>> {
    let of_element = |element: &Element<A>| {
        let Value::Verdict(Verdict::Dynamic(DynamicChain::Hashed(_, _, list, _))) = element.value
        else {
            return None;
        };
        if let Key::Ranges(protocol, address) = element.key {
            return Some(Key::RangeSlot(protocol, address, list.base()));
        }
        let (protocol, address, port) = element.key.frontend()?;
        Some(match address {
            Some(address) => Key::Slot(protocol, address, port, list.base()),
            None => Key::NodeportSlot(protocol, port, list.base()),
        })
    };
    table
        .elements()
        .filter_map(|element| of_element(&element))
        .collect()
}

/// Where node ports are served: at the primary addresses, at all, at those of a range.
pub(crate) fn node_port_addresses() -> impl Strategy<Value = NodePortAddresses> {
    let ranges = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap());
        Just(NodePortAddresses::In(ranges.collect()))
    };
    prop_oneof![
        2 => Just(NodePortAddresses::Primary),
        2 => ranges(&[]),
        1 => ranges(&["10.96.0.0/30", "10.96.0.4/32"]),
    ]
}
