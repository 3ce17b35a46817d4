//! The holders of frontends: if two Services claim one, the older Service has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use foldhash::HashMap;

use crate::planner::model::{Address, PortRange, PortRanges, Protocol, Service, ServiceName};
use crate::planner::ruleset::{Key, SetName};

/// A frontend that only one Service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim<A> {
    /// An address with a port.
    Frontend(Protocol, A, u16),
    /// A port of the node's own addresses: a node port, or the port of a health check.
    Nodeport(Protocol, u16),
    /// The port ranges at an address. The ports that are frontends take precedence.
    Ranges(Protocol, A),
}

impl<A> Claim<A> {
    /// Returns the protocol and port, which a node port and a frontend at a node address share;
    /// `None` for port ranges.
    #[must_use]
    pub fn protocol_and_port(&self) -> Option<(Protocol, u16)> {
        match *self {
            Self::Frontend(protocol, _, port) | Self::Nodeport(protocol, port) => {
                Some((protocol, port))
            }
            Self::Ranges(..) => None,
        }
    }

    /// Returns the protocol of the frontend.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match *self {
            Self::Frontend(protocol, ..)
            | Self::Nodeport(protocol, _)
            | Self::Ranges(protocol, _) => protocol,
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
            Self::Ranges(protocol, address) => write!(f, "{protocol} port ranges at {address}"),
        }
    }
}

impl<A: Address> Claim<A> {
    /// Returns the claim that an element belongs to.
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
            (Key::AddressPort(address, port), SetName::CloseRemoved(_)) => {
                Some(Self::Frontend(Protocol::Tcp, address, port))
            }
            (Key::Port(port), SetName::CloseRemovedNodeports(_)) => {
                Some(Self::Nodeport(Protocol::Tcp, port))
            }
            (Key::Nodeport(protocol, port) | Key::NodeportSlot(protocol, port, _), _)
            | (
                Key::Port(port),
                SetName::ExternalNodeports(protocol) | SetName::StickyNodeports(protocol),
            ) => Some(Self::Nodeport(protocol, port)),
            (
                Key::Ranges(protocol, address)
                | Key::RangeSlot(protocol, address, _)
                | Key::PortRange(protocol, address, _),
                _,
            ) => Some(Self::Ranges(protocol, address)),
            _ => None,
        }
    }
}

/// The rank of a Service in a contest for a frontend: older Services come first, then by name.
///
/// Services without a creation time, such as those from manifests, come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClaimRank {
    /// Whether the Service has no creation time.
    undated: bool,
    /// The creation time in seconds since 1970.
    created: Option<i64>,
    /// The name of the Service.
    name: ServiceName,
}

