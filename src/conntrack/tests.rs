use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::model::{
    Addresses, Endpoint as SliceEndpoint, EndpointSlice, Kind, Object, ObjectKey, SlicePort,
    TrafficPolicy, Update,
};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);

fn service(name: &str, created: i64, cluster_ip: &str) -> Service {
    Service {
        name: ServiceName::new("shop", name),
        created: Some(created),
        has_selector: true,
        cluster_ips: vec![cluster_ip.parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        ports: vec![
            port("dns", Protocol::Udp, 53, Some(30053)),
            port("dns-tcp", Protocol::Tcp, 53, Some(30053)),
        ],
    }
}

fn port(name: &str, protocol: Protocol, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port,
    }
}

/// `10.244.1.1` and so on, with `ready`, `serving`, `terminating` as letters `r`, `s`, `t`.
fn endpoint(text: &str) -> SliceEndpoint<Ipv4Addr> {
    let (address, conditions) = text.split_once(' ').unwrap();
    SliceEndpoint {
        address: address.parse().unwrap(),
        ready: conditions.contains('r'),
        serving: conditions.contains('s'),
        terminating: conditions.contains('t'),
        local: false,
        hints: None,
    }
}

struct World {
    store: Store,
    claims: Claims<Ipv4Addr>,
}

impl World {
    /// These Services; `shop/dns` with these endpoints, which answer its UDP port on 5353.
    fn new(services: &[Service], endpoints: &[&str]) -> Self {
        let mut world = Self {
            store: Store::default(),
            claims: Claims::default(),
        };
        for service in services {
            world.claims.update(None, Some(service));
            let name = service.name.as_str();
            world.take_in(Kind::Service, name, Object::Service(service.clone().into()));
        }
        let answer = |name: &str, protocol| SlicePort {
            name: name.into(),
            protocol,
            port: 5353,
        };
        let slice = EndpointSlice {
            service: ServiceName::new("shop", "dns"),
            mirrored: false,
            ports: vec![
                answer("dns", Protocol::Udp),
                answer("dns-tcp", Protocol::Tcp),
            ],
            addresses: Addresses::Ipv4(endpoints.iter().map(|text| endpoint(text)).collect()),
        };
        world.take_in(
            Kind::EndpointSlice,
            "shop/dns-1",
            Object::Slices(vec![slice]),
        );
        world
    }

    fn take_in(&mut self, kind: Kind, name: &str, object: Object) {
        self.store.apply(Update {
            key: ObjectKey {
                kind,
                name: name.into(),
            },
            object: Some(object),
            rejected: Vec::new(),
            triggered: None,
        });
    }

    fn frontends(&self, touched: &[&Service]) -> Frontends<Ipv4Addr> {
        let touched = touched.iter().flat_map(|service| udp_claims(service));
        let node_ips = BTreeSet::from([NODE]);
        Frontends::new(&touched.collect(), &self.store, &self.claims, node_ips)
    }
}

/// An entry `DESTINATION -> ANSWERED BY` of a client that nobody masquerades; or that of an answer
/// that came first, `FRONTEND => CLIENT`.
fn entry(text: &str) -> Entry<Ipv4Addr> {
    let end = |text: &str| {
        let (address, port) = text.split_once(':').unwrap();
        (address.parse().unwrap(), port.parse().unwrap())
    };
    if let Some((frontend, client)) = text.split_once(" => ") {
        return Entry {
            source: end(frontend),
            destination: end(client),
            answered_by: end(client),
            answered_to: end(frontend),
        };
    }
    let (destination, answered_by) = text.split_once(" -> ").unwrap();
    Entry {
        source: end("192.168.77.100:10000"),
        destination: end(destination),
        answered_by: end(answered_by),
        answered_to: end("192.168.77.100:10000"),
    }
}

/// Of entries in words, those that are stale.
fn gone<'a>(entries: &[&'a str], wanted: &Frontends<Ipv4Addr>) -> Vec<&'a str> {
    let mut entries = entries.to_vec();
    entries.retain(|text| stale(&entry(text), wanted));
    entries
}

