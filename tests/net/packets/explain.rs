//! `kube-dnat explain`: its output agrees with the packets.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Output;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Family, Host, Protocol, everywhere};
use crate::lab::{Outcome, Service, Slices};

pub(super) fn tests() -> Vec<Trial> {
    use super::explain;
    crate::trials!(explain:
        explain_shows_the_endpoints_and_the_masquerade,
        explain_shows_rejected_and_dropped_sources,
        explain_shows_the_endpoint_of_a_pinned_client,
        every_nft_command_of_explain_works,
        a_service_is_found_by_its_name,
        explain_without_a_source_shows_each_kind_of_source,
        explain_distinguishes_pods_by_their_interface,
        explain_suggests_similar_names_and_frontends,
        explain_says_why_a_service_is_not_served,
        explain_works_while_the_daemon_is_not_running,
        explain_reports_missing_tables_and_permissions,
    )
}

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-dnat");

/// Runs a subcommand on the node. Returns the exit code, the standard output and the standard
/// error.
pub(super) fn run(shop: &Shop, arguments: &[&str]) -> (i32, String, String) {
    let node = &shop.cluster.node.namespace;
    let output = node.output(PROGRAM, arguments, "");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("an exit code");
    (code, text(output.stdout), text(output.stderr))
}

/// Runs a subcommand as root without capabilities.
pub(super) fn run_without_capabilities(shop: &Shop, arguments: &[&str]) -> Output {
    let bare = ["--bounding-set=-all", "--inh-caps=-all", PROGRAM];
    let node = &shop.cluster.node.namespace;
    node.output("setpriv", &[&bare[..], arguments].concat(), "")
}

fn target(protocol: Protocol, (ip, port): (IpAddr, u16)) -> String {
    let protocol = protocol.to_string().to_lowercase();
    format!("{}/{protocol}", SocketAddr::new(ip, port))
}

/// Explains one connection that has one path. Returns the exit code and the path.
#[track_caller]
fn explained(shop: &Shop, protocol: Protocol, to: (IpAddr, u16), from: IpAddr) -> (i32, Value) {
    explained_as(shop, protocol, to, from, None)
}

/// Does the same as [`explained`] for a source of this kind, if the address alone does not show
/// the kind.
#[track_caller]
fn explained_as(
    shop: &Shop,
    protocol: Protocol,
    to: (IpAddr, u16),
    from: IpAddr,
    kind: Option<&str>,
) -> (i32, Value) {
    let (to, from) = (target(protocol, to), from.to_string());
    let (code, out, error) = run(shop, &["explain", &to, "--from", &from, "-o", "json"]);
    let answer: Value =
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{to} from {from}: {out}{error}"));
    let paths = answer["connections"][0]["paths"].as_array().expect("paths");
    let of_kind = |path: &&Value| {
        let kinds = path["from"].as_array().expect("kinds of source");
        kind.is_none_or(|kind| kinds.iter().any(|of_path| of_path == kind))
    };
    let mut paths = paths.iter().filter(of_kind);
    let path = paths.next().unwrap_or_else(|| panic!("{answer}")).clone();
    assert_eq!(paths.next(), None, "{answer}");
    (code, path)
}

/// Returns the names of the servers that packets can reach, according to `explain`.
fn endpoints(shop: &Shop, outcome: &Value) -> BTreeSet<String> {
    let endpoints = outcome["endpoints"].as_array().expect("endpoints");
    let name = |chance: &Value| {
        let at: SocketAddr = chance["endpoint"].as_str()?.parse().ok()?;
        let cluster = &shop.cluster;
        let pods = cluster.pods.iter().chain(&cluster.remote_pods);
        let mut hosts = pods.chain([&cluster.node]);
        let of = |host: &&Host| Family::ALL.iter().any(|family| host.ip(*family) == at.ip());
        Some(format!("{}:{}", hosts.find(of)?.name(), at.port()))
    };
    endpoints.iter().filter_map(name).collect()
}

/// Asserts that packets have the outcome that `explain` reports.
#[track_caller]
pub(super) fn agrees(shop: &Shop, source: &Host, protocol: Protocol, to: (IpAddr, u16)) {
    let from = source.ip(family_of(to.0));
    agrees_from(shop, (source, from, None), protocol, to);
}

