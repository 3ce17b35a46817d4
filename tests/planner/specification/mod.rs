//! The outcome of a connection with kube-proxy, derived from the objects alone; and that of a
//! connection to a port range, which kube-proxy does not have.
//!
//! Sources: `pkg/proxy/topology.go`, `pkg/proxy/nftables/proxier.go`.

mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use kube_dnat::planner::model::{
    Address, Endpoint, EndpointSlice, Event, Object, ObjectKind, Protocol, Service, ServicePort,
    TrafficPolicy,
};

use ranges::{UsedPort, port_ranges};

/// The outcome of a connection that the specification demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// DNAT to one of these endpoints; `true`: the source is masqueraded.
    Translated(BTreeSet<(String, bool)>),
    Rejected,
    Dropped,
    NotTranslated,
}

/// The objects as last reported.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) services: Vec<Service>,
    slices: BTreeMap<String, EndpointSlice>,
    zone: Option<String>,
    pod_cidrs: Vec<ipnet::IpNet>,
    cidrs: Vec<ipnet::IpNet>,
    /// The addresses of the Node object; without it those of the default route.
    node_addresses: Vec<IpAddr>,
}

/// Returns all addresses of a Service in a family.
fn addresses<A: Address>(service: &Service) -> impl Iterator<Item = A> {
    let ips = [
        &service.cluster_ips,
        &service.external_ips,
        &service.load_balancer_ips,
    ];
    ips.into_iter().flatten().filter_map(|ip| A::from_ip(*ip))
}

