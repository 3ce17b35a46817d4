//! The cost of decoding, planning and encoding, without a kernel: `cargo bench --bench pure`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot continue panics with the reason"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kube_dnat::netlink::Commit;
use kube_dnat::planner::desired::{NodeFacts, PodSource};
use kube_dnat::planner::model::{parse, wire};
use kube_dnat::sync::State;

#[path = "scale/cluster.rs"]
#[allow(
    dead_code,
    reason = "the other benchmark connects to its frontends too"
)]
mod cluster;
#[path = "scale/slice.rs"]
mod slice;

use cluster::Cluster;

/// Returns the state of a committed cluster.
fn committed(cluster: Cluster) -> State {
    let mut state = State::new(NodeFacts {
        pods: PodSource::ClusterCidr(vec!["10.240.0.0/12".parse().unwrap()]),
        ..NodeFacts::default()
    });
    for event in cluster.events() {
        let _ = state.apply(event);
    }
    let (_, effects) = state.plan_everything().split();
    let _ = state.committed(effects);
    state
}

/// Plans all changes.
fn plan(state: &State) -> Commit {
    let (transactions, _) = state.plan_changes().split();
    transactions.into()
}

fn decode(criterion: &mut Criterion) {
    let cluster = Cluster::new(1, 100);
    let text = slice::json(cluster, 0, 0, 0..100).to_string();
    criterion.bench_function("decode a slice of 100 endpoints", |bencher| {
        bencher.iter(|| {
            let slice: wire::WireEndpointSlice = serde_json::from_str(black_box(&text)).unwrap();
            parse::slice(&slice, "node-1")
        });
    });
}

fn plan_one_change(criterion: &mut Criterion) {
    for (services, endpoints) in [(10, 10), (10_000, 10), (1, 10_000)] {
        let cluster = Cluster::new(services, endpoints);
        let mut state = committed(cluster);
        let mut number = 0;
        let name = format!("plan one change at {services} x {endpoints}");
        criterion.bench_function(&name, |bencher| {
            bencher.iter_batched(
                || {
                    number += 1;
                    cluster.replaced(0, number)
                },
                |change| {
                    let _ = state.apply(change);
                    let (_, effects) = state.plan_changes().split();
                    state.committed(effects)
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn encode(criterion: &mut Criterion) {
    for changes in [1, 1_000] {
        let cluster = Cluster::new(1_000, 10);
        let mut state = committed(cluster);
        for service in 0..changes {
            let _ = state.apply(cluster.replaced(service, 0));
        }
        let commit = plan(&state);
        let name = format!("encode a transaction of {} operations", commit.len());
        criterion.bench_function(&name, |bencher| bencher.iter(|| black_box(&commit).bytes()));
    }
}

criterion_group!(pure, decode, plan_one_change, encode);
criterion_main!(pure);
