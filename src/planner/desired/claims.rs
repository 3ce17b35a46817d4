//! Who has which frontend. Two Services may claim one; the older keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::planner::model::{Address, Protocol, Service, ServiceName};
use crate::planner::ruleset::{Key, SetName};

/// Something that only one Service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim<A> {
    /// An address with a port.
    Frontend(Protocol, A, u16),
    /// A port of the node's own addresses: a node port, or where a health check is answered.
    Nodeport(Protocol, u16),
}

impl<A> Claim<A> {
    /// What two claims of one address of the node have in common.
    #[must_use]
    pub fn number(&self) -> (Protocol, u16) {
        match *self {
            Self::Frontend(protocol, _, port) | Self::Nodeport(protocol, port) => (protocol, port),
        }
    }

    /// Its protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match *self {
            Self::Frontend(protocol, ..) | Self::Nodeport(protocol, _) => protocol,
        }
    }
}

impl<A: Address> fmt::Display for Claim<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frontend(protocol, address, port) => {
                let address: std::net::IpAddr = (*address).into();
                write!(
                    f,
                    "{}/{protocol}",
                    std::net::SocketAddr::new(address, *port)
                )
            }
            Self::Nodeport(protocol, port) => write!(f, "node port {port}/{protocol}"),
        }
    }
}

impl<A: Address> Claim<A> {
    /// Whose element it is: who has this claim.
    #[must_use]
    pub fn of_element(set: SetName, key: &Key<A>) -> Option<Self> {
        match (*key, set) {
            (
                Key::Frontend(protocol, address, port)
                | Key::Slot(protocol, address, port, _)
                | Key::SourceRange(protocol, address, port, _),
                _,
            )
            | (
                Key::AddressPort(address, port),
                SetName::External(protocol) | SetName::Sticky(protocol),
            ) => Some(Self::Frontend(protocol, address, port)),
            (Key::Nodeport(protocol, port) | Key::NodeportSlot(protocol, port, _), _)
            | (
                Key::Port(port),
                SetName::ExternalNodeports(protocol) | SetName::StickyNodeports(protocol),
            ) => Some(Self::Nodeport(protocol, port)),
            _ => None,
        }
    }
}

/// The order in which Services get what they claim: older first, then by name. Hand-made Services
/// without a creation time come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClaimRank {
    undated: bool,
    created: Option<i64>,
    name: ServiceName,
}

impl ClaimRank {
    fn of(service: &Service) -> Self {
        Self {
            undated: service.created.is_none(),
            created: service.created,
            name: service.name.clone(),
        }
    }
}

/// The claims of all Services of one family.
#[derive(Debug)]
pub struct Claims<A> {
    holders: HashMap<Claim<A>, ClaimRank>,
    /// Who would have a claim if its holder gave it up; only contested claims are here.
    waiting: BTreeMap<Claim<A>, BTreeSet<ClaimRank>>,
    /// How many Services have each `ClusterIP`.
    cluster_ips: HashMap<A, usize>,
    /// How many Services have each address, of whatever kind.
    addresses: HashMap<A, usize>,
}

impl<A> Default for Claims<A> {
    fn default() -> Self {
        Self {
            holders: HashMap::new(),
            waiting: BTreeMap::new(),
            cluster_ips: HashMap::new(),
            addresses: HashMap::new(),
        }
    }
}

/// The addresses of a Service that are of family `A`; none if it has no `ClusterIP` of it: such a
/// Service does not exist for that family (kube-proxy's `ServicePortMap` skips it).
fn addresses<A: Address>(service: &Service) -> impl Iterator<Item = A> {
    let exists = service
        .cluster_ips
        .iter()
        .any(|ip| A::from_ip(*ip).is_some());
    let all = service.cluster_ips.iter();
    let all = all.chain(&service.external_ips);
    let all = all.chain(&service.load_balancer_ips);
    all.filter_map(move |ip| A::from_ip(*ip).filter(|_| exists))
}

/// What the `healthCheckNodePort` of a Service claims.
#[must_use]
pub fn health_check_claim<A>(service: &Service) -> Option<Claim<A>> {
    let port = service.health_check_node_port?;
    Some(Claim::Nodeport(Protocol::Tcp, port))
}

/// The `ClusterIPs` of a Service that are of family `A`.
pub fn cluster_ips<A: Address>(service: &Service) -> impl Iterator<Item = A> {
    service.cluster_ips.iter().filter_map(|ip| A::from_ip(*ip))
}

/// What a Service claims in family `A`, whether it gets it or not.
#[must_use]
pub fn claims<A: Address>(service: &Service) -> BTreeSet<Claim<A>> {
    let mut claims = BTreeSet::new();
    for address in addresses::<A>(service) {
        claims.extend(health_check_claim(service));
        for port in &service.ports {
            claims.insert(Claim::Frontend(port.protocol, address, port.port));
            if let Some(node_port) = port.node_port {
                claims.insert(Claim::Nodeport(port.protocol, node_port));
            }
        }
    }
    claims
}

