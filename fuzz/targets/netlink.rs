//! Any bytes as the kernel's answers about nf_tables: dumps, single answers, errors with and without
//! an extended ACK, and notifications.
//!
//! The first byte chooses the request, and the others are datagrams.

#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use kube_dnat::manifests::read_text;
use kube_dnat::netlink::{Commit, ElementKey, Error, Kernel, TableMonitor};
use kube_dnat::planner::model::addr::Family;
use kube_dnat::planner::model::{Address, Protocol};
use kube_dnat::planner::ruleset::{Key, Program, SetName, Table};
use kube_dnat::sync::State;
use kube_dnat_fuzz::{Answers, NODE, facts};
use libfuzzer_sys::fuzz_target;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: cart}
spec: {clusterIPs: [10.96.0.7, "fd00:10:96::7"], ports: [{name: http, port: 80, nodePort: 30080}],
  type: NodePort, sessionAffinity: ClientIP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: cart-1, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.9]}, {addresses: [10.244.2.9]}]
"#;

/// The sets whose elements are read.
const SETS: [SetName; 6] = [
    SetName::Services,
    SetName::Nodeports,
    SetName::ClusterIps,
    SetName::NodeIps,
    SetName::PodCidrsLocal,
    SetName::Affinity(Protocol::Tcp),
];

/// A state with the objects.
fn state() -> State {
    let mut state = State::new(facts());
    for event in read_text(OBJECTS, NODE).expect("manifests").events {
        let _diagnostics = state.apply(event);
    }
    state
}

/// The commit that programs the objects, into tables that exist or into new ones.
fn commit(new_tables: bool) -> Commit {
    let state = state();
    let (transactions, _) = state.plan_everything().split();
    let mut commit = Commit::from(transactions);
    if new_tables {
        let programs = state.programs();
        commit.ipv4.rebuild = Some(programs.ipv4);
    }
    commit
}

static CHANGES: LazyLock<Commit> = LazyLock::new(|| commit(false));
static TABLES: LazyLock<Commit> = LazyLock::new(|| commit(true));
static KEYS: LazyLock<Vec<ElementKey<Ipv4Addr>>> = LazyLock::new(|| {
    let table = state().desired_tables().ipv4;
    let elements = table
        .elements()
        .filter(|element| element.set.has_service_keys());
    elements.map(|element| (element.set, element.key)).collect()
});

/// Describes an error as the log does.
fn describe(result: Result<(), Error>) {
    if let Err(error) = result {
        drop(error.to_string());
    }
}

/// Reads the elements of the sets that have any.
fn elements<A: Address>(kernel: &mut Kernel) -> Result<(), Error> {
    let read = kernel.read_elements::<A>(&Table::default(), &SETS)?;
    if let Some(table) = read {
        drop(
            table
                .elements()
                .map(|element| element.to_string())
                .collect::<Vec<_>>(),
        );
    }
    Ok(())
}

fn counters(kernel: &mut Kernel) -> Result<(), Error> {
    kernel.connection_counters::<Ipv4Addr>()?;
    kernel.affinity_overflows::<Ipv4Addr>()?;
    kernel.element_counts::<Ipv6Addr>()?;
    Ok(())
}

fn small_answers(kernel: &mut Kernel) -> Result<(), Error> {
    kernel.generation()?;
    let (set, key) = KEYS[0];
    kernel.element(set, &key)?;
    kernel.pinned_endpoint(Protocol::Tcp, &key)?;
    kernel.supports_table_ownership()?;
    kernel.missing_abilities(&[Family::Ipv4])?;
    kernel.dry_run(&Program::default(), &[Family::Ipv4])
}

fn monitor(answers: Answers) {
    let mut monitor = TableMonitor::new(7);
    let _change = monitor.read_queued(&answers.socket);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, datagrams)) = bytes.split_first() else {
        return;
    };
    let answers = Answers::queue(datagrams);
    let choice = choice % 16;
    if choice == 0 {
        return monitor(answers);
    }
    let mut kernel = Kernel::of(answers.socket);
    let program = Program::default();
    describe(match choice {
        1 => kernel.inspect::<Ipv4Addr>().map(drop),
        2 => kernel.read::<Ipv4Addr>(&program).map(drop),
        3 => kernel.read_without_keyed::<Ipv6Addr>(&program).map(drop),
        4 => kernel.read_keys(&KEYS).map(drop),
        5 => kernel.pinned_clients::<Ipv4Addr>(Protocol::Tcp).map(drop),
        6 => kernel.pinned_clients::<Ipv6Addr>(Protocol::Udp).map(drop),
        7 => counters(&mut kernel),
        8 => elements::<Ipv4Addr>(&mut kernel),
        9 => elements::<Ipv6Addr>(&mut kernel),
        10 => kernel
            .unknown_elements::<Ipv4Addr>(SetName::Endpoints, |_: &Key<Ipv4Addr>| false)
            .map(drop),
        11 => small_answers(&mut kernel),
        12 => kernel.delete_tables().map(drop),
        13 => kernel.unpin_clients(&CHANGES).map(drop),
        14 => kernel.commit(&CHANGES),
        _ => kernel.commit(&TABLES),
    });
});