impl ClaimRank {
    /// Returns the rank of a Service.
    fn new(service: &Service) -> Self {
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
    /// The Service that has each frontend.
    holders: HashMap<Claim<A>, ClaimRank>,
    /// The other Services that claim each contested frontend.
    contenders: BTreeMap<Claim<A>, BTreeSet<ClaimRank>>,
    /// The number of Services with each `ClusterIP`.
    cluster_ips: HashMap<A, u32>,
    /// The number of Services with each address of any kind.
    addresses: HashMap<A, u32>,
}

impl<A> Default for Claims<A> {
    fn default() -> Self {
        Self {
            holders: HashMap::default(),
            contenders: BTreeMap::new(),
            cluster_ips: HashMap::default(),
            addresses: HashMap::default(),
        }
    }
}

/// Returns the addresses of a Service in family `A`; none if it has no `ClusterIP` of the family.
///
/// Such a Service does not exist in that family (kube-proxy's `ServicePortMap` skips it).
fn addresses<A: Address>(service: &Service) -> impl Iterator<Item = A> {
    let exists = cluster_ips::<A>(service).next().is_some();
    service
        .cluster_ips
        .iter()
        .chain(&service.external_ips)
        .chain(&service.load_balancer_ips)
        .filter_map(move |ip| A::from_ip(*ip).filter(|_| exists))
}

/// Returns the claim of a Service's `healthCheckNodePort`.
#[must_use]
pub fn health_check_claim<A>(service: &Service) -> Option<Claim<A>> {
    let port = service.health_check_node_port?;
    Some(Claim::Nodeport(Protocol::Tcp, port))
}

/// Returns the port ranges of a Service, if it has any.
pub(super) fn port_ranges(service: &Service) -> Option<&PortRanges> {
    service.features.as_ref()?.port_ranges.as_ref()
}

/// Returns the `ClusterIPs` of a Service in family `A`.
pub fn cluster_ips<A: Address>(service: &Service) -> impl Iterator<Item = A> {
    service.cluster_ips.iter().filter_map(|ip| A::from_ip(*ip))
}

/// Returns all claims of a Service in family `A`.
#[must_use]
pub fn claims<A: Address>(service: &Service) -> BTreeSet<Claim<A>> {
    let mut claims = BTreeSet::new();
    let ranges = port_ranges(service);
    for address in addresses::<A>(service) {
        claims.extend(health_check_claim(service));
        let protocols = ranges.into_iter().flat_map(PortRanges::protocols);
        claims.extend(protocols.map(|protocol| Claim::Ranges(protocol, address)));
        for port in &service.ports {
            claims.insert(Claim::Frontend(port.protocol, address, port.port));
            if let Some(node_port) = port.node_port {
                claims.insert(Claim::Nodeport(port.protocol, node_port));
            }
        }
    }
    claims
}

/// Updates the number of Services with each address.
fn update_counts<A: Address>(
    counts: &mut HashMap<A, u32>,
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
    /// Updates the claims of a Service, and returns the other Services that this affects.
    ///
    /// These won or lost a frontend, or claim one that has a new holder. Takes time linear in the
    /// Service and in those.
    pub fn update(
        &mut self,
        before: Option<&Service>,
        after: Option<&Service>,
    ) -> BTreeSet<ServiceName> {
        let mut others = BTreeSet::new();
        let addresses_of = |service: Option<&Service>| -> BTreeSet<A> {
            service.into_iter().flat_map(addresses).collect()
        };
        update_counts(
            &mut self.addresses,
            addresses_of(before),
            addresses_of(after),
        );
        let cluster_ips_of = |service: Option<&Service>| -> Vec<A> {
            service.into_iter().flat_map(cluster_ips).collect()
        };
        update_counts(
            &mut self.cluster_ips,
            cluster_ips_of(before),
            cluster_ips_of(after),
        );
        let claims_of = |service: Option<&Service>| -> BTreeSet<(Claim<A>, ClaimRank)> {
            let ranked = |service: &Service| {
                let rank = ClaimRank::new(service);
                let claims = claims(service).into_iter();
                claims.map(move |claim| (claim, rank.clone()))
            };
            service.into_iter().flat_map(ranked).collect()
        };
        let (old, new) = (claims_of(before), claims_of(after));
        for (claim, rank) in old.difference(&new) {
            self.release(*claim, rank, &mut others);
        }
        for (claim, rank) in new.difference(&old) {
            self.acquire(*claim, rank, &mut others);
        }
        for service in [before, after].into_iter().flatten() {
            others.remove(&service.name);
        }
        others
    }

    /// Returns the Service whose port ranges may have lost or won an address because of a claim.
    fn holder_of_ranges(&self, claim: &Claim<A>) -> Option<&ServiceName> {
        match *claim {
            Claim::Frontend(protocol, address, _) => self.holder(&Claim::Ranges(protocol, address)),
            Claim::Nodeport(..) | Claim::Ranges(..) => None,
        }
    }

    /// Returns the Services with port ranges at one of these addresses.
    #[must_use]
    pub fn holders_of_ranges_at(&self, addresses: &BTreeSet<A>) -> BTreeSet<ServiceName> {
        let claims = addresses
            .iter()
            .flat_map(|address| Protocol::ALL.map(|protocol| Claim::Ranges(protocol, *address)));
        let holders = claims.filter_map(|claim| self.holder(&claim).cloned());
        holders.collect()
    }

    /// Removes a Service's claim; adds the other claimants, whose reports name the holder.
    fn release(&mut self, claim: Claim<A>, rank: &ClaimRank, others: &mut BTreeSet<ServiceName>) {
        others.extend(self.holder_of_ranges(&claim).cloned());
        let mut contenders = self.contenders.remove(&claim).unwrap_or_default();
        if self.holders.get(&claim) == Some(rank) {
            self.holders.remove(&claim);
            others.extend(contenders.iter().map(|rank| rank.name.clone()));
            if let Some(next) = contenders.pop_first() {
                self.holders.insert(claim, next);
            }
        } else {
            contenders.remove(rank);
        }
        if !contenders.is_empty() {
            self.contenders.insert(claim, contenders);
        }
    }

    /// Adds a Service's claim; adds the other claimants if the holder changes.
    fn acquire(&mut self, claim: Claim<A>, rank: &ClaimRank, others: &mut BTreeSet<ServiceName>) {
        others.extend(self.holder_of_ranges(&claim).cloned());
        let Some(holder) = self.holders.get_mut(&claim) else {
            self.holders.insert(claim, rank.clone());
            return;
        };
        let contenders = self.contenders.entry(claim).or_default();
        if rank < holder {
            contenders.insert(std::mem::replace(holder, rank.clone()));
            others.extend(contenders.iter().map(|rank| rank.name.clone()));
        } else {
            contenders.insert(rank.clone());
        }
    }

    /// Returns whether an address is the `ClusterIP` of a Service.
    #[must_use]
    pub fn is_cluster_ip(&self, address: A) -> bool {
        self.cluster_ips.contains_key(&address)
    }

    /// Returns whether an address is of any kind of a Service's addresses.
    #[must_use]
    pub fn is_service_ip(&self, address: A) -> bool {
        self.addresses.contains_key(&address)
    }

    /// Returns the Service that has a frontend.
    #[must_use]
    pub fn holder(&self, claim: &Claim<A>) -> Option<&ServiceName> {
        self.holders.get(claim).map(|rank| &rank.name)
    }

    /// Returns the Service that has a frontend, if it is older than `service`.
    ///
    /// For a node port and a frontend with the same port at an address of the node.
    #[must_use]
    pub fn older_holder(&self, service: &Service, claim: &Claim<A>) -> Option<&ServiceName> {
        let holder = self.holders.get(claim)?;
        let is_older = holder.name != service.name && *holder < ClaimRank::new(service);
        is_older.then_some(&holder.name)
    }

    /// Returns another Service that has a port of a range at an address, and the port.
    #[must_use]
    pub fn port_in(
        &self,
        service: &ServiceName,
        protocol: Protocol,
        address: A,
        range: PortRange,
    ) -> Option<(u16, &ServiceName)> {
        // Most addresses are of one Service.
        let is_shared = self.addresses.get(&address).is_some_and(|count| *count > 1);
        let mut ports = (range.first()..=range.last()).filter(|_| is_shared);
        ports.find_map(|port| {
            let holder = self.holder(&Claim::Frontend(protocol, address, port))?;
            (holder != service).then_some((port, holder))
        })
    }

    /// Returns the Services with one of these ports as node port or at an address of the node.
    ///
    /// Takes time linear in the ports times the addresses.
    #[must_use]
    pub fn holders_of_ports(
        &self,
        ports: &BTreeSet<(Protocol, u16)>,
        node_ips: &BTreeSet<A>,
    ) -> BTreeSet<ServiceName> {
        let claims = ports.iter().flat_map(|(protocol, port)| {
            let frontend = |ip| Claim::Frontend(*protocol, ip, *port);
            let frontends = node_ips.iter().copied().map(frontend);
            frontends.chain([Claim::Nodeport(*protocol, *port)])
        });
        let holders = claims.filter_map(|claim| self.holder(&claim));
        holders.cloned().collect()
    }

    /// Returns the ports of the frontends at these addresses.
    ///
    /// Takes time linear in all frontends.
    #[must_use]
    pub fn ports_at(&self, addresses: &BTreeSet<A>) -> BTreeSet<(Protocol, u16)> {
        if addresses.is_empty() {
            return BTreeSet::new();
        }
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered set")]
        let claims = self.holders.keys();
        let is_at_address = |claim: &&Claim<A>| matches!(claim, Claim::Frontend(_, address, _) if addresses.contains(address));
        claims
            .filter(is_at_address)
            .filter_map(Claim::protocol_and_port)
            .collect()
    }
}
