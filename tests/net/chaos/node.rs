//! The node of a run: its Services, the API server, the daemon, and what is known of them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::daemon::{Daemon, Usage};
use super::history::History;
use super::kernel;
use super::services::{PODS, Shop, UDP_PORT, WEB_PORT};
use crate::api_server::Server;
use crate::lab::http::ask;
use crate::lab::{self, Cluster, DEADLINE, Family, WebServer, manifest, nft, patient};

/// The port at which the daemon reports its status.
const METRICS_PORT: u16 = 10_249;

/// The port of the API server.
const API_PORT: u16 = 6443;

/// The time until the kernel must have the desired state again. kube-dnat follows an etcd that was
/// restored within five minutes.
const REPAIR_DEADLINE: Duration = Duration::from_mins(6);

/// The node, and everything that breaks on it.
pub(super) struct Node<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) server: Server,
    pub(super) daemon: Daemon,
    pub(super) history: History,
    pub(super) shops: Vec<Shop>,
    /// Whether another daemon could not clean up after the last changes.
    pub(super) needs_cleanup: bool,
    fixed: Vec<Value>,
    _servers: Vec<(WebServer, lab::Server)>,
}

impl<'a> Node<'a> {
    /// Starts everything, and waits until the node has its Services.
    pub(super) fn start(cluster: &'a Cluster, random: &mut Rng) -> Self {
        // What no rule translates would be answered by the gateway. In a real network it is lost.
        let silent = "table inet silent { chain c {\n\
                      type filter hook prerouting priority -300; meta l4proto { tcp, udp } drop\n }\n }";
        nft::load(&cluster.gateway.namespace, silent);
        let serve = |pod: &&str| {
            let pod = cluster.pod(pod);
            (WebServer::start(pod, WEB_PORT), pod.serve(UDP_PORT))
        };
        let servers = PODS.iter().map(serve).collect();
        let address = (cluster.client.ip(Family::V4), API_PORT).into();
        let client = &cluster.client.namespace;
        let server = client.run(|| Server::start_at(address));
        let internal_ips = Family::ALL.map(|family| family.lan(2));
        let fixed = manifest::objects(&(manifest::node(&internal_ips) + &manifest::service_cidr()));
        let shops = Shop::all(random);
        let history = History::new();
        history.change(&shops);
        let of_shops = shops.iter().flat_map(|shop| shop.objects(cluster));
        for object in fixed.iter().cloned().chain(of_shops) {
            server.apply(object);
        }
        let daemon = Daemon::start(cluster, &server, random);
        let mut node = Self {
            cluster,
            server,
            daemon,
            history,
            shops,
            needs_cleanup: false,
            fixed,
            _servers: servers,
        };
        node.await_desired();
        node.await_cleanup();
        node
    }

    /// Changes a Service or its endpoints.
    pub(super) fn change(&mut self, random: &mut Rng, change: impl Fn(&mut Shop, &mut Rng)) {
        let number = random.usize(..self.shops.len());
        let before = self.shops[number].clone();
        change(&mut self.shops[number], random);
        self.needs_cleanup |= self.shops[number].has_lost_untraceably(&before);
        self.history.note(&self.shops[number]);
        self.history.change(&self.shops);
        for object in self.shops[number].objects(self.cluster) {
            self.server.apply(object);
        }
    }

    /// Returns to an earlier state of the Services, which the API server restores.
    pub(super) fn go_back(&mut self, shops: Vec<Shop>) {
        self.shops = shops;
        self.history.change(&self.shops);
    }

    /// Waits until the kernel has the desired state; returns the time. Without `cleaned_up`, the next
    /// fault may come before conntrack is cleaned up.
    pub(super) fn settle(&mut self, cleaned_up: bool) -> Duration {
        let repaired = self.await_desired();
        if cleaned_up {
            self.await_cleanup();
        }
        repaired
    }

    /// Waits until no flow can continue to an endpoint that is gone.
    pub(super) fn await_cleanup(&mut self) {
        let begin = Instant::now();
        while !self.is_clean() {
            assert!(
                begin.elapsed() < patient(DEADLINE),
                "conntrack is not cleaned up"
            );
            self.daemon.supervise(self.cluster, &self.server);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.history.settled();
        self.needs_cleanup = false;
    }

    /// Whether the daemon has committed something and says that nothing is left to clean up.
    fn is_clean(&self) -> bool {
        let to = (IpAddr::V4(Ipv4Addr::LOCALHOST), METRICS_PORT);
        // The daemon may have ended.
        let Ok(answer) = ask(&self.cluster.node, to, "GET /debug/status", "") else {
            return false;
        };
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let status: Value = serde_json::from_str(body).expect("JSON");
        status["lastSyncSeconds"].is_f64()
            && status["conntrackCleanupPending"] == Value::Bool(false)
    }

    /// Waits until the kernel has the desired state; returns the time.
    pub(super) fn await_desired(&mut self) -> Duration {
        let shops = self
            .shops
            .iter()
            .flat_map(|shop| shop.objects(self.cluster));
        let objects: Vec<_> = self.fixed.iter().cloned().chain(shops).collect();
        let desired = kernel::desired(&objects);
        let begin = Instant::now();
        loop {
            let found = kernel::found(&self.cluster.node.namespace);
            if found.as_ref() == Some(&desired) {
                return begin.elapsed();
            }
            if begin.elapsed() > patient(REPAIR_DEADLINE) {
                self.explain(&desired, &found.unwrap_or_default());
            }
            self.daemon.supervise(self.cluster, &self.server);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails with the difference.
    fn explain(&self, desired: &[String], found: &[String]) -> ! {
        let missing = desired.iter().filter(|line| !found.contains(line));
        let surplus = found.iter().filter(|line| !desired.contains(line));
        panic!(
            "the kernel does not get the desired state\nmissing: {:#?}\nsurplus: {:#?}\n{}",
            missing.collect::<Vec<_>>(),
            surplus.collect::<Vec<_>>(),
            nft::list(&self.cluster.node.namespace),
        );
    }

    pub(super) fn restart_daemon(&mut self, random: &mut Rng) {
        self.daemon.restart(self.cluster, &self.server, random);
    }

    pub(super) fn log_lines(&mut self) -> usize {
        self.daemon.log_lines()
    }

    pub(super) fn usage(&self) -> Usage {
        self.daemon.usage()
    }
}