/// Does the same as [`agrees`] from this address of the source. The kind of the source is set if
/// the address does not show it.
#[track_caller]
pub(super) fn agrees_from(
    shop: &Shop,
    (source, from, kind): (&Host, IpAddr, Option<&str>),
    protocol: Protocol,
    to: (IpAddr, u16),
) {
    let (code, path) = explained_as(shop, protocol, to, from, kind);
    let outcome = &path["outcome"];
    let probe = source.probe(protocol, to).source_ip(from);
    match outcome["result"].as_str() {
        Some("translated") => {
            let tally = probe.send_times(40);
            assert!(
                tally.failures.is_empty(),
                "{probe}: {:?} {path}",
                tally.failures
            );
            let seen: BTreeSet<_> = tally.servers.keys().cloned().collect();
            assert_eq!(seen, endpoints(shop, outcome), "{probe} {path}");
            let chances = outcome["endpoints"].as_array().expect("endpoints");
            let total: f64 = chances
                .iter()
                .filter_map(|chance| chance["probability"].as_f64())
                .sum();
            assert!((total - 1.0).abs() < 1e-9, "{path}");
            let masqueraded = |chance: &Value| chance["masqueraded"].is_string();
            let count: usize = tally.servers.values().sum();
            // Masquerade of the node's own packets can keep their source address.
            let distinct = !Cluster::is_node(from);
            if !chances.iter().any(masqueraded) {
                assert_eq!(tally.sources_kept, count, "{probe} {path}");
            } else if chances.iter().all(masqueraded) && distinct {
                assert_eq!(tally.sources_kept, 0, "{probe} {path}");
            }
            assert!(kind.is_some() || code == 0, "{path}");
        }
        Some("rejected") => {
            assert!(probe.send().is_refused_at_once(), "{probe} {path}");
            assert_eq!(code, 2, "{path}");
        }
        Some("dropped") => {
            assert_eq!(probe.briefly().send(), Outcome::TimedOut, "{path}");
            assert_eq!(code, 2, "{path}");
        }
        Some("notTranslated") => {
            let sent = probe.briefly().send();
            let server = sent.server();
            assert!(
                server.is_none_or(|server| server == "gateway"),
                "{sent:?} {path}"
            );
        }
        other => panic!("{other:?}: {path}"),
    }
}

fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(super) fn sources(shop: &Shop) -> [&Host; 4] {
    let cluster = &shop.cluster;
    [
        &cluster.client,
        cluster.pod("pod-3"),
        &cluster.node,
        // This Pod can reach itself.
        cluster.pod("pod-1"),
    ]
}

fn explain_shows_the_endpoints_and_the_masquerade() {
    let shop = Shop::new();
    let ready = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let daemon = shop.start(&(cart_on_every_frontend().yaml() + &ready));
    for policy in ["Cluster", "Local"] {
        let service = cart_on_every_frontend().spec("externalTrafficPolicy", json!(policy));
        daemon.apply("shop.yaml", &(service.yaml() + &ready));
        for (family, protocol) in everywhere() {
            for (_, to) in frontends(family) {
                for source in sources(&shop) {
                    agrees(&shop, source, protocol, to);
                }
            }
        }
    }
}

fn explain_shows_rejected_and_dropped_sources() {
    let shop = Shop::new();
    let none = Service::new("shop/none", 2).port("http", Protocol::Tcp, 80);
    let away = Service::new("shop/away", 3)
        .port("http", Protocol::Tcp, 80)
        .node_port(NODE_PORT + 1)
        .load_balancer_ip(3)
        .spec("externalTrafficPolicy", json!("Local"));
    let ranged = cart_on_every_frontend().spec(
        "loadBalancerSourceRanges",
        json!(Family::ALL.map(|family| match family {
            Family::V4 => format!("{}/32", shop.cluster.client.ip(family)),
            Family::V6 => format!("{}/128", shop.cluster.client.ip(family)),
        })),
    );
    let remote = Slices::of("shop/away").port("http", Protocol::Tcp, 8080);
    let manifests = none.yaml()
        + &away.yaml()
        + &remote.ready(shop.pods(["remote-1"])).yaml()
        + &ranged.yaml()
        + &cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = shop.start(&manifests);
    let tcp = Protocol::Tcp;
    for family in Family::ALL {
        for source in sources(&shop) {
            for to in [
                // No endpoint; no such port; no such address.
                (family.cluster_ip(2), 80),
                (family.cluster_ip(1), 81),
                (family.cluster_ip(99), 80),
                // Only sources in the range are served.
                (family.load_balancer_ip(1), 80),
                // No local endpoint: outside clients are dropped, and Pods are served.
                (family.load_balancer_ip(3), 80),
                (family.lan(2), NODE_PORT + 1),
            ] {
                agrees(&shop, source, tcp, to);
            }
        }
    }
}

