//! The Services of a run, and the endpoints that each of their frontends should reach.

use std::fmt;
use std::net::IpAddr;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::lab::{Cluster, Family, Host, Protocol, Service, Slices, manifest};

/// The Pods of the lab by number: the first three are on node-1.
pub(super) const PODS: [&str; 5] = ["pod-1", "pod-2", "pod-3", "remote-1", "remote-2"];

/// The Pods on node-1, as a set.
const LOCAL: Pods = Pods(0b00111);

/// The port of the web server in each Pod.
pub(super) const WEB_PORT: u16 = 8081;

/// The port of the server of UDP in each Pod.
pub(super) const UDP_PORT: u16 = 8080;

/// The number of Services.
pub(super) const SERVICES: u8 = 6;

/// The ports that a Service can have.
pub(super) const PORTS: [u16; 2] = [80, 81];

/// A set of Pods, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pods(pub(super) u8);

impl Pods {
    /// Returns the set of the Pod with this name.
    pub(super) fn named(name: &str) -> Self {
        let number = PODS.iter().position(|pod| *pod == name);
        Self(number.map_or(0, |number| 1 << number))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, other: Self) -> bool {
        !other.is_empty() && self.0 & other.0 == other.0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn names(self) -> Vec<&'static str> {
        let is_member = |name: &&str| self.contains(Self::named(name));
        PODS.into_iter().filter(is_member).collect()
    }

    fn hosts(self, cluster: &Cluster) -> impl Iterator<Item = &Host> {
        self.names().into_iter().map(|name| cluster.pod(name))
    }

    fn random(random: &mut Rng) -> Self {
        Self(random.u8(..1 << PODS.len()))
    }
}

/// The kind of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Frontend {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancerIp,
}

impl Frontend {
    pub(super) const ALL: [Self; 4] = [
        Self::ClusterIp,
        Self::NodePort,
        Self::ExternalIp,
        Self::LoadBalancerIp,
    ];
}

/// The place of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// A Pod of the cluster, or the node.
    Inside,
    Outside,
}

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) service: u8,
    pub(super) frontend: Frontend,
    pub(super) port: u16,
    pub(super) side: Side,
}

impl Target {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (1..=SERVICES).flat_map(|service| {
            Frontend::ALL.into_iter().flat_map(move |frontend| {
                PORTS.into_iter().flat_map(move |port| {
                    [Side::Inside, Side::Outside].map(|side| Self {
                        service,
                        frontend,
                        port,
                        side,
                    })
                })
            })
        })
    }

    /// Returns the address and port in a family.
    pub(super) fn address(self, family: Family) -> (IpAddr, u16) {
        match self.frontend {
            Frontend::ClusterIp => (family.cluster_ip(self.service), self.port),
            Frontend::NodePort => (family.lan(2), self.node_port()),
            Frontend::ExternalIp => (family.external_ip(self.service), self.port),
            Frontend::LoadBalancerIp => (family.load_balancer_ip(self.service), self.port),
        }
    }

    fn node_port(self) -> u16 {
        30_000 + u16::from(self.service) * 2 + (self.port - PORTS[0])
    }
}

/// The endpoints that may answer at a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// Those of new connections.
    pub(super) new: Pods,
    /// Those that a client of UDP may keep, as with kube-proxy: all that serve, whether they
    /// terminate and whatever the policies are.
    pub(super) old: Pods,
}

/// A Service and its endpoints.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    number: u8,
    frontends: Vec<Frontend>,
    port: u16,
    internal_local: bool,
    external_local: bool,
    affinity: bool,
    ready: Pods,
    /// Those that terminate and still serve.
    terminating: Pods,
}

impl fmt::Display for Shop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = |local: bool| if local { "Local" } else { "Cluster" };
        write!(
            f,
            "shop-{} {:?} port {}, internal {}, external {}, affinity {}, ready {}, terminating {}",
            self.number,
            self.frontends,
            self.port,
            policy(self.internal_local),
            policy(self.external_local),
            self.affinity,
            self.ready.names().join(" "),
            self.terminating.names().join(" "),
        )
    }
}

