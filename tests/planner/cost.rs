//! The cost of each kind of change in operations and bytes, which depends on the change only.
//!
//! `UPDATE_GOLDEN=1 cargo test --test planner` rewrites `cost.txt`: review the diff.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use kube_dnat::planner::desired::NodeFacts;
use kube_dnat::planner::model::{
    Balance, Endpoint, EndpointSlice, Event, NoLocalEndpoint, Object, ObjectKind, Placement,
    PortRange, PortRanges, Protocol, Service, ServiceFeatures, ServiceName, ServicePort,
    SliceEndpoints, SlicePort, TrafficPolicy, WeightTarget, Weights,
};

use kube_dnat::netlink::Commit;
use kube_dnat::sync::State;

use crate::world::{SLOW_START, Tables, commit, key, remote_endpoint, state, update};

const NAME: &str = "shop/cart";

/// Returns a Service with two frontends and possibly a node port.
fn service(node_port: Option<u16>) -> Event {
    service_with(node_port, None)
}

/// Returns that Service with these features.
pub(crate) fn service_with(
    node_port: Option<u16>,
    features: Option<Box<ServiceFeatures>>,
) -> Event {
    let service = Service {
        name: ServiceName::new("shop", "cart"),
        created: Some(0),
        has_selector: true,
        cluster_ips: [IpAddr::from([10, 96, 7, 7])].into(),
        external_ips: [IpAddr::from([203, 0, 113, 5])].into(),
        load_balancer_ips: Box::default(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Box::default(),
        health_check_node_port: None,
        features,
        ports: [port(node_port)].into(),
    };
    update(
        key(ObjectKind::Service, NAME),
        Some(Object::Service(service.into())),
    )
}

/// Returns the slice of the Service.
pub(crate) fn slice(endpoints: impl IntoIterator<Item = u32>) -> Event {
    slice_named(NAME, endpoints)
}

/// Returns a Service with this name and one frontend, 10.96.0.`last`.
pub(crate) fn service_named(name: &str, last: u8) -> Event {
    let service = Service {
        name: ServiceName::from_key(&name.into()),
        created: Some(0),
        has_selector: true,
        cluster_ips: [IpAddr::from([10, 96, 0, last])].into(),
        external_ips: Box::default(),
        load_balancer_ips: Box::default(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Box::default(),
        health_check_node_port: None,
        features: None,
        ports: [port(None)].into(),
    };
    update(
        key(ObjectKind::Service, name),
        Some(Object::Service(service.into())),
    )
}

/// Returns the address of the endpoint with this number.
pub(crate) fn pod_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0af4_0000 + number)
}

/// Returns the only slice of a Service, with these ready endpoints.
pub(crate) fn slice_named(name: &str, endpoints: impl IntoIterator<Item = u32>) -> Event {
    let endpoints = endpoints.into_iter().map(pod_ip).map(remote_endpoint);
    slice_with(name, endpoints.collect())
}

/// Returns the only slice of a Service.
pub(crate) fn slice_with(name: &str, endpoints: Box<[Endpoint<Ipv4Addr>]>) -> Event {
    let slice = EndpointSlice {
        service: ServiceName::from_key(&name.into()),
        mirrored: false,
        triggered: None,
        ports: [SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }]
        .into(),
        addresses: SliceEndpoints::Ipv4(endpoints),
    };
    update(
        key(ObjectKind::EndpointSlice, name),
        Some(Object::Slices([slice].into())),
    )
}

fn port(node_port: Option<u16>) -> ServicePort {
    ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port,
    }
}

/// Returns the operations and bytes of a change of a Service with `count` endpoints.
fn cost(count: u32, service: Event, change: Event) -> (usize, usize) {
    cost_in(state(), [service, slice(0..count)], change)
}

/// Returns the operations and bytes of a change after these events.
fn cost_in(mut state: State, before: [Event; 2], change: Event) -> (usize, usize) {
    let mut tables = Tables::default();
    for event in before {
        let _ = state.apply(event);
    }
    commit(&mut state, &mut tables);
    let _ = state.apply(change);
    pending(&state)
}