fn explain_shows_the_endpoint_of_a_pinned_client() {
    let shop = Shop::new();
    let sticky = cart_on_every_frontend().spec("sessionAffinity", json!("ClientIP"));
    let ready = cart_slices(shop.pods(["pod-1", "pod-2", "remote-1"]));
    let _daemon = shop.start(&(sticky.yaml() + &ready.yaml()));
    let client = &shop.cluster.client;
    for (family, protocol) in everywhere() {
        for (frontend, to) in frontends(family) {
            let probe = client.probe(protocol, to).source_ip(client.ip(family));
            let server = probe.send().answer().server;
            let (_, path) = explained(&shop, protocol, to, client.ip(family));
            let outcome = &path["outcome"];
            assert_eq!(outcome["affinitySeconds"], 10_800, "{frontend} {path}");
            let pinned = json!({"endpoints": [outcome["pinned"]]});
            assert_eq!(
                endpoints(&shop, &pinned),
                [server].into(),
                "{frontend} {path}"
            );
            let left = outcome["pinned"]["secondsLeft"].as_u64();
            assert!(
                left.is_some_and(|left| (10_000..=10_800).contains(&left)),
                "{path}"
            );
            let other = shop.cluster.pod("pod-3").ip(family);
            let (_, path) = explained(&shop, protocol, to, other);
            assert_eq!(path["outcome"]["pinned"], Value::Null, "{path}");
        }
    }
}

fn every_nft_command_of_explain_works() {
    let shop = Shop::new();
    let service = cart_on_every_frontend()
        .spec("sessionAffinity", json!("ClientIP"))
        .spec("externalTrafficPolicy", json!("Local"))
        .spec(
            "loadBalancerSourceRanges",
            json!(["192.168.77.0/24", "fd00:77::/64"]),
        );
    let none = Service::new("shop/none", 2).port("http", Protocol::Tcp, 80);
    let ready = cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = shop.start(&(service.yaml() + &none.yaml() + &ready));
    let client = &shop.cluster.client;
    let mut shown = BTreeSet::new();
    for family in Family::ALL {
        for (_, to) in frontends(family) {
            client
                .probe(Protocol::Tcp, to)
                .source_ip(client.ip(family))
                .send();
        }
        let more = [(family.cluster_ip(2), 80), (family.cluster_ip(99), 80)];
        for to in frontends(family).map(|(_, to)| to).into_iter().chain(more) {
            let (to, from) = (target(Protocol::Tcp, to), client.ip(family).to_string());
            for from in [&["--from", &from][..], &[]] {
                let (_, out, _) = run(&shop, &[&["explain", &to], from].concat());
                let commands = out
                    .lines()
                    .map(str::trim)
                    .filter(|line| line.starts_with("nft "));
                shown.extend(commands.map(str::to_owned));
            }
        }
    }
    assert!(
        shown.iter().any(|command| command.contains("affinity-tcp")),
        "{shown:#?}"
    );
    assert!(
        shown
            .iter()
            .any(|command| command.contains("source-ranges")),
        "{shown:#?}"
    );
    for command in shown {
        shop.cluster.node.namespace.command("sh", &["-c", &command]);
    }
}