impl Objects {
    /// Collects the last state of each object.
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut objects = Self::default();
        let (mut of_node, mut of_default_route) = (None, Vec::new());
        for event in events {
            if let Event::OwnAddresses(own) = event {
                of_default_route.clone_from(&own.of_default_route);
            }
            let Event::Update(update) = event else {
                continue;
            };
            let name = update.key.name.to_string();
            match (&update.object, update.key.kind) {
                (Some(Object::Service(service)), _) => objects.services.push((**service).clone()),
                (Some(Object::Slices(slices)), _) => {
                    objects.slices.insert(name, slices[0].clone());
                }
                (Some(Object::Node(node)), _) => {
                    objects.zone = node.zone.as_deref().map(str::to_owned);
                    objects.pod_cidrs.clone_from(&node.pod_cidrs);
                    of_node = Some(node.addresses.clone());
                }
                (Some(Object::ServiceCidr(cidr)), ObjectKind::ServiceCidr) => {
                    objects.cidrs.clone_from(&cidr.cidrs);
                }
                _ => {}
            }
        }
        objects.node_addresses = of_node.unwrap_or(of_default_route);
        // The older of two Services has a frontend that both claim.
        objects.services.sort_by_key(|service| {
            (
                service.created.is_none(),
                service.created,
                service.name.clone(),
            )
        });
        objects
    }

    fn exists<A: Address>(service: &Service) -> bool {
        service
            .cluster_ips
            .iter()
            .any(|ip| A::from_ip(*ip).is_some())
    }

    fn has<A: Address>(ips: &[IpAddr], address: A) -> bool {
        ips.iter().any(|ip| A::from_ip(*ip) == Some(address))
    }

    /// Returns every frontend, every port and node port at this address of the node, and the first and
    /// last port of every range.
    pub(crate) fn destinations<A: Address>(&self, own: Option<A>) -> BTreeSet<(Protocol, A, u16)> {
        let mut all = BTreeSet::new();
        for service in &self.services {
            for ip in addresses(service).chain(own) {
                for port in &service.ports {
                    let numbers = [Some(port.port), port.node_port].into_iter().flatten();
                    all.extend(numbers.map(|number| (port.protocol, ip, number)));
                }
                for protocol in Protocol::ALL {
                    let ranges = port_ranges(service).into_iter();
                    let ranges = ranges.flat_map(|ranges| ranges.of(protocol));
                    let ends = ranges.flat_map(|range| [range.first(), range.last()]);
                    all.extend(ends.map(|number| (protocol, ip, number)));
                }
            }
        }
        all
    }

    /// Returns the Service and port that have a frontend.
    ///
    /// At an address of the node, an older Service with the port as node port has it.
    fn owner<A: Address>(
        &self,
        node: &OfNode<A>,
        protocol: Protocol,
        address: A,
        port: u16,
    ) -> Option<(&Service, &ServicePort)> {
        let (age, service, service_port) = self.oldest(|service| {
            let has = addresses::<A>(service).any(|ip| ip == address);
            let mut ports = service.ports.iter();
            let port = ports.find(|own| own.protocol == protocol && own.port == port)?;
            (has && Self::exists::<A>(service)).then_some(port)
        })?;
        let at_node = node.primary_ip == Some(address);
        let node_port = self.node_port_claim::<A>(protocol, port);
        let is_older = node_port.is_some_and(|(other_age, ..)| other_age < age);
        (!(at_node && is_older)).then_some((service, service_port))
    }

    /// Returns the Service and port that have a node port.
    fn node_port_owner<A: Address>(
        &self,
        protocol: Protocol,
        number: u16,
    ) -> Option<(&Service, &ServicePort)> {
        let (_, service, port) = self.node_port_claim::<A>(protocol, number)?;
        Some((service, port?))
    }

    /// Returns the Service with this port at the node's addresses.
    ///
    /// The port is `None` if it is a health check's.
    fn node_port_claim<A: Address>(
        &self,
        protocol: Protocol,
        number: u16,
    ) -> Option<(usize, &Service, Option<&ServicePort>)> {
        self.oldest(|service| {
            let mut ports = service.ports.iter();
            let port = ports.find(|own| own.protocol == protocol && own.node_port == Some(number));
            let checks =
                protocol == Protocol::Tcp && service.health_check_node_port == Some(number);
            ((port.is_some() || checks) && Self::exists::<A>(service)).then_some(port)
        })
    }

    /// Returns the oldest Service for which `find` returns something.
    fn oldest<'a, T>(
        &'a self,
        find: impl Fn(&'a Service) -> Option<T>,
    ) -> Option<(usize, &'a Service, T)> {
        let mut by_age = self.services.iter().enumerate();
        by_age.find_map(|(age, service)| Some((age, service, find(service)?)))
    }

    /// Returns whether an address is of a Pod on this node.
    ///
    /// Its Pods are in the Node's podCIDRs, unless a local endpoint is outside of them.
    fn is_own_pod<A: Address>(&self, pods: A::Net, address: A) -> bool {
        let cidrs: Vec<_> = self
            .pod_cidrs
            .iter()
            .filter_map(|cidr| A::from_net(*cidr))
            .filter(|cidr| A::contains(pods, A::bounds(*cidr).0))
            .collect();
        let is_in = |address| cidrs.iter().any(|cidr| A::contains(*cidr, address));
        let slices = self.slices.values();
        let endpoints = slices.flat_map(|slice| A::endpoints(&slice.addresses).unwrap_or_default());
        let mut here = endpoints.filter(|endpoint| endpoint.is_local());
        let known = !cidrs.is_empty()
            && here.all(|endpoint| is_in(endpoint.address) || !A::contains(pods, endpoint.address));
        A::contains(pods, address) && (!known || is_in(address))
    }

    fn in_cidrs<A: Address>(&self, address: A) -> bool {
        let mut nets = self.cidrs.iter().filter_map(|cidr| A::from_net(*cidr));
        nets.any(|net| A::contains(net, address))
    }

    /// Returns the endpoints of a port or range.
    ///
    /// If slices disagree, an endpoint takes precedence that does not terminate, is ready, serves;
    /// then the latest; then the one on this node.
    fn endpoints<A: Address>(
        &self,
        service: &Service,
        port: UsedPort<'_>,
    ) -> BTreeMap<(A, u16), Endpoint<A>> {
        type Listed<A> = (Endpoint<A>, Option<i64>);
        let mut merged: BTreeMap<(A, u16), Listed<A>> = BTreeMap::new();
        for slice in self.slices.values() {
            let counts =
                slice.service == service.name && (!service.has_selector || !slice.mirrored);
            let Some(addresses) = A::endpoints(&slice.addresses).filter(|_| counts) else {
                continue;
            };
            for number in port.numbers(slice) {
                for endpoint in addresses
                    .iter()
                    .filter(|endpoint| !self.in_cidrs(endpoint.address))
                {
                    let known = merged.get(&(endpoint.address, number));
                    let rank = |(one, triggered): &Listed<A>| {
                        let conditions = (!one.terminating, one.ready, one.serving);
                        let place = (one.is_local(), one.may_be_local());
                        (conditions, *triggered, place, one.topology.clone())
                    };
                    let listed = (endpoint.clone(), slice.triggered);
                    if known.is_none_or(|known| rank(&listed) > rank(known)) {
                        merged.insert((endpoint.address, number), listed);
                    }
                }
            }
        }
        let merged = merged.into_iter();
        merged.map(|(key, (endpoint, _))| (key, endpoint)).collect()
    }

    /// Returns the endpoints for policy Cluster and Local, and the addresses that may hairpin.
    fn lists<A: Address>(&self, service: &Service, port: UsedPort<'_>) -> Lists<A> {
        let all = self.endpoints::<A>(service, port);
        let ready: Vec<_> = all.iter().filter(|(_, endpoint)| endpoint.ready).collect();
        let hints = |endpoint: &Endpoint<A>| endpoint.hints().cloned().unwrap_or_default();
        let zone = self.zone.clone();
        let is_for_our_zone = |endpoint: &Endpoint<A>| {
            let zones = hints(endpoint).zones;
            zone.as_deref()
                .is_some_and(|zone| zones.iter().any(|own| &**own == zone))
        };
        let by_node = ready.iter().all(|(_, endpoint)| hints(endpoint).has_nodes)
            && ready
                .iter()
                .any(|(_, endpoint)| hints(endpoint).has_this_node);
        let by_zone = ready
            .iter()
            .all(|(_, endpoint)| !hints(endpoint).zones.is_empty())
            && ready.iter().any(|(_, endpoint)| is_for_our_zone(endpoint));
        let near = |endpoint: &Endpoint<A>| {
            if by_node {
                hints(endpoint).has_this_node
            } else {
                !by_zone || is_for_our_zone(endpoint)
            }
        };
        let still = |endpoint: &Endpoint<A>| endpoint.serving && endpoint.terminating;
        let of = |keep: &dyn Fn(&Endpoint<A>) -> bool| -> BTreeSet<(A, u16)> {
            let kept = all.iter().filter(|(_, endpoint)| keep(endpoint));
            kept.map(|(key, _)| *key).collect()
        };
        let or =
            |first: BTreeSet<_>, second: BTreeSet<_>| if first.is_empty() { second } else { first };
        let cluster = or(of(&|endpoint| endpoint.ready && near(endpoint)), of(&still));
        let local = or(
            of(&|endpoint| endpoint.is_local() && endpoint.ready),
            of(&|endpoint| endpoint.is_local() && still(endpoint)),
        );
        let may_be_local = of(&|endpoint| endpoint.may_be_local());
        let weights = service.features.as_ref();
        let weights = weights.and_then(|features| features.weights.as_ref());
        let has_weight = |(address, port): &(A, u16)| {
            let topology = all[&(*address, *port)].topology.as_deref();
            weights.is_none_or(|weights| weights.of((*address).into(), topology) > 0)
        };
        let weighed =
            |list: BTreeSet<_>| or(list.iter().copied().filter(has_weight).collect(), list);
        Lists {
            hairpin: may_be_local
                .into_iter()
                .filter(|key| cluster.contains(key) || local.contains(key))
                .map(|(address, _)| address)
                .collect(),
            cluster: weighed(cluster),
            local: weighed(local),
        }
    }
}

