//! UDP clients that keep their source port: conntrack must not keep them at a removed endpoint.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Daemon, Family, Host, IpAddr, Protocol, Server};
use crate::lab::{DEADLINE, Flow, Outcome, Probe, Service, patient};

pub(super) fn tests() -> Vec<Trial> {
    use super::udp_stale;
    crate::trials!(udp_stale:
        a_client_follows_when_its_endpoint_is_replaced,
        a_rejected_client_is_served_once_the_service_has_endpoints,
        a_client_older_than_the_service_is_served_once_it_exists,
        a_client_follows_when_the_last_endpoint_is_removed_and_another_added,
        a_client_follows_a_service_that_is_deleted_and_created_again,
        removed_node_ports_and_addresses_are_no_longer_served,
        a_serving_terminating_endpoint_keeps_its_clients,
        a_start_cleans_up_flows_of_earlier_changes,
        other_udp_flows_and_tcp_flows_stay,
    )
}

/// The interval at which a client sends.
pub(super) const EVERY: Duration = Duration::from_millis(10);

/// UDP clients that keep their source ports.
struct Clients<'a> {
    flows: Vec<(Probe<'a>, Flow)>,
}

impl<'a> Clients<'a> {
    /// Opens flows from the outside client, the node and a local Pod, in both families, to each
    /// frontend of [`cart_on_every_frontend`] that `of` names.
    fn of(shop: &'a Shop, of: &[&str]) -> Self {
        let cluster = &shop.cluster;
        let sources = [&cluster.client, &cluster.node, cluster.pod("pod-3")];
        let mut flows = Vec::new();
        for family in Family::ALL {
            let frontends = frontends(family).into_iter();
            for (_, to) in frontends.filter(|(name, _)| of.contains(name)) {
                for source in sources {
                    let probe = source.probe(Protocol::Udp, to).deadline(EVERY);
                    flows.push((probe.clone(), open(&probe)));
                }
            }
        }
        Self { flows }
    }

    /// Makes every client send at the same interval until its outcome is `expected`.
    #[track_caller]
    fn send_until(&mut self, expected: impl Fn(&Outcome) -> bool + Sync) {
        let expected = &expected;
        let sent: Vec<_> = thread::scope(|scope| {
            let clients = self.flows.iter_mut();
            let clients: Vec<_> = clients
                .map(|(_, flow)| scope.spawn(move || send_until(flow, expected)))
                .collect();
            let ended = clients.into_iter().map(thread::ScopedJoinHandle::join);
            ended.map(|client| client.expect("a client")).collect()
        });
        for ((probe, _), result) in self.flows.iter().zip(sent) {
            if let Err(last) = result {
                panic!("{probe}: not the expected outcome: {last:?}");
            }
        }
    }

    /// Makes every client send until this server answers.
    #[track_caller]
    fn reach(&mut self, server: &str) {
        let name = format!("{server}:8080");
        self.send_until(|outcome| outcome.server() == Some(&name));
    }
}

pub(super) fn open(probe: &Probe<'_>) -> Flow {
    Flow::open(probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"))
}

/// Makes a client send until its outcome is `expected`; returns another outcome at the deadline.
///
/// The client never pauses for the 30 seconds after which the kernel deletes a conntrack entry of
/// UDP by itself.
pub(super) fn send_until(
    flow: &mut Flow,
    expected: impl Fn(&Outcome) -> bool,
) -> Result<(), Outcome> {
    let start = Instant::now();
    loop {
        let sent = Instant::now();
        let outcome = flow.ask();
        if expected(&outcome) {
            return Ok(());
        }
        if start.elapsed() > patient(DEADLINE) {
            return Err(outcome);
        }
        // The client sends at its interval. The pause does not wait for a change.
        thread::sleep(EVERY.saturating_sub(sent.elapsed()));
    }
}

pub(super) fn refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(_))
}

const ALL: [&str; 4] = ["ClusterIP", "node port", "external IP", "load-balancer IP"];