fn a_service_is_found_by_its_name() {
    let shop = Shop::new();
    let ready = cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = shop.start(&(cart_on_every_frontend().yaml() + &ready));
    let frontends_of = |what: &str| {
        let (code, out, error) = run(&shop, &["explain", what, "-o", "json"]);
        assert_eq!(code, 0, "{out}{error}");
        let answer: Value = serde_json::from_str(&out).expect("JSON");
        let connections = answer["connections"].as_array().expect("connections");
        assert!(connections.iter().all(|to| {
            to["service"]
                .as_str()
                .is_some_and(|name| name.starts_with("shop/cart:http"))
        }));
        connections
            .iter()
            .map(|to| (to["protocol"].clone(), to["frontend"].clone()))
            .collect::<Vec<_>>()
    };
    // The cart has four frontends in two protocols and two families.
    assert_eq!(frontends_of("shop/cart").len(), 16);
    let by_name = frontends_of("shop/cart:http-tcp");
    let expected: BTreeSet<_> = frontends(Family::V4)
        .map(|(_, (ip, port))| SocketAddr::new(ip, port).to_string())
        .into();
    let tcp = by_name.iter().filter(|(protocol, _)| protocol == "tcp");
    let found: BTreeSet<_> = tcp
        .filter_map(|(_, to)| Some(to.as_str()?.to_owned()))
        .filter(|to| !to.starts_with('['))
        .collect();
    assert_eq!(found, expected);
    let node_port = frontends_of(&format!("shop/cart:{NODE_PORT}"));
    assert_eq!(node_port.len(), 4, "{node_port:?}");
    // Without a namespace, in all of them; without a port, all ports.
    assert_eq!(frontends_of("cart").len(), 16);
    assert_eq!(frontends_of("cart:http-tcp"), by_name);
    let cluster_ip = frontends_of(&Family::V4.cluster_ip(1).to_string());
    assert_eq!(cluster_ip.len(), 2, "{cluster_ip:?}");
    let node = Family::V6.lan(2);
    let at_node = frontends_of(&node.to_string());
    let frontend = SocketAddr::new(node, NODE_PORT).to_string();
    assert_eq!(
        at_node,
        [
            ("tcp".into(), json!(frontend)),
            ("udp".into(), json!(frontend))
        ]
    );
    let (code, out, _) = run(&shop, &["explain", "192.0.2.1"]);
    assert_eq!(code, 3, "{out}");
    assert!(out.starts_with("no Service matches; searched\n"), "{out}");
}

/// Explains a target without a source, as text. Returns the exit code and the output.
fn told(shop: &Shop, what: &str) -> (i32, String) {
    let (code, out, _) = run(shop, &["explain", what]);
    (code, out)
}

fn explain_without_a_source_shows_each_kind_of_source() {
    let shop = Shop::new();
    let local = cart_on_every_frontend().spec("externalTrafficPolicy", json!("Local"));
    let ready = cart_slices(shop.pods(["remote-1"])).yaml();
    let _daemon = shop.start(&(local.yaml() + &ready));
    let (code, out) = told(
        &shop,
        &target(Protocol::Tcp, (Family::V4.load_balancer_ip(1), 80)),
    );
    assert_eq!(code, 2, "{out}");
    let expected = "\
10.97.2.1:80/tcp  shop/cart:http-tcp
  from a Pod
    services        @services: tcp . 10.97.2.1 . 80 : goto external-local
    external-local  @services-cluster: tcp . 10.97.2.1 . 80 : goto pick-cluster-1
    pick-cluster-1  one of 1 at random
    pick-cluster-1  @endpoints: slot 65536
    => goes to one of
       100.0 %  10.244.2.9:8080  source preserved
  from this node
    services        @services: tcp . 10.97.2.1 . 80 : goto external-local
    external-local  @services-cluster: tcp . 10.97.2.1 . 80 : goto pick-cluster-1
    pick-cluster-1  one of 1 at random
    pick-cluster-1  @endpoints: slot 65536
    => goes to one of
       100.0 %  10.244.2.9:8080  masqueraded: to-external-local: fib saddr type local
  from elsewhere
    services        @services: tcp . 10.97.2.1 . 80 : goto external-local
    external-local  @services-local: tcp . 10.97.2.1 . 80 : drop
    => dropped: its traffic policy is Local, and no endpoint is on this node
  verify with:
    nft get element ip kube-dnat services '{ tcp . 10.97.2.1 . 80 }'
    nft get element ip kube-dnat services-cluster '{ tcp . 10.97.2.1 . 80 }'
    nft list chain ip kube-dnat pick-cluster-1
    nft get element ip kube-dnat endpoints '{ tcp . 10.97.2.1 . 80 . 65536 }'
    nft get element ip kube-dnat services-local '{ tcp . 10.97.2.1 . 80 }'
";
    let to = Family::V4.load_balancer_ip(1).to_string();
    assert_eq!(out, expected.replace("10.97.2.1", &to));
}

fn explain_distinguishes_pods_by_their_interface() {
    let shop = Shop::new();
    let ready = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    shop.manifests
        .write("shop.yaml", &(super::shop::cart().yaml() + &ready));
    let flags = [
        "--detect-local-mode=InterfaceNamePrefix",
        "--pod-interface-name-prefix=pod-",
    ];
    let _daemon = super::Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let (code, out) = told(
        &shop,
        &target(Protocol::Tcp, (Family::V4.cluster_ip(1), 80)),
    );
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("iifname != \"pod-*\""), "{out}");
    assert!(out.contains("from this node and elsewhere\n"), "{out}");
}