struct Lists<A> {
    cluster: BTreeSet<(A, u16)>,
    local: BTreeSet<(A, u16)>,
    hairpin: BTreeSet<A>,
}

/// The addresses of the node.
pub(crate) struct OfNode<A: Address> {
    pub(crate) primary_ip: Option<A>,
    pub(crate) pods: A::Net,
}

impl Objects {
    /// Returns whether an address is the `ClusterIP` of a frontend or of port ranges.
    fn is_cluster_ip<A: Address>(&self, node: &OfNode<A>, address: A) -> bool {
        let of_ranges = Protocol::ALL.into_iter().any(|protocol| {
            let served = self.ranges_at(node, protocol, address);
            served.is_some_and(|(service, _)| Self::has(&service.cluster_ips, address))
        });
        of_ranges
            || self.services.iter().any(|service| {
                Self::has(&service.cluster_ips, address)
                    && service.ports.iter().any(|port| {
                        let owner = self.owner(node, port.protocol, address, port.port);
                        owner.is_some_and(|(owner, _)| owner.name == service.name)
                    })
            })
    }

    /// Returns the addresses that may connect to themselves.
    fn hairpins<A: Address>(&self, node: &OfNode<A>) -> BTreeSet<A> {
        let mut hairpins = BTreeSet::new();
        for service in self
            .services
            .iter()
            .filter(|service| Self::exists::<A>(service))
        {
            for port in &service.ports {
                let mut ips = addresses(service);
                let is_own = |owner: Option<(&Service, &ServicePort)>| {
                    owner.is_some_and(|(owner, _)| owner.name == service.name)
                };
                let has = ips.any(|ip| is_own(self.owner(node, port.protocol, ip, port.port)))
                    || port.node_port.is_some_and(|number| {
                        is_own(self.node_port_owner::<A>(port.protocol, number))
                    });
                if has {
                    hairpins.extend(self.lists::<A>(service, UsedPort::Of(port)).hairpin);
                }
            }
            let has_ranges = Protocol::ALL.into_iter().any(|protocol| {
                addresses(service).any(|ip| {
                    let served = self.ranges_at(node, protocol, ip);
                    served.is_some_and(|(owner, _)| owner.name == service.name)
                })
            });
            if has_ranges {
                hairpins.extend(self.lists::<A>(service, UsedPort::InRange(0)).hairpin);
            }
        }
        hairpins
    }