impl Shop {
    pub(super) fn all(random: &mut Rng) -> Vec<Self> {
        (1..=SERVICES)
            .map(|number| {
                let mut shop = Self {
                    number,
                    frontends: Vec::new(),
                    port: PORTS[0],
                    internal_local: false,
                    external_local: false,
                    affinity: false,
                    ready: Pods::default(),
                    terminating: Pods::default(),
                };
                shop.change_kind(random);
                shop.change_endpoints(random);
                shop
            })
            .collect()
    }

    /// Changes kind, policies and port.
    pub(super) fn change_kind(&mut self, random: &mut Rng) {
        self.frontends = match random.u8(..4) {
            0 => vec![Frontend::ClusterIp],
            1 => vec![Frontend::ClusterIp, Frontend::NodePort],
            2 => vec![Frontend::ClusterIp, Frontend::ExternalIp],
            _ => vec![
                Frontend::ClusterIp,
                Frontend::NodePort,
                Frontend::LoadBalancerIp,
            ],
        };
        self.port = PORTS[usize::from(random.u8(..4) == 0)];
        self.internal_local = random.u8(..4) == 0;
        self.external_local = random.u8(..3) == 0;
        self.affinity = random.u8(..3) == 0;
    }

    /// Changes the endpoints. Most Services have some all the time.
    pub(super) fn change_endpoints(&mut self, random: &mut Rng) {
        self.ready = Pods::random(random);
        if self.ready.is_empty() && random.u8(..4) != 0 {
            self.ready = Pods(1);
        }
        let others = Pods(!self.ready.0 & Pods::random(random).0);
        self.terminating = Pods(others.0 & ((1 << PODS.len()) - 1));
    }

    /// Whether only the daemon that made this change knows which flows it made stale: those of
    /// frontends that the Service lost, and those of endpoints that a node port lost.
    pub(super) fn has_lost_untraceably(&self, before: &Self) -> bool {
        let is_lost = |frontend: &Frontend| !self.frontends.contains(frontend);
        self.port != before.port
            || before.frontends.iter().any(is_lost)
            || before.frontends.contains(&Frontend::NodePort)
    }

    /// Returns the endpoints that may answer a client.
    pub(super) fn reached(&self, target: Target) -> Reached {
        if !self.frontends.contains(&target.frontend) || self.port != target.port {
            return Reached::default();
        }
        let is_internal = target.frontend == Frontend::ClusterIp;
        let only_local = if is_internal {
            self.internal_local
        } else {
            self.external_local && target.side == Side::Outside
        };
        let among = |pods: Pods| if only_local { pods.within(LOCAL) } else { pods };
        let ready = among(self.ready);
        Reached {
            new: if ready.is_empty() {
                among(self.terminating)
            } else {
                ready
            },
            old: self.ready.union(self.terminating),
        }
    }

    /// Returns the objects of the API server.
    pub(super) fn objects(&self, cluster: &Cluster) -> Vec<Value> {
        let name = format!("shop/shop-{}", self.number);
        let policy = |local: bool| json!(if local { "Local" } else { "Cluster" });
        let affinity = if self.affinity { "ClientIP" } else { "None" };
        let mut service = Service::new(&name, self.number)
            .both("http", self.port)
            .spec("internalTrafficPolicy", policy(self.internal_local))
            .spec("sessionAffinity", json!(affinity))
            .spec("selector", json!({ "app": "shop" }));
        if self.frontends.contains(&Frontend::NodePort) {
            let target = Target {
                service: self.number,
                frontend: Frontend::NodePort,
                port: self.port,
                side: Side::Outside,
            };
            service = service.node_port(target.node_port());
        }
        if self.frontends.len() > 1 {
            service = service.spec("externalTrafficPolicy", policy(self.external_local));
        }
        if self.frontends.contains(&Frontend::ExternalIp) {
            service = service.external_ip(self.number);
        }
        if self.frontends.contains(&Frontend::LoadBalancerIp) {
            service = service.load_balancer_ip(self.number);
        }
        let terminating = json!({ "ready": false, "serving": true, "terminating": true });
        let slices = Slices::of(&name)
            .port("http-tcp", Protocol::Tcp, WEB_PORT)
            .port("http-udp", Protocol::Udp, UDP_PORT)
            .ready(self.ready.hosts(cluster))
            .with(self.terminating.hosts(cluster), &terminating);
        manifest::objects(&(service.yaml() + &slices.yaml()))
    }
}
