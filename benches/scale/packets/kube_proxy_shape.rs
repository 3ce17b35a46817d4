//! The ruleset of kube-proxy v1.36.2 in mode nftables for the Services of a benchmark.
//!
//! The chains, rules and maps are from the listing of a running kube-proxy.

use super::super::cluster::{Cluster, ENDPOINT_PORT, PORT};

/// The part that does not depend on Services, as nft text.
const FIXED: &str = include_str!("kube_proxy_shape.nft");

/// Returns the whole ruleset as nft text.
pub(crate) fn rules(cluster: Cluster) -> String {
    let services = || 0..cluster.services;
    let chains: String = services().map(|service| chain(cluster, service)).collect();
    let protocol = cluster.protocol;
    let service_ips = services().map(|service| {
        let (address, chain) = (cluster.frontend(service), name(cluster, service));
        format!("{address} . {protocol} . {PORT} : goto {chain}")
    });
    let cluster_ips = services().map(|service| cluster.frontend(service).to_string());
    let hairpin = services().flat_map(|service| {
        let local = (0..cluster.endpoints).filter(|number| Cluster::is_local(*number));
        local.map(move |number| {
            let endpoint = cluster.endpoint(service, number);
            format!("{endpoint} . {endpoint} . {protocol} . {ENDPOINT_PORT}")
        })
    });
    [
        FIXED.to_owned(),
        format!("table ip kube-proxy {{\n{chains}}}\n"),
        add("service-ips", service_ips),
        add("cluster-ips", cluster_ips),
        add("hairpin-connections", hairpin),
    ]
    .concat()
}

fn add(set: &str, elements: impl Iterator<Item = String>) -> String {
    let elements = elements.collect::<Vec<_>>().join(", ");
    format!("add element ip kube-proxy {set} {{ {elements} }}\n")
}

fn name(cluster: Cluster, service: u32) -> String {
    let protocol = cluster.protocol;
    format!("service-{service:08}-bench/service-{service}/{protocol}/http")
}

fn chain(cluster: Cluster, service: u32) -> String {
    let endpoints = (0..cluster.endpoints).map(|number| {
        let endpoint = cluster.endpoint(service, number);
        format!("{number} : {endpoint} . {ENDPOINT_PORT}")
    });
    let endpoints: Vec<_> = endpoints.collect();
    let (count, endpoints) = (cluster.endpoints, endpoints.join(", "));
    let (name, protocol) = (name(cluster, service), cluster.protocol);
    format!(
        "chain {name} {{\n\
         meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {endpoints} }}\n}}\n"
    )
}
