//! What the first packet of a connection costs: UDP packets from the node itself, dropped by a rule
//! after DNAT, so that each is the first of its connection again.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Instant;

use super::cluster::{Cluster, ENDPOINT_PORT, Kinds, PORT};
use super::node::{Node, in_namespace, run};
use super::report::Report;

/// Packets of one round, which is one measured value, and rounds of one measurement.
const PACKETS: u32 = 2_000;
const ROUNDS: usize = 150;

/// Nanoseconds for a packet, of each round, in order.
struct Rounds(Vec<f64>);

impl Rounds {
    fn percentile(&self, percent: usize) -> f64 {
        let last = self.0.len() - 1;
        *self.0.get(last * percent / 100).expect("a round")
    }

    fn percentiles(&self) -> [(&'static str, f64); 3] {
        let at = |percent| self.percentile(percent);
        [("p01_ns", at(1)), ("p50_ns", at(50)), ("p99_ns", at(99))]
    }
}

/// Measures all set-ups and reports each against a single static rule, measured beside it.
pub(crate) fn measure(report: &mut Report, clusters: &[Cluster]) {
    let one = Cluster::new(1, 1);
    let untouched = in_namespace(|| rounds(one, 1, || {}));
    report.add("no rule", one, "new connections", untouched.percentiles());
    for cluster in clusters.iter().copied() {
        for (what, used) in [("", USED), (", to all", cluster.services)] {
            against_static_rule(report, what, cluster, used.min(cluster.services));
        }
    }
    // Ranges are the one thing that a packet pays for by how many there are.
    let kinds = [
        (", session affinity", Kinds::Affinity, 10_000),
        (", external policy Local", Kinds::Local, 10_000),
        (", source ranges", Kinds::SourceRanges, 100),
        (", source ranges", Kinds::SourceRanges, 1_000),
    ];
    for (what, kind, services) in kinds {
        let cluster = Cluster {
            kind,
            ..Cluster::new(services, 10)
        };
        against_static_rule(report, what, cluster, USED);
    }
}

/// How many Services are connected to: few, so that the caches hold them, or all.
const USED: u32 = 64;

fn against_static_rule(report: &mut Report, what: &str, cluster: Cluster, used: u32) {
    // Beside each other: the machine's speed changes from minute to minute.
    let static_rule = in_namespace(|| rounds(cluster, used, || load_static_rule(cluster)));
    let ours = in_namespace(|| {
        let mut node = Node::new();
        node.take_in(cluster.events());
        rounds(cluster, used, || {
            node.load();
        })
    });
    let what = format!("new connections{what}");
    report.add("static rule", cluster, &what, static_rule.percentiles());
    let above = ours.percentile(50) - static_rule.percentile(50);
    let values = ours.percentiles().into_iter();
    let values = values.chain([("above_static_rule_ns", above)]);
    report.add("kube-dnat", cluster, &what, values);
}

/// The rule that is the least anyone could do.
fn load_static_rule(cluster: Cluster) {
    let frontends = cluster.frontend(0);
    let rules = format!(
        "table ip static {{ chain output {{ type nat hook output priority -100;\n\
         ip daddr {frontends}/9 udp dport {PORT} dnat to 10.244.0.1:{ENDPOINT_PORT}\n }}\n }}"
    );
    run("nft", &[&rules]);
}

fn rounds(cluster: Cluster, used: u32, load: impl FnOnce()) -> Rounds {
    run("ip", &["link", "set", "lo", "up"]);
    let device = ["link", "add", "out", "type", "veth", "peer", "name", "peer"];
    run("ip", &device);
    run("ip", &["addr", "add", "192.0.2.2/24", "dev", "out"]);
    run("ip", &["link", "set", "peer", "up"]);
    run("ip", &["link", "set", "out", "up"]);
    run("ip", &["route", "add", "default", "via", "192.0.2.1"]);
    load();
    // Conntrack is on in each set-up, and nothing leaves.
    let drop = "table ip stop { chain output { type filter hook output priority 50;\n\
                ct state new counter drop\n }\n }";
    run("nft", &[drop]);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let mut random = 0x9e37_79b9_u32;
    let mut send = || {
        // xorshift32 (Marsaglia): the destinations must not cost more than the packets.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let to = SocketAddrV4::new(cluster.frontend(random % used), PORT);
        // EPERM, as it is dropped on its way out.
        let _dropped = socket.send_to(b"?", to);
    };
    (0..PACKETS * 5).for_each(|_| send());
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..PACKETS).for_each(|_| send());
            started.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    Rounds(rounds)
}