fn explain_suggests_similar_names_and_frontends() {
    let shop = Shop::new();
    let ready = cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = shop.start(&(cart_on_every_frontend().yaml() + &ready));
    let (code, out) = told(&shop, "shop/crat");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("no Service matches; searched\n"), "{out}");
    assert!(out.contains("IPv4 maps (elements): services ("), "{out}");
    assert!(out.contains("similar: shop/cart\n"), "{out}");
    let external = SocketAddr::new(Family::V4.external_ip(1), 81).to_string();
    let (code, out) = told(&shop, &external);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("=> not translated"), "{out}");
    assert!(out.contains(":80/tcp of shop/cart:http"), "{out}");
    let cluster_ip = SocketAddr::new(Family::V6.cluster_ip(1), 81).to_string();
    let (code, out) = told(&shop, &cluster_ip);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("similar: ["), "{out}");
    for wrong in ["cart:", "10.96.0.1/udp", "10.96.0.1:80/icmp", "shop/cart:"] {
        let (code, _, error) = run(&shop, &["explain", wrong]);
        assert_eq!(code, 1, "{wrong}");
        assert!(error.contains("expected ADDRESS[:PORT]"), "{error}");
    }
    let (code, _, error) = run(&shop, &["explain", "10.96.0.1:80", "--from", "fd00::1"]);
    assert_eq!(code, 1);
    assert!(error.contains("the families differ"), "{error}");
}

fn explain_says_why_a_service_is_not_served() {
    let shop = Shop::new();
    let mistaken = "apiVersion: v1\nkind: Service\nmetadata: { namespace: shop, name: till }\n\
        spec: { clusterIPs: [10.96.0.300], ports: [{ port: 80 }] }\n";
    let daemon = shop.start(mistaken);
    for query in ["shop/till", "till"] {
        let (code, out) = told(&shop, query);
        assert_eq!(code, 3, "{out}");
        let line = out
            .lines()
            .find(|line| line.starts_with("not served: Service shop/till"));
        assert!(
            line.is_some_and(|line| line.contains("10.96.0.300")),
            "{out}"
        );
    }
    daemon.terminate();
    let (code, out) = told(&shop, "shop/till");
    assert_eq!(code, 3, "{out}");
    assert!(!out.contains("not served"), "{out}");
}

fn explain_works_while_the_daemon_is_not_running() {
    let shop = Shop::new();
    let ready = cart_slices(shop.pods(["pod-1"])).yaml();
    shop.start(&(cart_on_every_frontend().yaml() + &ready))
        .kill();
    let to = (Family::V4.cluster_ip(1), 80);
    agrees(&shop, &shop.cluster.client, Protocol::Tcp, to);
}

fn explain_reports_missing_tables_and_permissions() {
    let shop = Shop::new();
    let (code, _, error) = run(&shop, &["explain", "shop/cart"]);
    assert_eq!(code, 3);
    assert!(error.contains("no table kube-dnat: "), "{error}");
    let _daemon = shop.start(&cart_on_every_frontend().yaml());
    for command in [
        &["explain", "shop/cart"][..],
        &["status"],
        &["top", "--once"],
        &["cleanup"],
    ] {
        let output = run_without_capabilities(&shop, command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {error}");
        assert!(error.contains("CAP_NET_ADMIN"), "{command:?}: {error}");
    }
    // Only one family has a table.
    let one = Shop::new();
    one.start(&cart_on_every_frontend().yaml()).terminate();
    let node = &one.cluster.node.namespace;
    node.command("nft", &["delete table ip6 kube-dnat"]);
    for what in [&["[fd00::1]:80"][..], &["shop/none", "--from", "fd00::1"]] {
        let (code, out, _) = run(&one, &[&["explain"], what].concat());
        assert_eq!(code, 3, "{out}");
        let expected = "no Service matches; searched\n  IPv6 maps: no table\n";
        assert_eq!(out, expected);
    }
    // Another program created a table with kube-dnat's name.
    let other = Shop::new();
    crate::lab::nft::load(
        &other.cluster.node.namespace,
        "table ip kube-dnat { set services { type ipv4_addr; }; }",
    );
    let (code, _, error) = run(&other, &["explain", "shop/cart"]);
    assert_eq!(code, 1);
    assert!(error.contains("was created by another version"), "{error}");
    let (code, out, _) = run(&other, &["status"]);
    assert_eq!(code, 2, "{out}");
}