#[test]
fn an_entry_goes_if_no_endpoint_of_its_frontend_is_to_answer() {
    let mut dns = service("dns", 1, "10.96.0.10");
    dns.external_ips = vec!["203.0.113.1".parse().unwrap()];
    dns.load_balancer_ips = vec!["198.51.100.1".parse().unwrap()];
    let world = World::new(
        std::slice::from_ref(&dns),
        &["10.244.1.1 rs", "10.244.1.2 rs"],
    );
    let wanted = world.frontends(&[&dns]);
    assert_eq!(wanted.len(), 4);
    let entries = [
        // Live endpoints, at every kind of frontend.
        "10.96.0.10:53 -> 10.244.1.1:5353",
        "203.0.113.1:53 -> 10.244.1.2:5353",
        "198.51.100.1:53 -> 10.244.1.2:5353",
        "192.168.77.2:30053 -> 10.244.1.1:5353",
        // Foreign addresses and ports.
        "10.96.0.11:53 -> 10.244.1.9:5353",
        "10.96.0.10:54 -> 10.244.1.9:5353",
        "192.168.77.2:53 -> 192.168.77.2:53",
        "192.168.77.3:30053 -> 192.168.77.3:30053",
        "10.96.0.10:30053 -> 10.96.0.10:30053",
        "8.8.8.8:30053 -> 8.8.8.8:30053",
        "10.244.1.9:5353 -> 10.244.1.9:5353",
    ];
    assert_eq!(gone(&entries, &wanted), [""; 0]);
    let entries = [
        // An endpoint that is gone, at every kind of frontend.
        "10.96.0.10:53 -> 10.244.1.9:5353",
        "203.0.113.1:53 -> 10.244.1.9:5353",
        "198.51.100.1:53 -> 10.244.1.9:5353",
        "192.168.77.2:30053 -> 10.244.1.9:5353",
        // The right endpoint at the port it had before.
        "10.96.0.10:53 -> 10.244.1.1:53",
        // Sent before the Service had endpoints, or before there was the Service.
        "10.96.0.10:53 -> 10.96.0.10:53",
        "203.0.113.1:53 -> 203.0.113.1:53",
        "192.168.77.2:30053 -> 192.168.77.2:30053",
    ];
    assert_eq!(gone(&entries, &wanted), entries);
}

#[test]
fn an_answer_that_came_after_its_entry_went_does_not_stand_for_the_flow() {
    let dns = service("dns", 1, "10.96.0.10");
    let world = World::new(std::slice::from_ref(&dns), &["10.244.1.1 rs"]);
    let wanted = world.frontends(&[&dns]);
    let entries = [
        "10.96.0.10:53 => 192.168.77.100:10000",
        "192.168.77.2:30053 => 192.168.77.100:10000",
    ];
    assert_eq!(gone(&entries, &wanted), entries);
    let foreign = [
        "10.244.1.1:5353 => 192.168.77.100:10000",
        "192.168.77.3:30053 => 192.168.77.100:10000",
        "192.168.77.2:10000 => 8.8.8.8:53",
    ];
    assert_eq!(gone(&foreign, &wanted), [""; 0]);
    // The node's own client, from that port by chance: its answers depend on the entry.
    let mut translated = entry("10.96.0.11:53 -> 10.244.1.9:5353");
    translated.source = (NODE, 30053);
    translated.answered_to = (NODE, 30053);
    assert!(!stale(&translated, &wanted));
}

#[test]
fn an_endpoint_answers_while_it_is_ready_or_serving() {
    let dns = service("dns", 1, "10.96.0.10");
    let entries = ["10.96.0.10:53 -> 10.244.1.1:5353"];
    for (conditions, answers) in [
        ("rs", true),
        ("r", true),
        ("s", true),
        ("st", true),
        ("rst", true),
        ("t", false),
        ("-", false),
    ] {
        let endpoint = format!("10.244.1.1 {conditions}");
        let world = World::new(std::slice::from_ref(&dns), &[&endpoint, "10.244.1.2 rs"]);
        let kept = gone(&entries, &world.frontends(&[&dns])).is_empty();
        assert_eq!(kept, answers, "{conditions}");
    }
}