/// Takes in that a Service had these addresses and has those.
fn count<A: Address>(
    counts: &mut HashMap<A, usize>,
    before: impl IntoIterator<Item = A>,
    after: impl IntoIterator<Item = A>,
) {
    for address in after {
        *counts.entry(address).or_insert(0) += 1;
    }
    for address in before {
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

impl<A: Address> Claims<A> {
    /// Takes in that a Service was `before` and is `after`; returns the other Services that won or lost
    /// something by it, or wait for something that another has now. Linear in the Service and in those.
    pub fn update(
        &mut self,
        before: Option<&Service>,
        after: Option<&Service>,
    ) -> BTreeSet<ServiceName> {
        let mut others = BTreeSet::new();
        let of = |service: Option<&Service>| -> BTreeSet<A> {
            service.into_iter().flat_map(addresses).collect()
        };
        count(&mut self.addresses, of(before), of(after));
        let of = |service: Option<&Service>| -> Vec<A> {
            service.into_iter().flat_map(cluster_ips).collect()
        };
        count(&mut self.cluster_ips, of(before), of(after));
        let of = |service: Option<&Service>| -> BTreeSet<(Claim<A>, ClaimRank)> {
            let ranked = |service: &Service| {
                let rank = ClaimRank::of(service);
                let claims = claims(service).into_iter();
                claims.map(move |claim| (claim, rank.clone()))
            };
            service.into_iter().flat_map(ranked).collect()
        };
        let (had, has) = (of(before), of(after));
        for (claim, rank) in had.difference(&has) {
            self.give_up(*claim, rank, &mut others);
        }
        for (claim, rank) in has.difference(&had) {
            self.take(*claim, rank, &mut others);
        }
        for service in [before, after].into_iter().flatten() {
            others.remove(&service.name);
        }
        others
    }

    /// Adds who gets it instead, and who waits for it: they name its holder.
    fn give_up(&mut self, claim: Claim<A>, rank: &ClaimRank, others: &mut BTreeSet<ServiceName>) {
        let mut waiting = self.waiting.remove(&claim).unwrap_or_default();
        if self.holders.get(&claim) == Some(rank) {
            self.holders.remove(&claim);
            others.extend(waiting.iter().map(|rank| rank.name.clone()));
            if let Some(next) = waiting.pop_first() {
                self.holders.insert(claim, next);
            }
        } else {
            waiting.remove(rank);
        }
        if !waiting.is_empty() {
            self.waiting.insert(claim, waiting);
        }
    }

    /// Adds who lost it, and who waits for it: they name its holder.
    fn take(&mut self, claim: Claim<A>, rank: &ClaimRank, others: &mut BTreeSet<ServiceName>) {
        let Some(holder) = self.holders.get_mut(&claim) else {
            self.holders.insert(claim, rank.clone());
            return;
        };
        let waiting = self.waiting.entry(claim).or_default();
        if rank < holder {
            waiting.insert(std::mem::replace(holder, rank.clone()));
            others.extend(waiting.iter().map(|rank| rank.name.clone()));
        } else {
            waiting.insert(rank.clone());
        }
    }

    /// Whether a Service has it as a `ClusterIP`.
    #[must_use]
    pub fn is_cluster_ip(&self, address: A) -> bool {
        self.cluster_ips.contains_key(&address)
    }

    /// Whether a Service has it, as whatever kind of address.
    #[must_use]
    pub fn is_service_ip(&self, address: A) -> bool {
        self.addresses.contains_key(&address)
    }

    /// Who has it.
    #[must_use]
    pub fn holder(&self, claim: &Claim<A>) -> Option<&ServiceName> {
        self.holders.get(claim).map(|rank| &rank.name)
    }

    /// The older Service that has this port of an address of the node, where `service` claims the port
    /// too: one as a frontend, the other as a node port.
    #[must_use]
    pub fn rival(&self, service: &Service, claim: &Claim<A>) -> Option<&ServiceName> {
        let holder = self.holders.get(claim)?;
        let is_older = holder.name != service.name && *holder < ClaimRank::of(service);
        is_older.then_some(&holder.name)
    }

    /// The Services that have a port with one of these numbers at one of these addresses of the node, as
    /// a frontend or as a node port. Linear in the numbers, times the addresses.
    #[must_use]
    pub fn with_numbers(
        &self,
        numbers: &BTreeSet<(Protocol, u16)>,
        node_ips: &BTreeSet<A>,
    ) -> BTreeSet<ServiceName> {
        let claims = numbers.iter().flat_map(|(protocol, port)| {
            let frontend = |ip| Claim::Frontend(*protocol, ip, *port);
            let frontends = node_ips.iter().copied().map(frontend);
            frontends.chain([Claim::Nodeport(*protocol, *port)])
        });
        let holders = claims.filter_map(|claim| self.holder(&claim));
        holders.cloned().collect()
    }

    /// The numbers of the frontends at these addresses. Linear in what exists.
    #[must_use]
    pub fn numbers_at(&self, addresses: &BTreeSet<A>) -> BTreeSet<(Protocol, u16)> {
        if addresses.is_empty() {
            return BTreeSet::new();
        }
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered set")]
        let claims = self.holders.keys();
        let is_there = |claim: &&Claim<A>| matches!(claim, Claim::Frontend(_, address, _) if addresses.contains(address));
        claims.filter(is_there).map(Claim::number).collect()
    }
}
