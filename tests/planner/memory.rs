//! The size of what a large cluster has many of. `cargo bench --bench scale -- memory 50000` has the
//! resident memory.

use std::net::{Ipv4Addr, Ipv6Addr};

use kube_dnat::planner::desired::{PortElements, ServiceElements};
use kube_dnat::planner::model::{Endpoint, EndpointSlice, Service};

/// An addition of eight bytes to an IPv4 endpoint is four MB with 50,000 Services of ten endpoints.
#[test]
fn what_a_large_cluster_has_many_of_is_small() {
    let sizes = [
        ("Service", size_of::<Service>()),
        ("EndpointSlice", size_of::<EndpointSlice>()),
        ("IPv4 endpoint", size_of::<Endpoint<Ipv4Addr>>()),
        ("IPv6 endpoint", size_of::<Endpoint<Ipv6Addr>>()),
        ("applied port", size_of::<PortElements<Ipv4Addr>>()),
        ("applied Service", size_of::<ServiceElements<Ipv4Addr>>()),
    ];
    let expected = [
        ("Service", 136),
        ("EndpointSlice", 80),
        ("IPv4 endpoint", 16),
        ("IPv6 endpoint", 32),
        ("applied port", 184),
        ("applied Service", 16),
    ];
    assert_eq!(sizes, expected);
}
