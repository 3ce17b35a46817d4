//! The check of the header Host, which protects the endpoints on loopback from DNS rebinding.
//!
//! A web site can point its own name at 127.0.0.1, and its pages in a browser on this node or behind
//! `kubectl port-forward` then read these endpoints as their own origin. Such requests carry the name
//! of the site. Addresses, `localhost` and the name of the node are no names of a site.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use hyper::Request;
use hyper::header::HOST;

/// Whether a request is for this node by one of its own names, or from another machine.
pub(super) fn is_for_this_node<B>(from: SocketAddr, request: &Request<B>, node: &str) -> bool {
    if !from.ip().to_canonical().is_loopback() {
        // The operator has opened the port to the network.
        return true;
    }
    // Only browsers matter here, and they send it.
    let Some(host) = request.headers().get(HOST) else {
        return true;
    };
    let authority = Authority::try_from(host.as_bytes());
    authority.is_ok_and(|authority| is_own_name(authority.host(), node))
}

/// Whether a host without port is an IP address, `localhost` or the node.
fn is_own_name(host: &str, node: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_address = address.unwrap_or(host).parse::<IpAddr>().is_ok();
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_localhost = host == "localhost" || host.ends_with(".localhost");
    is_address || is_localhost || host.eq_ignore_ascii_case(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(from: &str, host: Option<&str>) -> bool {
        let mut request = Request::new(());
        if let Some(host) = host {
            request.headers_mut().insert(HOST, host.parse().unwrap());
        }
        is_for_this_node(
            format!("{from}:1").parse().unwrap(),
            &request,
            "Node-1.example",
        )
    }

    #[test]
    fn a_name_of_another_site_is_refused_on_loopback_only() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:10249",
            "localhost:8080",
            "LOCALHOST.",
            "kube-dnat.localhost",
            "[::1]:10249",
            "192.168.7.2:10249",
            "node-1.example:10249",
        ] {
            assert!(is_allowed("127.0.0.1", Some(host)), "{host}");
            assert!(is_allowed("[::ffff:127.0.0.1]", Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:10249",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "node-2.example",
            "",
            "a b",
            "evil.example#localhost",
        ] {
            assert!(!is_allowed("127.0.0.1", Some(host)), "{host}");
            assert!(!is_allowed("[::1]", Some(host)), "{host}");
        }
        assert!(is_allowed("192.168.7.9", Some("prometheus.example")));
        assert!(is_allowed("127.0.0.1", None));
    }
}
