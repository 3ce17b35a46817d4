//! Benchmarks on a real kernel, which `scripts/bench.sh` runs as root.
//!
//! `cargo bench --bench scale -- packets 1000 10000` names a benchmark, then the numbers of
//! Services. Each Service has ten endpoints, or as many as in `1x10000`. Each figure is a line of
//! JSON. `KUBE_PROXY_BIN` names a kube-proxy to compare with, and `KUBE_DNAT_BIN` another build of
//! kube-dnat (`api`). `KUBEBUILDER_ASSETS` names a folder with `etcd` and `kube-apiserver`, which
//! replace the tests' own API server (`api`) or are measured beside it (`fleet`). `... -- fleet 200
//! 10000` takes the number of nodes first. `... -- tables FIGURES DIRECTORY` turns a file of such
//! lines into tables and plots.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that cannot continue panics; its figures go to standard output"
)]

mod api;
mod api_server;
mod changes;
mod cluster;
mod fleet;
mod fleet_tables;
mod memory;
mod node;
mod objects;
mod packet_tables;
mod packets;
mod plots;
mod process;
#[path = "../../tests/apiserver/real_server.rs"]
#[allow(dead_code, reason = "only the tests restart it and delete")]
mod real_server;
mod report;
#[path = "../../tests/apiserver/server/mod.rs"]
#[allow(dead_code, unused_imports, reason = "only the tests need its failures")]
mod server;
mod slice;
mod tables;

use api::Subject;
use cluster::Cluster;

fn main() {
    let arguments = std::env::args().skip(1);
    // cargo adds `--bench`.
    let arguments: Vec<_> = arguments.filter(|argument| argument != "--bench").collect();
    let (what, sizes) = arguments.split_first().expect("the name of a benchmark");
    if what == "tables" {
        let [figures, directory] = sizes else {
            panic!("tables FIGURES DIRECTORY")
        };
        return tables::write(figures.as_ref(), directory.as_ref());
    }
    match what.as_str() {
        "fleet" => {
            let (nodes, sizes) = sizes.split_first().expect("the number of nodes");
            let clusters: Vec<_> = sizes.iter().map(|size| cluster(size)).collect();
            let nodes = nodes.parse().expect("the number of nodes");
            return fleet::measure(&mut report::Report, &clusters, nodes);
        }
        "fleet-server" => return fleet::serve(),
        "fleet-node" => return fleet::run_nodes(sizes),
        "fleet-apply" => return fleet::apply(sizes),
        _ => {}
    }
    let clusters: Vec<_> = sizes.iter().map(|size| cluster(size)).collect();
    let mut report = report::Report;
    match what.as_str() {
        "api" => api::measure(&mut report, &clusters, &subjects()),
        "changes" => changes::measure(&mut report, &clusters),
        "memory" => memory::measure(&mut report, &clusters),
        "packets" => packets::measure(&mut report, &clusters),
        other => panic!("{other} is not api, changes, fleet, memory, packets or tables"),
    }
}

fn cluster(size: &str) -> Cluster {
    let (services, endpoints) = size.split_once('x').unwrap_or((size, "10"));
    let number = |text: &str| text.parse().expect("a number, or SERVICESxENDPOINTS");
    Cluster::new(number(services), number(endpoints))
}

fn subjects() -> Vec<Subject> {
    let kube_proxy = std::env::var("KUBE_PROXY_BIN").ok();
    let modes = ["nftables", "iptables"].into_iter();
    let beside = kube_proxy
        .iter()
        .flat_map(|program| modes.clone().map(|mode| Subject::kube_proxy(program, mode)));
    let other_build = std::env::var("KUBE_DNAT_BIN").ok();
    let other_build = other_build
        .iter()
        .map(|program| Subject::other_build(program));
    [Subject::ours()]
        .into_iter()
        .chain(other_build)
        .chain(beside)
        .collect()
}
