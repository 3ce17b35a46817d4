//! The run of a scenario with real packets.

use std::collections::BTreeSet;
use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use super::read::{Expected, Line, ProbeKind, Scenario, Step};
use crate::lab::sctp::{Receiver, send_init};
use crate::lab::{
    Cluster, DEADLINE, Daemon, Host, Manifests, Outcome, Ping, Probe, Server, patient, ping,
};

/// The way in which the objects of the first step arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// All objects exist when kube-dnat starts.
    Fresh,
    /// The objects arrive one at a time.
    RandomOrder,
}

/// The pause between two writes. It is longer than the time for which kube-dnat collects changes
/// of files, so each write is a change of its own.
const APART: Duration = Duration::from_millis(15);

/// The number of draws for each of N endpoints. An endpoint is missing in all draws with a
/// probability of less than N * e^-20.
const DRAWS: usize = 20;

/// Runs a scenario. Panics with every line whose outcome is wrong.
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

/// Replaces the objects in the directory with those of this step, each in a file of its own.
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
        "two objects have one name: {wanted:?}"
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

/// Returns the file name of an object. A Node or `ServiceCIDR` of the scenario replaces the
/// default one.
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

/// Starts a server on port 8080 of every Pod, and every other server that a line expects.
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

/// Returns the lines of a step whose outcome is wrong, with the actual outcome.
fn check(cluster: &Cluster, step: &Step) -> Vec<String> {
    // A dropped probe takes its whole deadline, so all of them run at the same time.
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
        let fault = if line.to.0.is_loopback() {
            check_line_at_last(cluster, line)?
        } else {
            check_line(cluster, line)?
        };
        Some(format!("{} ({})\n  but {fault}", line.at, line.family))
    });
    dropped.chain(wrong).collect()
}

/// Returns the probe of a line that opens connections.
fn probe<'a>(cluster: &'a Cluster, line: &Line) -> Option<Probe<'a>> {
    let ProbeKind::Connection(protocol) = line.kind else {
        return None;
    };
    let probe = host(cluster, &line.from).probe(protocol, line.to);
    Some(match line.from.as_str() {
        // Masquerade changes the second address of the node to its first, so the server sees it.
        "node-1" if !line.to.0.is_loopback() => probe.source_ip(Cluster::secondary_ip(line.family)),
        "client-second" => probe.source_ip(Cluster::second_client_ip(line.family)),
        _ => probe,
    })
}

/// Returns the last outcome of a line that stays wrong. Localhost follows a commit a moment later.
fn check_line_at_last(cluster: &Cluster, line: &Line) -> Option<String> {
    let (start, deadline) = (Instant::now(), patient(DEADLINE));
    loop {
        let fault = check_line(cluster, line)?;
        if start.elapsed() > deadline {
            return Some(fault);
        }
        thread::sleep(APART);
    }
}

/// Returns the actual outcome of a line if it is wrong.
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
                Expected::Servers { .. } => panic!("a server does not answer a ping: {}", line.at),
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

/// Checks which Pods receive the INITs of a line. The lab has no SCTP sockets, so a rejected INIT
/// looks like a dropped one.
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
        Expected::Untouched => panic!("an SCTP line cannot expect untouched: {}", line.at),
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

/// A random order that the seed repeats.
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

    /// Shuffles items with the algorithm of Fisher and Yates and Marsaglia's xorshift64.
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
