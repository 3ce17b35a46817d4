//! The cost of packets from a Pod or the node to an endpoint in another network namespace.
//!
//! Packets pass prerouting or output, forward and postrouting. All subjects are measured
//! alternately, with two baselines: conntrack alone, and one static rule.

mod connections;
mod datagrams;
mod kube_proxy_shape;
mod rounds;
mod sender;
mod subjects;
mod testbed;

use kube_dnat::planner::model::Protocol;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::datagrams::{From, To};
use self::rounds::Values;
use self::subjects::{Lane, Rules};
use super::cluster::{Cluster, Kinds};
use super::report::Report;

/// The number of Services that a few connections use, so few that the caches hold them.
const USED: u32 = 64;

/// Measures each cluster.
pub(crate) fn measure(report: &mut Report, clusters: &[Cluster]) {
    pin();
    for cluster in clusters {
        datagrams(report, *cluster);
        tcp(report, *cluster);
    }
}

/// Pins this thread, and those it starts, to the last allowed processor.
fn pin() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("the allowed processors");
    let mut processors = (0..CpuSet::count()).rev();
    let is_allowed = |processor: &usize| allowed.is_set(*processor).expect("a processor");
    let last = processors.find(is_allowed).expect("a processor");
    let mut one = CpuSet::new();
    one.set(last).expect("a processor");
    sched_setaffinity(this, &one).expect("a processor");
}

/// The subjects that are measured in every case.
fn subjects() -> Vec<Rules> {
    let kube_proxy = std::env::var("KUBE_PROXY_BIN")
        .ok()
        .map(|program| Rules::KubeProxy { program });
    let always = [
        Rules::None,
        Rules::Static,
        Rules::KubeDnat { counters: true },
        Rules::KubeDnat { counters: false },
        Rules::KubeProxyShape,
    ];
    always.into_iter().chain(kube_proxy).collect()
}

fn datagrams(report: &mut Report, cluster: Cluster) {
    let cluster = Cluster {
        protocol: Protocol::Udp,
        ..cluster
    };
    let kinds = [Kinds::Affinity, Kinds::Local, Kinds::SourceRanges]
        .map(|kind| Rules::KubeDnat { counters: true }.lane(Cluster { kind, ..cluster }));
    let lanes: Vec<_> = subjects()
        .into_iter()
        .map(|rules| rules.lane(cluster))
        .chain(kinds)
        .collect();
    let few = USED.min(cluster.services);

    let established = datagrams::established(&lanes);
    add(
        report,
        &lanes,
        "packet of an established connection",
        &established,
    );
    let mut first = |what: &str, from, to| {
        let values = datagrams::first_packet(&lanes, from, to);
        add(report, &lanes, &format!("first packet, {what}"), &values);
    };
    first("64 Services in use", From::Pod, To::Services(few));
    first("all Services", From::Pod, To::Services(cluster.services));
    first(
        "from the node, 64 Services in use",
        From::Node,
        To::Services(few),
    );
    first(
        "from the node, all Services",
        From::Node,
        To::Services(cluster.services),
    );
    first("no Service", From::Pod, To::Elsewhere);
}

fn tcp(report: &mut Report, cluster: Cluster) {
    let cluster = Cluster {
        protocol: Protocol::Tcp,
        ..cluster
    };
    let lanes: Vec<_> = subjects()
        .into_iter()
        .map(|rules| rules.lane(cluster))
        .collect();
    let values = connections::connections(&lanes, USED.min(cluster.services));
    add(
        report,
        &lanes,
        "TCP connection, 64 Services in use",
        &values,
    );
}

fn add(report: &mut Report, lanes: &[Lane], what: &str, values: &[Values]) {
    for (lane, values) in lanes.iter().zip(values) {
        let values = [("lowest_ns", values.lowest()), ("p50_ns", values.median())];
        report.add(lane.name, lane.cluster, what, values);
    }
}