#[test]
fn local_policies_do_not_cut_a_flow_to_another_node() {
    let mut dns = service("dns", 1, "10.96.0.10");
    dns.internal_policy = TrafficPolicy::Local;
    dns.external_policy = TrafficPolicy::Local;
    let world = World::new(std::slice::from_ref(&dns), &["10.244.2.1 rs"]);
    let entries = [
        "10.96.0.10:53 -> 10.244.2.1:5353",
        "192.168.77.2:30053 -> 10.244.2.1:5353",
    ];
    assert_eq!(gone(&entries, &world.frontends(&[&dns])), [""; 0]);
}

#[test]
fn without_endpoints_or_without_the_service_every_entry_goes() {
    let dns = service("dns", 1, "10.96.0.10");
    let entries = [
        "10.96.0.10:53 -> 10.244.1.1:5353",
        "10.96.0.10:53 -> 10.96.0.10:53",
        "192.168.77.2:30053 -> 10.244.1.1:5353",
    ];
    let none = World::new(std::slice::from_ref(&dns), &[]);
    assert_eq!(gone(&entries, &none.frontends(&[&dns])), entries);
    let deleted = World::new(&[], &["10.244.1.1 rs"]);
    assert_eq!(gone(&entries, &deleted.frontends(&[&dns])), entries);
}

#[test]
fn what_a_service_gave_up_is_answered_by_nobody() {
    let before = service("dns", 1, "10.96.0.10");
    let mut after = service("dns", 1, "10.96.0.11");
    after.ports[0].node_port = Some(30054);
    let world = World::new(&[after.clone()], &["10.244.1.1 rs"]);
    let wanted = world.frontends(&[&before, &after]);
    let kept = [
        "10.96.0.11:53 -> 10.244.1.1:5353",
        "192.168.77.2:30054 -> 10.244.1.1:5353",
    ];
    assert_eq!(gone(&kept, &wanted), [""; 0]);
    let lost = [
        "10.96.0.10:53 -> 10.244.1.1:5353",
        "192.168.77.2:30053 -> 10.244.1.1:5353",
    ];
    assert_eq!(gone(&lost, &wanted), lost);
}

#[test]
fn a_contested_frontend_is_answered_by_the_endpoints_of_its_holder() {
    let dns = service("dns", 1, "10.96.0.10");
    let mut younger = service("younger", 2, "10.96.0.11");
    younger.external_ips = vec!["10.96.0.10".parse().unwrap()];
    let world = World::new(&[dns, younger.clone()], &["10.244.1.1 rs"]);
    let wanted = world.frontends(&[&younger]);
    let entries = [
        "10.96.0.10:53 -> 10.244.1.1:5353",
        "192.168.77.2:30053 -> 10.244.1.1:5353",
        "10.96.0.11:53 -> 10.244.1.1:5353",
    ];
    assert_eq!(gone(&entries, &wanted), [entries[2]]);
}

#[test]
fn only_udp_of_the_own_family_counts() {
    let mut tcp = service("dns", 1, "10.96.0.10");
    tcp.ports.remove(0);
    assert!(udp_claims::<Ipv4Addr>(&tcp).is_empty());
    let mut ipv6 = service("dns", 1, "fd00::10");
    // A Service without a ClusterIP of a family does not exist for it.
    ipv6.external_ips = vec!["203.0.113.1".parse().unwrap()];
    assert!(udp_claims::<Ipv4Addr>(&ipv6).is_empty());
    let address: IpAddr = "fd00::10".parse().unwrap();
    let expected = [
        Claim::Frontend(Protocol::Udp, Ipv6Addr::of(address).unwrap(), 53),
        Claim::Nodeport(Protocol::Udp, 30053),
    ];
    assert_eq!(udp_claims::<Ipv6Addr>(&ipv6), expected.into());
    let world = World::new(&[tcp.clone()], &[]);
    assert!(world.frontends(&[&tcp]).is_empty());
}