/// Returns the operations and bytes of changes of frontends that outside clients use.
fn external_costs(count: u32) -> [(&'static str, (usize, usize)); 5] {
    let last_local_removed = |answer| {
        let local = with(service(Some(30080)), |service| {
            service.external_policy = TrafficPolicy::Local;
            service.features = Some(Box::new(ServiceFeatures {
                no_local_endpoint: Some(answer),
                ..ServiceFeatures::default()
            }));
        });
        let on_node = Endpoint {
            placement: Placement::Local,
            ..remote_endpoint(pod_ip(90_000))
        };
        let remote = (0..count).map(pod_ip).map(remote_endpoint);
        let endpoints = remote.chain([on_node]).collect();
        let before = [local, slice_with(NAME, endpoints)];
        cost_in(state(), before, slice(0..count))
    };
    let load_balancer_ip_added = |refuse_load_balancer_ports| {
        let state = State::new(NodeFacts {
            refuse_load_balancer_ports,
            ..NodeFacts::default()
        });
        let with_ip = with(service(None), |service| {
            service.load_balancer_ips = [IpAddr::from([198, 51, 100, 7])].into();
        });
        cost_in(state, [service(None), slice(0..count)], with_ip)
    };
    let with_source_ranges = |source_ranges: &[&str]| {
        with(service(None), |service| {
            service.load_balancer_ips = [IpAddr::from([198, 51, 100, 7])].into();
            let ranges = source_ranges.iter();
            service.source_ranges = ranges.map(|range| range.parse().unwrap()).collect();
        })
    };
    let source_ranges_set = {
        let before = [with_source_ranges(&[]), slice(0..count)];
        let change = with_source_ranges(&["192.0.2.0/24", "203.0.113.0/24"]);
        cost_in(state(), before, change)
    };
    [
        (
            "external-local: no local endpoint left",
            last_local_removed(NoLocalEndpoint::Drop),
        ),
        (
            "external-local: none left, rejecting",
            last_local_removed(NoLocalEndpoint::Reject),
        ),
        ("load-balancer IP: added", load_balancer_ip_added(false)),
        (
            "load-balancer IP: added, others refused",
            load_balancer_ip_added(true),
        ),
        ("load-balancer IP: two source ranges set", source_ranges_set),
    ]
}

/// Returns the update of a Service that is changed.
fn with(event: Event, change: impl FnOnce(&mut Service)) -> Event {
    let Event::Update(mut update) = event else {
        panic!("an update");
    };
    if let Some(Object::Service(service)) = &mut update.object {
        change(Arc::make_mut(service));
    }
    Event::Update(update)
}

/// Returns the operations and bytes of the next commit.
fn pending(state: &State) -> (usize, usize) {
    let (transactions, _) = state.plan_changes().split();
    let sent = Commit::from(transactions);
    (sent.len(), sent.bytes())
}

/// Returns the operations and bytes of each step of the slow start of one more endpoint.
fn slow_start_costs(count: u32) -> [(&'static str, (usize, usize)); 5] {
    let features = ServiceFeatures {
        slow_start: Some(SLOW_START),
        ..ServiceFeatures::default()
    };
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(service_with(None, Some(Box::new(features))));
    let _ = state.apply(slice(0..count));
    commit(&mut state, &mut tables);
    state.advance_slow_starts(Duration::ZERO);
    let _ = state.apply(slice(0..=count));
    let steps = [
        "slow-start: one endpoint added",
        "slow-start: its share is 2/5",
        "slow-start: its share is 3/5",
        "slow-start: its share is 4/5",
        "slow-start: its share is whole",
    ];
    let mut quarter = 0;
    steps.map(|what| {
        state.advance_slow_starts(SLOW_START * quarter / 4);
        quarter += 1;
        let cost = pending(&state);
        commit(&mut state, &mut tables);
        (what, cost)
    })
}

/// Returns the costs of changes of a Service with port ranges, each with the number of endpoints.
fn port_ranges_costs() -> Vec<(&'static str, u32, (usize, usize))> {
    let with = |first| service_with(None, Some(Box::new(port_ranges(first))));
    let costs = [10, 100].into_iter().flat_map(|count| {
        let after = |change: usize| slice(CHANGES[change].1(count));
        [
            (
                "port-ranges: 1,000 ports added",
                cost(count, with(31_000), with(30_000)),
            ),
            (
                "port-ranges: one endpoint replaced",
                cost(count, with(30_000), after(0)),
            ),
            (
                "port-ranges: the last endpoint removed",
                cost(count, with(30_000), after(2)),
            ),
        ]
        .map(|(what, cost)| (what, count, cost))
    });
    costs.collect()
}

/// Returns the endpoints after a change of a Service with this number of endpoints.
type After = fn(u32) -> Vec<u32>;

/// The kinds of change.
const CHANGES: [(&str, After); 5] = [
    ("one endpoint replaced", |count| {
        (0..count - 1).chain([90_000]).collect()
    }),
    ("one endpoint added", |count| (0..=count).collect()),
    ("the last endpoint removed", |count| {
        (0..count - 1).collect()
    }),
    ("the first endpoint removed", |count| (1..count).collect()),
    ("the same in another order", |count| {
        (0..count).rev().collect()
    }),
];

/// Checks the cost of each kind of change.
///
/// For each frontend, a replaced endpoint is a slot deleted and added. If the number of endpoints
/// changes, the frontend's verdict is replaced, too, and a chain may be added for each kind of
/// frontend.
#[test]
fn the_cost_of_a_change_depends_on_the_change_only() {
    let mut table = format!(
        "{:28} {:>9} {:>9}  {:>10} {:>6}\n",
        "change", "frontends", "endpoints", "operations", "bytes"
    );
    for (what, after) in CHANGES {
        for (frontends, node_port) in [(2, None), (3, Some(30080))] {
            for count in [10, 1000, 5000] {
                let (operations, bytes) = cost(count, service(node_port), slice(after(count)));
                writeln!(
                    table,
                    "{what:28} {frontends:>9} {count:>9}  {operations:>10} {bytes:>6}"
                )
                .unwrap();
            }
        }
    }
    for (feature, features) in [("maglev", maglev()), ("weights", weights())] {
        for (what, after) in CHANGES {
            for count in [3, 10, 100] {
                let what = format!("{feature}: {what}");
                let service = service_with(None, Some(Box::new(features.clone())));
                let (operations, bytes) = cost(count, service, slice(after(count)));
                writeln!(
                    table,
                    "{what:35} {:>2} {count:>9}  {operations:>10} {bytes:>6}",
                    2
                )
                .unwrap();
            }
        }
    }
    for (what, change) in [
        ("close-removed: switched on", None),
        ("close-removed: one endpoint replaced", Some(CHANGES[0].1)),
        (
            "close-removed: the last endpoint removed",
            Some(CHANGES[2].1),
        ),
    ] {
        for count in [10, 1000] {
            let closing = || service_with(None, Some(Box::new(close_removed())));
            let (operations, bytes) = match change {
                None => cost(count, service(None), closing()),
                Some(after) => cost(count, closing(), slice(after(count))),
            };
            writeln!(table, "{what:40} {count:>4}  {operations:>10} {bytes:>6}").unwrap();
        }
    }
    let external =
        [10, 1000].map(|count| external_costs(count).map(|(what, cost)| (what, count, cost)));
    let starting =
        [3, 10, 100].map(|count| slow_start_costs(count).map(|(what, cost)| (what, count, cost)));
    let external = external.into_iter().flatten();
    let others = external
        .chain(port_ranges_costs())
        .chain(starting.into_iter().flatten());
    for (what, count, (operations, bytes)) in others {
        writeln!(table, "{what:40} {count:>4}  {operations:>10} {bytes:>6}").unwrap();
    }
    assert_golden("cost.txt", &table);
}

/// Returns the features of a Service whose connections to removed endpoints are closed.
pub(crate) fn close_removed() -> ServiceFeatures {
    ServiceFeatures {
        close_removed: true,
        ..ServiceFeatures::default()
    }
}

/// Returns the features of a Service with ranges of UDP ports: 20,000 to 20,999, and from `first` to
/// 31,999.
pub(crate) fn port_ranges(first: u16) -> ServiceFeatures {
    let ranges = [(20_000, 20_999), (first, 31_999)];
    let ranges = ranges.map(|(first, last)| (Protocol::Udp, PortRange::new(first, last).unwrap()));
    ServiceFeatures {
        port_ranges: Some(PortRanges::new(ranges).unwrap()),
        ..ServiceFeatures::default()
    }
}

/// Returns the features of a Service whose endpoints a hash of the connection selects.
pub(crate) fn maglev() -> ServiceFeatures {
    ServiceFeatures {
        balance: Some(Balance::Maglev),
        ..ServiceFeatures::default()
    }
}

/// Returns the features of a Service of whose endpoints each second one has weight 3.
fn weights() -> ServiceFeatures {
    let pod = |number: u32| IpAddr::from(Ipv4Addr::from(0x0af4_0000 + 2 * number));
    let weights = (0..50).map(|number| (WeightTarget::Address(pod(number)), 3));
    ServiceFeatures {
        weights: Some(Weights::new(weights)),
        ..ServiceFeatures::default()
    }
}

/// Compares a text with that of a file in this folder, or writes it with `UPDATE_GOLDEN`.
#[track_caller]
pub(crate) fn assert_golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planner");
    let path = path.join(file);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap_or_default());
}

#[test]
fn the_same_service_again_costs_nothing() {
    for count in [3, 1000] {
        assert_eq!(cost(count, service(None), service(None)), (0, 0));
    }
}
