//! A scenario as packets.

use std::collections::BTreeSet;
use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::thread;
use std::time::Duration;

use super::read::{Expected, Line, ProbeKind, Scenario, Step};
use crate::lab::sctp::{Receiver, send_init};
use crate::lab::{Cluster, Daemon, Host, Manifests, Outcome, Ping, Probe, Server, ping};

/// How the objects of the first step come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// They are all there when kube-dnat starts.
    Fresh,
    /// One at a time.
    RandomOrder,
}

/// Longer than changes of files are gathered for: what is written after it is a change of its own.
const APART: Duration = Duration::from_millis(15);

/// How many draws for each of N endpoints: that one does not show up happens once in N * e^20.
const DRAWS: usize = 20;

/// Runs a scenario; panics with every line that is not as it says.
pub(super) fn run(scenario: &Scenario, arrival: Arrival) {
    let cluster = Cluster::new();
    let _servers = servers(&cluster, scenario);
    let manifests = Manifests::new();
    let mut order = Order::new();
    let [first, later @ ..] = &scenario.steps[..] else {
        unreachable!("a scenario has a step")
    };
    let flags: Vec<_> = scenario.flags.iter().map(String::as_str).collect();
    let mut written = BTreeSet::new();
    if arrival == Arrival::Fresh {
        write(
            &manifests,
            first,
            &mut written,
            |objects| objects,
            Duration::ZERO,
        );
    }
    let daemon = Daemon::start_with(&cluster, &manifests, &flags);
    if arrival == Arrival::RandomOrder {
        write(
            &manifests,
            first,
            &mut written,
            |objects| order.shuffle(objects),
            APART,
        );
        daemon.await_programmed();
    }
    let mut wrong = check(&cluster, first);
    for step in later {
        write(
            &manifests,
            step,
            &mut written,
            |objects| order.shuffle(objects),
            APART,
        );
        daemon.await_programmed();
        wrong.extend(check(&cluster, step));
    }
    let seed = order.seed;
    assert!(
        wrong.is_empty(),
        "SCENARIO_SEED={seed}\n{}",
        wrong.join("\n")
    );
}

/// Makes the directory hold the objects of this step: a file each.
fn write(
    manifests: &Manifests,
    step: &Step,
    written: &mut BTreeSet<String>,
    order: impl FnOnce(Vec<(String, &str)>) -> Vec<(String, &str)>,
    apart: Duration,
) {
    let objects = step
        .objects
        .iter()
        .map(|object| (file(object), object.as_str()));
    let objects: Vec<_> = objects.collect();
    let wanted: BTreeSet<_> = objects.iter().map(|(file, _)| file.clone()).collect();
    assert_eq!(
        wanted.len(),
        objects.len(),
        "an object is there twice: {wanted:?}"
    );
    for (file, object) in order(objects) {
        manifests.write(&file, object);
        thread::sleep(apart);
    }
    for gone in written.difference(&wanted) {
        manifests.remove(gone);
        thread::sleep(apart);
    }
    *written = wanted;
}

/// The file of an object: our own Node and the `ServiceCIDR` replace those of every test.
fn file(object: &str) -> String {
    let field = |name: &str| {
        let mut words = object
            .lines()
            .filter_map(|line| line.trim().strip_prefix(name));
        words.next().map(|value| value.trim().to_owned())
    };
    let kind = field("kind:").expect("an object has a kind");
    match kind.as_str() {
        "Node" => "node.yaml".to_owned(),
        "ServiceCIDR" => "service-cidr.yaml".to_owned(),
        _ => {
            let name = field("name:").expect("an object has a name");
            format!("{}-{name}.yaml", kind.to_lowercase())
        }
    }
}

/// Every Pod serves port 8080, and every host what a line expects it to.
fn servers(cluster: &Cluster, scenario: &Scenario) -> Vec<Server> {
    let pods = cluster.pods.iter().chain(&cluster.remote_pods);
    let mut servers: BTreeSet<_> = pods.map(|pod| format!("{}:8080", pod.name())).collect();
    for line in scenario.steps.iter().flat_map(|step| &step.probes) {
        if let (Expected::Servers { servers: named, .. }, ProbeKind::Connection(_)) =
            (&line.expected, line.kind)
        {
            servers.extend(named.iter().cloned());
        }
    }
    let start = |server: String| {
        let (name, port) = server.split_once(':').expect("HOST:PORT");
        host(cluster, name).serve(port.parse().expect("a port"))
    };
    servers.into_iter().map(start).collect()
}

fn host<'a>(cluster: &'a Cluster, name: &str) -> &'a Host {
    match name {
        "node-1" => &cluster.node,
        "node-2" => &cluster.other_node,
        "client" | "client-second" => &cluster.client,
        pod => cluster.pod(pod),
    }
}

/// The lines of a step that are not as they say, and what came instead.
fn check(cluster: &Cluster, step: &Step) -> Vec<String> {
    // What is dropped takes its time: all of it at once.
    let (dropped, others): (Vec<_>, Vec<_>) = step.probes.iter().partition(|line| {
        line.expected == Expected::Dropped && matches!(line.kind, ProbeKind::Connection(_))
    });
    let probes: Vec<_> = dropped
        .iter()
        .filter_map(|line| probe(cluster, line))
        .collect();
    let probes: Vec<_> = probes.into_iter().map(Probe::briefly).collect();
    let outcomes = Probe::send_all(&probes);
    let dropped = dropped.iter().zip(outcomes).filter_map(|(line, outcome)| {
        (outcome != Outcome::TimedOut).then(|| format!("{}\n  but {outcome:?}", line.at))
    });
    let wrong = others.iter().filter_map(|line| {
        let fault = check_line(cluster, line)?;
        Some(format!("{} ({})\n  but {fault}", line.at, line.family))
    });
    dropped.chain(wrong).collect()
}

