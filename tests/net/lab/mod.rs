//! The packet lab: a cluster of network namespaces, real servers and clients, and the real daemon.
//!
//! ```text
//! let cluster = Cluster::new();                     // nodes, Pods, an outside client
//! let _servers = cluster.pods.each_ref().map(|pod| pod.serve(8080));
//! let manifests = Manifests::new();                 // node-1 and the `ServiceCIDR`
//! manifests.write("cart.yaml", &(Service::new("shop/cart", 7).port("http", Protocol::Tcp, 80).yaml()
//!     + &Slices::of("shop/cart").port("http", Protocol::Tcp, 8080).ready(&cluster.pods).yaml()));
//! let daemon = Daemon::start(&cluster, &manifests); // returns when the manifests are programmed
//! let to = (Family::V4.cluster_ip(7), 80);
//! let answer = cluster.client.probe(Protocol::Tcp, to).send().answer();
//! assert!(Cluster::is_node(answer.seen_from.ip())); // masqueraded
//! ```

use libtest_mimic::Trial;

pub(crate) mod chi;
mod cluster;
mod container;
mod daemon;
mod family;
mod flow;
mod host;
pub(crate) mod http;
mod kernel;
pub(crate) mod manifest;
mod namespace;
pub(crate) mod nft;
mod ping;
mod probe;
mod reject;
pub(crate) mod sctp;
mod server;
mod topology;
mod wait;
mod web;

pub(crate) use cluster::Cluster;
pub(crate) use container::{Image, Run};
pub(crate) use daemon::{Daemon, Manifests, run_command};
pub(crate) use family::Family;
pub(crate) use flow::Flow;
pub(crate) use host::Host;
pub(crate) use kernel::supports_owned_tables;
pub(crate) use manifest::{Service, Slices, objects};
pub(crate) use namespace::Namespace;
pub(crate) use ping::{Ping, ping};
pub(crate) use probe::{Answer, Outcome, Probe, Protocol, Tally};
pub(crate) use reject::Reject;
pub(crate) use server::Server;
pub(crate) use wait::{DEADLINE, patient, wait_for, wait_until};
pub(crate) use web::{Program, WebServer};

/// The tests of the lab itself.
pub(crate) fn tests() -> Vec<Trial> {
    [
        crate::trials!(chi: the_bound_is_no_lower_than_the_tables_and_not_much_higher, a_skew_of_a_tenth_is_detected_in_a_few_thousand_draws),
        crate::trials!(nft: listings_of_one_ruleset_in_any_order_normalise_to_one_text, priorities_are_normalised_to_numbers),
        crate::trials!(sctp: the_checksum_is_crc32c, an_init_and_an_abort_are_distinguished),
        crate::trials!(kernel: releases_have_a_version),
        topology::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
