//! The behaviour of packets on a node that kube-dnat programs, with one file per behaviour.

mod admin;
mod api_servers;
mod application;
mod bad_input;
mod balance;
mod bugreport;
mod changes;
mod check;
mod check_cluster;
mod close_removed;
mod cluster_ip;
mod commands;
mod completion;
mod configuration;
mod crowded_ports;
mod data_path;
mod denied;
mod detect_local;
mod drain;
mod drift;
mod dual_stack;
mod endpoints;
mod exec_probe;
mod explain;
mod explain_sources;
mod external_ip;
mod following;
mod foreign_tables;
mod hairpin;
mod half_open;
mod health_check;
mod image;
mod kubectl;
mod load_balancer;
mod localhost;
mod localhost_limits;
mod long_names;
mod masquerade;
mod moved_flows;
mod node;
mod node_flows;
mod node_port;
mod node_port_addresses;
mod owner;
mod policies;
mod port_ranges;
mod prometheus;
mod read_back;
mod refusals;
mod refuse_load_balancer_ports;
mod rejected;
mod render;
mod restart;
mod sctp;
mod service_manager;
mod services;
mod session_affinity;
mod shop;
mod silence;
mod slow_start;
mod source_ranges;
mod status;
mod takeover;
mod takeover_ipvs;
mod top;
mod udp_stale;
mod upgrade;
mod weights;
mod without_local_endpoints;

use std::collections::BTreeSet;
use std::net::IpAddr;

use libtest_mimic::Trial;

use crate::lab::{Cluster, Daemon, Family, Host, Manifests, Probe, Protocol, Server};

/// The tests of this folder.
pub(crate) fn tests() -> Vec<Trial> {
    MODULES.iter().flat_map(|tests| tests()).collect()
}

/// The tests of each module.
const MODULES: &[fn() -> Vec<Trial>] = &[
    admin::tests,
    api_servers::tests,
    application::tests,
    bad_input::tests,
    balance::tests,
    bugreport::tests,
    changes::tests,
    check::tests,
    check_cluster::tests,
    close_removed::tests,
    cluster_ip::tests,
    commands::tests,
    completion::tests,
    configuration::tests,
    crowded_ports::tests,
    data_path::tests,
    denied::tests,
    detect_local::tests,
    drain::tests,
    drift::tests,
    dual_stack::tests,
    endpoints::tests,
    exec_probe::tests,
    explain::tests,
    explain_sources::tests,
    external_ip::tests,
    following::tests,
    foreign_tables::tests,
    hairpin::tests,
    half_open::tests,
    health_check::tests,
    image::tests,
    kubectl::tests,
    load_balancer::tests,
    localhost::tests,
    localhost_limits::tests,
    long_names::tests,
    masquerade::tests,
    moved_flows::tests,
    node::tests,
    node_flows::tests,
    node_port::tests,
    node_port_addresses::tests,
    owner::tests,
    port_ranges::tests,
    refusals::tests,
    refuse_load_balancer_ports::tests,
    read_back::tests,
    rejected::tests,
    render::tests,
    restart::tests,
    sctp::tests,
    services::tests,
    policies::tests,
    prometheus::tests,
    service_manager::tests,
    session_affinity::tests,
    silence::tests,
    slow_start::tests,
    source_ranges::tests,
    status::tests,
    takeover::tests,
    takeover_ipvs::tests,
    top::tests,
    udp_stale::tests,
    upgrade::tests,
    weights::tests,
    without_local_endpoints::tests,
];

/// Returns every family with every protocol.
fn everywhere() -> impl Iterator<Item = (Family, Protocol)> {
    Family::ALL
        .into_iter()
        .flat_map(|family| Protocol::ALL.map(|protocol| (family, protocol)))
}

/// Returns the servers that answer 50 probes. With few endpoints, no endpoint is missing, except
/// with a negligible probability.
fn servers(probe: &Probe<'_>) -> BTreeSet<String> {
    let tally = probe.send_times(50);
    assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
    tally.servers.into_keys().collect()
}

/// Returns the names of servers as a set.
fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}
