//! Benchmarks of the load that a fleet of nodes puts on the API server.
//!
//! The nodes watch and program nothing. Each cost is that with nodes less that without them, and less
//! what the server does all the time for itself, divided by the number of nodes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::{Cluster, SLICE};
use super::node::{in_namespace, run};
use super::process::milliseconds;
use super::report::Report;
use super::{objects, slice};

mod format;
mod network;
mod node;
mod nodes;
mod server;
mod worker;

pub(super) use node::{apply, list_once, nodes as run_nodes};
pub(super) use server::serve;

use format::Format;
use nodes::{Nodes, Noise};
use server::FleetServer;
use worker::Worker;

/// A real API server gets one of so many nodes, each of which costs it a second of CPU.
const REAL_DIVISOR: u32 = 2;

/// The time for which the server is observed while nothing happens.
const IDLE: Duration = Duration::from_secs(10);

/// The number of single changes, whose cost is averaged.
const CHANGES: u32 = 5;

/// The number of changes of a slice while all its Pods are replaced.
const ROLLING_CHANGES: u32 = 2 * SLICE;

/// The time after which the server has done what a change causes.
const SETTLE: Duration = Duration::from_secs(1);

/// The time in which a restarted server does what its start causes.
const RESTART: Duration = Duration::from_secs(10);

/// The number of times that the CPU time of a node is measured.
const REPETITIONS: usize = 3;

/// Measures each cluster with `nodes` nodes.
pub(super) fn measure(report: &mut Report, clusters: &[Cluster], nodes: u32) {
    let has_real = std::env::var_os("KUBEBUILDER_ASSETS").is_some();
    let servers: &[bool] = if has_real { &[false, true] } else { &[false] };
    for (cluster, is_real) in clusters
        .iter()
        .flat_map(|cluster| servers.iter().map(|is_real| (*cluster, *is_real)))
    {
        let nodes = if is_real { nodes / REAL_DIVISOR } else { nodes };
        in_namespace(|| {
            run("ip", &["link", "set", "lo", "up"]);
            let mut bench = Bench::start(report, cluster, is_real);
            bench.without_nodes();
            for format in Format::ALL {
                bench.with_nodes(format, nodes.max(1));
                bench.one_node(format);
            }
            if let Ok(program) = std::env::var("KUBE_PROXY_BIN") {
                bench.with_kube_proxy(&program);
            }
        });
    }
}

/// The cost for the server.
#[derive(Clone, Copy, Default)]
struct Cost {
    bytes: f64,
    cpu: f64,
}

/// The costs without nodes.
#[derive(Clone, Copy, Default)]
struct Baseline {
    change: Cost,
    rolling: Cost,
    restart: Cost,
}

struct Bench<'a> {
    report: &'a mut Report,
    server: FleetServer,
    is_real: bool,
    cluster: Cluster,
    /// The number of changes so far.
    changes: u32,
    started: Instant,
    /// The cost of each second in which nothing happens.
    idle: Cost,
    baseline: Baseline,
}

impl<'a> Bench<'a> {
    fn start(report: &'a mut Report, cluster: Cluster, is_real: bool) -> Self {
        let mut server = FleetServer::start(is_real);
        server.apply(vec![objects::node()]);
        server.apply(objects::services(cluster).collect());
        server.apply(objects::slices(cluster).collect());
        network::count(server.port());
        let mut bench = Self {
            report,
            server,
            is_real,
            cluster,
            changes: 0,
            started: Instant::now(),
            idle: Cost::default(),
            baseline: Baseline::default(),
        };
        let service = objects::service(bench.large(), bench.number());
        let slice = bench.slice(0..SLICE);
        bench.server.apply(vec![service, slice]);
        sleep(SETTLE);
        bench
    }

    /// Returns the Service whose slice changes, as the last of a cluster of Services with one full
    /// slice each.
    fn large(&self) -> Cluster {
        Cluster::new(self.cluster.services + 1, SLICE)
    }

    fn number(&self) -> u32 {
        self.cluster.services
    }

    fn slice(&self, endpoints: impl IntoIterator<Item = u32>) -> Value {
        slice::json(self.large(), self.number(), 0, endpoints)
    }

    fn endpoint(&self, number: u32) -> Ipv4Addr {
        self.large().endpoint(self.number(), number)
    }

    fn subject(&self, what: &str) -> String {
        let server = if self.is_real {
            "kube-apiserver"
        } else {
            "the tests' API server"
        };
        format!("{what} at {server}")
    }

    fn without_nodes(&mut self) {
        let before = self.spent();
        sleep(IDLE);
        self.idle = self.spent().less(before).over(IDLE.as_secs_f64());
        let nodes = &mut Nodes::None;
        self.baseline = Baseline {
            change: self.change(nodes),
            rolling: self.rolling(nodes),
            restart: self.restart(nodes),
        };
    }

    fn with_nodes(&mut self, format: Format, count: u32) {
        let name = objects::slice_name(self.number(), 0);
        self.with(&format.to_string(), |kubeconfig| {
            Nodes::start(kubeconfig, format, count, &name)
        });
    }

    fn with_kube_proxy(&mut self, program: &str) {
        let noise = Noise(self.idle.bytes);
        self.with("kube-proxy", |kubeconfig| {
            Nodes::kube_proxy(program, kubeconfig, noise)
        });
    }