/// The probe of a line that is one of connections.
fn probe<'a>(cluster: &'a Cluster, line: &Line) -> Option<Probe<'a>> {
    let ProbeKind::Connection(protocol) = line.kind else {
        return None;
    };
    let probe = host(cluster, &line.from).probe(protocol, line.to);
    Some(match line.from.as_str() {
        // Masquerading puts the node's first address in the place of its second, and is seen.
        "node-1" if !line.to.0.is_loopback() => probe.source_ip(Cluster::secondary_ip(line.family)),
        "client-second" => probe.source_ip(Cluster::second_client_ip(line.family)),
        _ => probe,
    })
}

/// What is wrong with a line, if anything.
fn check_line(cluster: &Cluster, line: &Line) -> Option<String> {
    match line.kind {
        ProbeKind::Connection(_) => check_connections(&probe(cluster, line)?, &line.expected),
        ProbeKind::SctpInit => check_init(cluster, line),
        ProbeKind::Ping => {
            let from = &host(cluster, &line.from).namespace;
            let came = ping(from, line.to.0, Duration::from_millis(400));
            let right = match line.expected {
                Expected::Refused => matches!(came, Ping::Failed(Outcome::Refused(_))),
                Expected::Dropped => came == Ping::Failed(Outcome::TimedOut),
                Expected::Untouched => came == Ping::Replied,
                Expected::Servers { .. } => panic!("no server answers a ping: {}", line.at),
            };
            (!right).then(|| format!("{came:?}"))
        }
    }
}

fn check_connections(probe: &Probe<'_>, expected: &Expected) -> Option<String> {
    let Expected::Servers {
        servers,
        source_kept,
        same,
    } = expected
    else {
        let outcome = probe.send();
        let right = match expected {
            Expected::Refused => outcome.is_refused_at_once(),
            Expected::Untouched => outcome.server() == Some("gateway"),
            Expected::Dropped | Expected::Servers { .. } => outcome == Outcome::TimedOut,
        };
        return (!right).then(|| format!("{outcome:?}"));
    };
    let tally = probe.send_times(DRAWS * servers.len());
    let answered: BTreeSet<_> = tally.servers.keys().cloned().collect();
    let right = if *same {
        answered.len() == 1 && answered.is_subset(servers)
    } else {
        answered == *servers
    };
    if !right || !tally.failures.is_empty() {
        return Some(format!("{tally:?}"));
    }
    let answers: usize = tally.servers.values().sum();
    let expected = source_kept.map(|kept| if kept { answers } else { 0 });
    let differs = expected.is_some_and(|expected| expected != tally.sources_kept);
    differs.then(|| format!("{} of {answers} kept their source", tally.sources_kept))
}

/// SCTP has no sockets here: where an INIT arrives is what it tells. Refused and dropped look alike.
fn check_init(cluster: &Cluster, line: &Line) -> Option<String> {
    let pods: Vec<_> = cluster.pods.iter().chain(&cluster.remote_pods).collect();
    let receivers: Vec<_> = pods
        .iter()
        .map(|pod| Receiver::start(pod, line.family))
        .collect();
    let source = host(cluster, &line.from);
    let expected = match &line.expected {
        Expected::Servers { servers, .. } => servers.clone(),
        Expected::Refused | Expected::Dropped => BTreeSet::new(),
        Expected::Untouched => panic!("untouched is not told of SCTP: {}", line.at),
    };
    let mut arrived = BTreeSet::new();
    let mut kept = BTreeSet::new();
    for port in (5000..).take(DRAWS * expected.len().max(1)) {
        send_init(&source.namespace, port, line.to);
        for _ in 0..20 {
            let found = pods.iter().zip(&receivers).find_map(|(pod, receiver)| {
                Some((pod, receiver.receive(Duration::from_millis(1))?))
            });
            if let Some((pod, init)) = found {
                arrived.insert(format!("{}:{}", pod.name(), init.port));
                kept.insert(init.from.ip() == source.ip(line.family));
                break;
            }
            if expected.is_empty() {
                break;
            }
        }
    }
    let source_right = match &line.expected {
        Expected::Servers {
            source_kept: Some(expected),
            ..
        } => kept == [*expected].into(),
        Expected::Servers { .. } | Expected::Refused | Expected::Dropped | Expected::Untouched => {
            true
        }
    };
    let right = arrived == expected && source_right;
    (!right).then(|| format!("arrived at {arrived:?}, source kept: {kept:?}"))
}

/// A random order that can be repeated.
struct Order {
    seed: u64,
    state: u64,
}

impl Order {
    fn new() -> Self {
        let seed = match env::var("SCENARIO_SEED") {
            Ok(seed) => seed.parse().expect("SCENARIO_SEED is a number"),
            Err(_) => RandomState::new().build_hasher().finish() | 1,
        };
        Self { seed, state: seed }
    }

    /// Fisher and Yates' shuffle, by xorshift64 (Marsaglia).
    fn shuffle<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for last in (1..items.len()).rev() {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let bound = u64::try_from(last).expect("a length") + 1;
            let other = usize::try_from(self.state % bound).expect("below a length");
            items.swap(last, other);
        }
        items
    }
}