    fn denied(is_cluster_ip: bool) -> Expected {
        if is_cluster_ip {
            Expected::Rejected
        } else {
            Expected::Dropped
        }
    }

    /// Returns what a connection uses, and whether it is at an address of the Service.
    fn used<A: Address>(
        &self,
        node: &OfNode<A>,
        (protocol, address, port): (Protocol, A, u16),
    ) -> Option<(&Service, UsedPort<'_>, bool)> {
        let at_address = self.owner(node, protocol, address, port);
        let at_node = || {
            let owner = self.node_port_owner::<A>(protocol, port);
            owner.filter(|_| node.primary_ip == Some(address))
        };
        let in_range = || {
            let owner = self.range_owner(node, (protocol, address, port))?;
            Some((owner, UsedPort::InRange(port), true))
        };
        let at_address = at_address.map(|(service, own)| (service, UsedPort::Of(own), true));
        let at_node = || at_node().map(|(service, own)| (service, UsedPort::Of(own), false));
        at_address.or_else(at_node).or_else(in_range)
    }

    /// Returns the outcome of a connection.
    pub(crate) fn expected<A: Address>(
        &self,
        node: &OfNode<A>,
        source: A,
        (protocol, address, port): (Protocol, A, u16),
    ) -> Expected {
        let from_node = node.primary_ip == Some(source);
        let from_pod = A::contains(node.pods, source);
        let hairpins = self.hairpins(node);
        let is_cluster_ip = self.is_cluster_ip(node, address);
        let denied = Self::denied(is_cluster_ip);
        let used = self.used(node, (protocol, address, port));
        let Some((service, own, at_address)) = used else {
            let reserved = is_cluster_ip || self.in_cidrs(address);
            return if reserved && node.primary_ip != Some(address) {
                denied
            } else {
                Expected::NotTranslated
            };
        };
        let masquerades_first = self.is_in_external_range(node, (protocol, address, port));
        let served = |endpoints: &BTreeSet<(A, u16)>, masquerade: bool| {
            // The rule of the ClusterIP comes first, whichever Service has the frontend.
            let masquerade = if is_cluster_ip {
                !from_pod || (masquerade && masquerades_first)
            } else {
                masquerade
            };
            let of = endpoints.iter().map(|(ip, number)| {
                let itself = *ip == source && hairpins.contains(ip);
                let at = SocketAddr::new((*ip).into(), *number);
                (at.to_string(), masquerade || itself)
            });
            Expected::Translated(of.collect())
        };
        let lists = self.lists::<A>(service, own);
        let own_pod = self.is_own_pod(node.pods, source);
        if at_address && Self::has(&service.cluster_ips, address) {
            return match service.internal_policy {
                _ if lists.cluster.is_empty() => Expected::Rejected,
                TrafficPolicy::Cluster => served(&lists.cluster, !from_pod),
                TrafficPolicy::Local if lists.local.is_empty() => Expected::Dropped,
                TrafficPolicy::Local => served(&lists.local, !from_pod),
            };
        }
        if at_address && Self::has(&service.load_balancer_ips, address) {
            let ranges: Vec<_> = service
                .source_ranges
                .iter()
                .filter_map(|net| A::from_net(*net))
                .collect();
            let contains = |ip: A| ranges.iter().any(|net| A::contains(*net, ip));
            let contains_node = node.primary_ip.is_some_and(contains);
            // Packets of the node to a load-balancer IP may have such an IP as their source.
            let itself = contains_node && Self::has(&service.load_balancer_ips, source);
            if !ranges.is_empty() && !contains(source) && !itself {
                return denied;
            }
        }
        match service.external_policy {
            _ if lists.cluster.is_empty() => Expected::Rejected,
            TrafficPolicy::Cluster => served(&lists.cluster, true),
            TrafficPolicy::Local if own_pod => served(&lists.cluster, from_node),
            TrafficPolicy::Local if from_node => served(&lists.cluster, true),
            TrafficPolicy::Local if lists.local.is_empty() => Expected::Dropped,
            TrafficPolicy::Local => served(&lists.local, false),
        }
    }
}