fn with(shop: &Shop, pods: &[&str]) -> String {
    let pods = pods.iter().map(|name| shop.cluster.pod(name));
    cart_on_every_frontend().yaml() + &cart_slices(pods).yaml()
}

fn a_client_follows_when_its_endpoint_is_replaced() {
    let shop = Shop::new();
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    let mut clients = Clients::of(&shop, &ALL);
    clients.reach("pod-1");
    let pods = ["pod-2", "remote-1", "pod-1", "remote-2", "pod-2"];
    for pod in pods {
        daemon.manifests.write("shop.yaml", &with(&shop, &[pod]));
        clients.reach(pod);
    }
}

fn a_rejected_client_is_served_once_the_service_has_endpoints() {
    let shop = Shop::new();
    let daemon = shop.start(&with(&shop, &[]));
    let mut clients = Clients::of(&shop, &ALL);
    for pod in ["pod-1", "pod-2", "remote-1"] {
        clients.send_until(refused);
        daemon.manifests.write("shop.yaml", &with(&shop, &[pod]));
        clients.reach(pod);
        daemon.apply("shop.yaml", &with(&shop, &[]));
    }
}

fn a_client_older_than_the_service_is_served_once_it_exists() {
    let shop = Shop::new();
    let daemon = shop.start("");
    let mut outside = Clients::of(&shop, &["external IP", "load-balancer IP"]);
    let mut at_node = Clients::of(&shop, &["node port"]);
    for pod in ["pod-1", "pod-2", "remote-1"] {
        outside.send_until(|outcome| outcome.server() == Some("gateway"));
        at_node.send_until(refused);
        daemon.manifests.write("shop.yaml", &with(&shop, &[pod]));
        outside.reach(pod);
        at_node.reach(pod);
        daemon.apply("shop.yaml", "");
    }
}

fn a_client_follows_when_the_last_endpoint_is_removed_and_another_added() {
    let shop = Shop::new();
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    let mut clients = Clients::of(&shop, &ALL);
    clients.reach("pod-1");
    for pod in ["pod-2", "remote-1", "pod-1"] {
        daemon.manifests.write("shop.yaml", &with(&shop, &[]));
        clients.send_until(refused);
        daemon.manifests.write("shop.yaml", &with(&shop, &[pod]));
        clients.reach(pod);
    }
}

fn a_client_follows_a_service_that_is_deleted_and_created_again() {
    let shop = Shop::new();
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    let mut clients = Clients::of(&shop, &ALL);
    clients.reach("pod-1");
    for pod in ["pod-2", "remote-1", "pod-1"] {
        daemon.remove("shop.yaml");
        // Only the gateway answers, at the addresses that lead to it.
        clients.send_until(|outcome| [None, Some("gateway")].contains(&outcome.server()));
        daemon.manifests.write("shop.yaml", &with(&shop, &[pod]));
        clients.reach(pod);
    }
}

fn removed_node_ports_and_addresses_are_no_longer_served() {
    let shop = Shop::new();
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    let mut kept = Clients::of(&shop, &["ClusterIP"]);
    let mut outside = Clients::of(&shop, &["external IP", "load-balancer IP"]);
    let mut at_node = Clients::of(&shop, &["node port"]);
    for clients in [&mut kept, &mut outside, &mut at_node] {
        clients.reach("pod-1");
    }
    let changed = Service::new("shop/cart", 1)
        .both("http", 80)
        .node_port(NODE_PORT + 1)
        .yaml();
    daemon.apply(
        "shop.yaml",
        &(changed + &cart_slices(shop.pods(["pod-1"])).yaml()),
    );
    outside.send_until(|outcome| outcome.server() == Some("gateway"));
    at_node.send_until(refused);
    kept.reach("pod-1");
}

