//! The probes of a step and their outcomes.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::line::{Expected, Line, ProbeKind};
use super::objects::APART;
use super::read::{Scenario, Step};
use crate::lab::sctp::{Receiver, send_init};
use crate::lab::{Cluster, DEADLINE, Host, Outcome, Ping, Probe, Server, http, patient, ping};

/// The number of draws for each of N endpoints. An endpoint is missing in all draws with a
/// probability of less than N * e^-20.
const DRAWS: usize = 20;

/// Starts a server on port 8080 of every Pod, and every other server that a line expects.
pub(super) fn servers(cluster: &Cluster, scenario: &Scenario) -> Vec<Server> {
    let pods = cluster.pods.iter().chain(&cluster.remote_pods);
    let mut servers: BTreeSet<_> = pods.map(|pod| format!("{}:8080", pod.name())).collect();
    for line in scenario.steps.iter().flat_map(|step| &step.probes) {
        if let (Expected::Servers { servers: named, .. }, ProbeKind::Connection(_)) =
            (&line.expected, &line.kind)
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
pub(super) fn check(cluster: &Cluster, step: &Step) -> Vec<String> {
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
        let follows_later = line.to.0.is_loopback() || matches!(line.kind, ProbeKind::Http { .. });
        let fault = if follows_later {
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

/// Returns the last outcome of a line that stays wrong. Localhost and health checks follow a commit a
/// moment later.
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
    match &line.kind {
        ProbeKind::Connection(_) => check_connections(&probe(cluster, line)?, &line.expected),
        ProbeKind::SctpInit => check_init(cluster, line),
        ProbeKind::Ping => {
            let from = &host(cluster, &line.from).namespace;
            let came = ping(from, line.to.0, Duration::from_millis(400));
            let right = match line.expected {
                Expected::Refused => matches!(came, Ping::Failed(Outcome::Refused(_))),
                Expected::Dropped => came == Ping::Failed(Outcome::TimedOut),
                Expected::Untouched => came == Ping::Replied,
                Expected::Servers { .. } | Expected::Status(_) => {
                    panic!("a server does not answer a ping: {}", line.at)
                }
            };
            (!right).then(|| format!("{came:?}"))
        }
        ProbeKind::Http { path } => {
            let Expected::Status(expected) = line.expected else {
                panic!("an HTTP line expects a status code: {}", line.at)
            };
            let path = if path.is_empty() { "/" } else { path };
            match http::get_briefly(host(cluster, &line.from), line.to, path) {
                Ok(answer) => (http::status(&answer) != Some(expected)).then_some(answer),
                Err(error) => Some(error.to_string()),
            }
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
            Expected::Status(_) => panic!("only an HTTP line expects a status code: {probe}"),
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
        Expected::Untouched | Expected::Status(_) => {
            panic!("an SCTP line expects servers or none: {}", line.at)
        }
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
    let source_kept = if let Expected::Servers { source_kept, .. } = line.expected {
        source_kept
    } else {
        None
    };
    let source_right = source_kept.is_none_or(|expected| kept == [expected].into());
    let right = arrived == expected && source_right;
    (!right).then(|| format!("arrived at {arrived:?}, source kept: {kept:?}"))
}