impl Objects {
    /// Returns the endpoints that a client may keep at a destination, and the timeout in seconds.
    ///
    /// `None` without session affinity. Source ranges are ignored. `own`: the client is the node
    /// itself.
    pub(crate) fn keeps<A: Address>(
        &self,
        node: &OfNode<A>,
        (source, own): (A, bool),
        (protocol, address, port): (Protocol, A, u16),
    ) -> Option<(BTreeSet<(A, u16)>, u32)> {
        let by_address = self.owner(node, protocol, address, port);
        let by_node_port = self
            .node_port_owner::<A>(protocol, port)
            .filter(|_| node.primary_ip == Some(address));
        let (service, of_service) = by_address.or(by_node_port)?;
        let lists = self.lists::<A>(service, UsedPort::Of(of_service));
        let is_cluster_ip = by_address.is_some() && Self::has(&service.cluster_ips, address);
        let inside = own || self.is_own_pod(node.pods, source);
        let policy = if is_cluster_ip {
            service.internal_policy
        } else {
            service.external_policy
        };
        let list = match policy {
            _ if lists.cluster.is_empty() => BTreeSet::new(),
            TrafficPolicy::Cluster => lists.cluster,
            TrafficPolicy::Local if inside && !is_cluster_ip => lists.cluster,
            TrafficPolicy::Local => lists.local,
        };
        Some((list, service.affinity?))
    }
}

/// Endpoints, each with whether the rules use it, and whether it terminates.
type Answering<A> = Vec<((A, u16), bool, bool)>;

impl Objects {
    /// Returns the endpoints that answer at a destination; `None`: no Service has it.
    pub(crate) fn answering<A: Address>(
        &self,
        node: &OfNode<A>,
        protocol: Protocol,
        (address, port): (A, u16),
    ) -> Option<Answering<A>> {
        let (service, own, at_address) = self.used(node, (protocol, address, port))?;
        let is_cluster_ip = at_address && Self::has(&service.cluster_ips, address);
        let lists = self.lists::<A>(service, own);
        let used = |endpoint: &(A, u16)| {
            let (cluster, local) = (
                lists.cluster.contains(endpoint),
                lists.local.contains(endpoint),
            );
            match (
                is_cluster_ip,
                service.internal_policy,
                service.external_policy,
            ) {
                (true, TrafficPolicy::Cluster, _) | (false, _, TrafficPolicy::Cluster) => cluster,
                (true, TrafficPolicy::Local, _) => local,
                (false, _, TrafficPolicy::Local) => cluster || local,
            }
        };
        let all = self.endpoints::<A>(service, own).into_iter();
        let answer = all.filter(|(_, endpoint)| endpoint.ready || endpoint.serving);
        let answer = answer.map(|(key, endpoint)| (key, used(&key), !endpoint.ready));
        Some(answer.collect())
    }
}