fn a_serving_terminating_endpoint_keeps_its_clients() {
    let shop = Shop::new();
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    let mut clients = Clients::of(&shop, &ALL);
    clients.reach("pod-1");
    let terminating = |serving: bool| {
        let conditions = json!({ "ready": false, "serving": serving, "terminating": true });
        let slices = cart_slices([second]).with([first], &conditions);
        cart_on_every_frontend().yaml() + &slices.yaml()
    };
    let before = entries(&shop, Protocol::Udp);
    apply_and_clean(&daemon, &terminating(true));
    clients.reach("pod-1");
    let after = entries(&shop, Protocol::Udp);
    assert!(before.is_subset(&after), "{before:#?}\n{after:#?}");
    daemon.manifests.write("shop.yaml", &terminating(false));
    clients.reach("pod-2");
}

fn a_start_cleans_up_flows_of_earlier_changes() {
    let shop = Shop::new();
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    let mut clients = Clients::of(&shop, &ALL);
    clients.reach("pod-1");
    daemon.terminate();
    let daemon = shop.start(&with(&shop, &["pod-2"]));
    clients.reach("pod-2");
    daemon.terminate();
    let _daemon = shop.start("");
    clients.send_until(|outcome| [None, Some("gateway")].contains(&outcome.server()));
}

/// Applies `shop.yaml` and waits for the next commit, which follows the conntrack cleanup.
fn apply_and_clean(daemon: &Daemon<'_>, yaml: &str) {
    daemon.apply("shop.yaml", yaml);
    daemon.await_programmed();
}

/// Returns the node's conntrack entries of a protocol with their identifiers. A recreated entry has
/// another identifier.
pub(super) fn entries(shop: &Shop, protocol: Protocol) -> BTreeSet<String> {
    let protocol = protocol.to_string().to_lowercase();
    let mut entries = BTreeSet::new();
    for family in ["ipv4", "ipv6"] {
        let arguments = ["-L", "-f", family, "-p", &protocol, "-o", "id"];
        let listing = shop.cluster.node.namespace.command("conntrack", &arguments);
        for line in listing.lines() {
            let words = line.split_whitespace();
            // Only addresses, ports and the identifier remain, without the timeout and the state.
            let words: Vec<_> = words
                .filter(|word| word.contains('=') && !word.starts_with("use="))
                .collect();
            entries.insert(words.join(" "));
        }
    }
    entries
}

fn other_udp_flows_and_tcp_flows_stay() {
    let shop = Shop::new();
    let cluster = &shop.cluster;
    let serve = |host: &Host, ip: fn(Family) -> IpAddr| {
        let addresses = Family::ALL.map(|family| (ip(family), NODE_PORT).into());
        Server::start(&host.namespace, "foreign", &addresses)
    };
    // These servers use the number of the node port, on another node and at an address that does
    // not serve node ports.
    let _foreign = serve(&cluster.other_node, |family| family.lan(12));
    let _secondary = serve(&cluster.node, Cluster::secondary_ip);
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    let mut flows = Vec::new();
    for family in Family::ALL {
        for ip in [family.lan(12), Cluster::secondary_ip(family)] {
            let probe = cluster.pod("pod-3").probe(Protocol::Udp, (ip, NODE_PORT));
            flows.push((open(&probe), "foreign"));
        }
        for (_, to) in frontends(family) {
            let probe = cluster.client.probe(Protocol::Tcp, to);
            flows.push((open(&probe), "pod-1:8080"));
        }
    }
    for (flow, server) in &mut flows {
        assert_eq!(flow.greeting().server(), Some(*server));
    }
    let all = || &entries(&shop, Protocol::Udp) | &entries(&shop, Protocol::Tcp);
    let before = all();
    let mut clients = Clients::of(&shop, &["node port"]);
    clients.reach("pod-1");
    for change in [with(&shop, &["pod-2"]), with(&shop, &[]), String::new()] {
        apply_and_clean(&daemon, &change);
        // The conntrack cleanup is complete.
        clients.send_until(|outcome| outcome.server() != Some("pod-1:8080"));
        let after = all();
        assert!(before.is_subset(&after), "{before:#?}\n{after:#?}");
        for (flow, server) in &mut flows {
            assert_eq!(flow.ask().server(), Some(*server));
        }
    }
}