    /// Measures the costs of nodes, from their start on.
    fn with(&mut self, what: &str, start: impl FnOnce(&Path) -> Nodes) {
        let subject = &self.subject(what);
        let port = self.server.port();
        let others = network::connections(port);
        let (started, before) = (Instant::now(), self.spent());
        let nodes = &mut start(&self.server.kubeconfig());
        let took = started.elapsed();
        sleep(SETTLE);
        let start = self.spent().less(before);
        let count = f64::from(nodes.count());
        let connections = network::connections(port).saturating_sub(others);
        let connections = u32::try_from(connections).map_or(0.0, f64::from);
        let of_nodes = [
            ("nodes", count),
            ("connections_a_node", connections / count),
            ("total_ms", milliseconds(took)),
        ];
        self.add(subject, "nodes start", start, count, &of_nodes);
        let Baseline {
            change,
            rolling,
            restart,
        } = self.baseline;
        let cost = self.change(nodes).less(change);
        self.add(
            subject,
            "a slice of 100 endpoints changes",
            cost,
            count,
            &[],
        );
        let cost = self.rolling(nodes).less(rolling);
        self.add(subject, "100 Pods are replaced", cost, count, &[]);
        let cost = self.restart(nodes).less(restart);
        self.add(subject, "the API server restarts", cost, count, &[]);
    }

    fn add(&mut self, subject: &str, what: &str, cost: Cost, nodes: f64, others: &[(&str, f64)]) {
        let costs = [
            ("bytes_a_node", cost.bytes / nodes),
            ("server_cpu_ms_a_node", cost.cpu / nodes),
        ];
        let values = costs.into_iter().chain(others.iter().copied());
        self.report.add(subject, self.cluster, what, values);
    }

    /// Returns the bytes and CPU time of the server so far, less those of an idle one.
    fn spent(&self) -> Cost {
        #[expect(clippy::cast_precision_loss, reason = "less than 2^52 bytes")]
        let bytes = network::sent() as f64;
        let cpu = milliseconds(self.server.cpu());
        let seconds = self.started.elapsed().as_secs_f64();
        Cost { bytes, cpu }.less(self.idle.over(1.0 / seconds))
    }

    /// Replaces the first endpoint several times; returns the mean cost.
    fn change(&mut self, nodes: &mut Nodes) -> Cost {
        let before = self.spent();
        for _ in 0..CHANGES {
            self.change_one(nodes);
        }
        sleep(SETTLE);
        self.spent().less(before).over(f64::from(CHANGES))
    }

    /// Replaces the first endpoint by one that was never before, with a higher address.
    fn change_one(&mut self, nodes: &mut Nodes) {
        self.changes += 1;
        let first = 3 * SLICE + self.changes;
        let slice = self.slice([first].into_iter().chain(1..SLICE));
        self.server.apply(vec![slice]);
        nodes.until_seen(self.endpoint(first));
    }

    /// Replaces the endpoints one after the other, each removed and then added.
    fn rolling(&mut self, nodes: &mut Nodes) -> Cost {
        let before = self.spent();
        for change in 1..=ROLLING_CHANGES {
            let old = change.div_ceil(2)..SLICE;
            let new = SLICE..SLICE + change / 2;
            let slice = self.slice(old.chain(new));
            self.server.apply(vec![slice]);
        }
        nodes.until_seen(self.endpoint(2 * SLICE - 1));
        sleep(SETTLE);
        self.spent().less(before)
    }

    /// Restarts the server, and waits until all nodes follow it again.
    fn restart(&mut self, nodes: &mut Nodes) -> Cost {
        let mut before = self.spent();
        if self.is_real {
            // The new process begins at zero.
            before.cpu -= milliseconds(self.server.cpu());
        }
        self.server.restart();
        self.change_one(nodes);
        sleep(RESTART);
        self.spent().less(before)
    }

    /// Measures the CPU time of one node to receive and plan everything.
    fn one_node(&mut self, format: Format) {
        let kubeconfig = self.server.kubeconfig();
        let kubeconfig = kubeconfig.to_str().expect("text");
        let format = format.to_string();
        let mut times: Vec<(f64, f64)> = (0..REPETITIONS)
            .map(|_| {
                let line = Worker::start(["fleet-apply", kubeconfig, &format]).line();
                let (receive, plan) = line.split_once(' ').expect("two numbers");
                let number = |text: &str| text.parse().expect("a number");
                (number(receive), number(plan))
            })
            .collect();
        times.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (receive, plan) = *times.get(REPETITIONS / 2).expect("some times");
        let subject = self.subject(&format);
        let values = [("receive_cpu_ms", receive), ("plan_cpu_ms", plan)];
        let what = "a node receives and plans everything";
        self.report.add(&subject, self.cluster, what, values);
    }
}

impl Cost {
    fn less(self, other: Self) -> Self {
        Self {
            bytes: self.bytes - other.bytes,
            cpu: self.cpu - other.cpu,
        }
    }

    fn over(self, divisor: f64) -> Self {
        Self {
            bytes: self.bytes / divisor,
            cpu: self.cpu / divisor,
        }
    }
}
