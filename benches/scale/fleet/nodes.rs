//! What watches the API server: a fleet of our nodes, or one kube-proxy.

use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::api::Subject;
use super::super::process::Process;
use super::format::Format;
use super::network;
use super::worker::Worker;

/// The number of nodes in a process.
const NODES_A_PROCESS: u32 = 25;

/// The maximum time until all nodes have received something.
const MAX_TIME: Duration = Duration::from_mins(20);

/// The time without a byte after which a kube-proxy has received everything.
const LISTED: Duration = Duration::from_secs(3);

/// The time without a byte after which a kube-proxy has received a change.
const CHANGED: Duration = Duration::from_millis(300);

/// What a real API server sends to itself at once.
const NOISE: f64 = 8192.0;

const POLL: Duration = Duration::from_millis(10);

pub(super) enum Nodes {
    None,
    Ours { workers: Vec<Worker>, count: u32 },
    KubeProxy { _process: Process, noise: Noise },
}

impl Nodes {
    /// Starts nodes, and waits until they have listed everything.
    pub(super) fn start(kubeconfig: &Path, format: Format, count: u32, slice: &str) -> Self {
        let format = format.to_string();
        let kubeconfig = kubeconfig.to_str().expect("text");
        let starts = (0..count).step_by(NODES_A_PROCESS as usize);
        let workers = starts.map(|first| {
            let nodes = (count - first).min(NODES_A_PROCESS).to_string();
            Worker::start(["fleet-node", kubeconfig, &format, &nodes, slice])
        });
        let mut nodes = Self::Ours {
            workers: workers.collect(),
            count,
        };
        nodes.until("listed");
        nodes
    }

    /// Starts a kube-proxy, and waits until it has listed everything.
    pub(super) fn kube_proxy(program: &str, kubeconfig: &Path, noise: Noise) -> Self {
        let process = Subject::kube_proxy(program, "nftables").start(kubeconfig);
        noise.until_quiet(LISTED);
        Self::KubeProxy {
            _process: process,
            noise,
        }
    }

    pub(super) fn count(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Ours { count, .. } => *count,
            Self::KubeProxy { .. } => 1,
        }
    }

    /// Waits until all nodes have seen an endpoint as the highest of the slice that
    /// changes.
    pub(super) fn until_seen(&mut self, endpoint: Ipv4Addr) {
        self.until(&endpoint.to_string());
    }

    /// Waits until all nodes answer a command with yes.
    fn until(&mut self, command: &str) {
        let (workers, count) = match self {
            Self::None => return,
            Self::KubeProxy { noise, .. } => return noise.until_quiet(CHANGED),
            Self::Ours { workers, count } => (workers, *count),
        };
        let started = Instant::now();
        loop {
            let answers = workers.iter_mut().map(|worker| worker.ask(command));
            let numbers = answers.map(|answer| answer.parse::<u32>().expect("a number"));
            let seen: u32 = numbers.sum();
            if seen == count {
                return;
            }
            let waited = started.elapsed();
            assert!(waited < MAX_TIME, "{seen} of {count} nodes: {command}");
            sleep(POLL);
        }
    }
}

/// What an API server sends while nothing changes, in bytes a second.
#[derive(Clone, Copy)]
pub(super) struct Noise(pub(super) f64);

impl Noise {
    /// Waits until the server has sent nothing for this time, except what it sends to itself.
    fn until_quiet(self, time: Duration) {
        let allowed = NOISE + 2.0 * self.0 * time.as_secs_f64();
        let started = Instant::now();
        loop {
            let before = network::sent();
            sleep(time);
            #[expect(clippy::cast_precision_loss, reason = "less than 2^52 bytes")]
            let sent = (network::sent() - before) as f64;
            if sent < allowed {
                return;
            }
            let waited = started.elapsed();
            assert!(waited < MAX_TIME, "{sent} bytes in {time:?}, not {allowed}");
        }
    }
}
