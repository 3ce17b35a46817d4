//! What one Service puts into the table of one family.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::answering::UnusedEndpoints;
use super::port::{PortElements, PortSpec, Route};
use super::{
    Claim, Claims, EligibleEndpoints, EndpointAddr, NodeElements, Slots, cluster_ips, eligible,
    health_check_claim,
};
use crate::planner::model::{
    Address, EndpointSlice, Service, ServiceName, ServicePort, Store, TrafficPolicy,
};
use crate::planner::ruleset::{Comment, Element};

/// What a Service puts into the table: its ports, each with its frontends and endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceElements<A: Address> {
    /// The ports, in the Service's order.
    pub ports: Vec<PortElements<A>>,
}

/// Ports of Services that drop connections for want of an endpoint on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocalEndpoints {
    /// To `ClusterIPs`.
    pub internal: usize,
    /// To other frontends, from outside.
    pub external: usize,
}

/// Why a part of a valid Service is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnservedReason {
    /// An older Service has what it claims.
    #[error("{frontend} is taken by the older Service {holder}")]
    Contested {
        /// The frontend, as an operator writes it.
        frontend: String,
        /// Who has it.
        holder: ServiceName,
    },
    /// An endpoint is a `ClusterIP`, or in the range of `ClusterIPs`: the kernel translates a
    /// connection once.
    #[error("the endpoint {address} is not used: it is a ClusterIP, or in a ServiceCIDR")]
    ClusterIpAsEndpoint {
        /// The first such address.
        address: IpAddr,
    },
    /// It has more endpoints than there are slots. How many would be said again at each change.
    #[error("only {} of its endpoints are used", Slots::<Ipv4Addr>::MAX)]
    TooManyEndpoints,
    /// An endpoint on this node is not where its Pods are said to be.
    #[error(
        "the endpoint {address} is on this node but outside the ranges of Pods, by which what a Pod sends \
         counts as from outside: are --cluster-cidr and --detect-local-mode right?"
    )]
    OutsidePodRanges {
        /// The first such address.
        address: IpAddr,
    },
}

/// The slots of a port: of its own list and, for external policy Local, of all endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLists<A> {
    /// The list that policy Cluster uses.
    pub cluster: Slots<A>,
    /// The list that policy Local uses.
    pub local: Slots<A>,
}

impl<A> Default for EndpointLists<A> {
    fn default() -> Self {
        Self {
            cluster: Slots::default(),
            local: Slots::default(),
        }
    }
}

/// What `service` puts into the table, given what is in the store, who has which frontend, and what
/// is known of the node; and what of it is not served. The slots are those of a fresh start: see
/// [`ServiceElements::assign_stable`]. Linear in the Service.
#[must_use]
pub fn service_elements<A: Address>(
    service: &Service,
    store: &Store,
    claims: &Claims<A>,
    node: &NodeElements<A>,
) -> (ServiceElements<A>, Vec<UnservedReason>) {
    // kube-proxy's `ServicePortMap` skips it, too.
    if cluster_ips::<A>(service).next().is_none() {
        return (ServiceElements { ports: Vec::new() }, Vec::new());
    }
    let slices: Vec<_> = store.slices(service).collect();
    let zone = store.node().and_then(|node| node.zone.as_deref());
    let mut builder = ElementsBuilder {
        service,
        slices: &slices,
        zone,
        claims,
        node,
        not_served: Vec::new(),
    };
    let ports = service.ports.iter();
    let ports = ports.filter_map(|port| builder.port(port)).collect();
    if let Some(claim) = health_check_claim(service) {
        builder.won_as(claim, |at| format!("the health check at {at}"));
    }
    builder.look_for_strays();
    (ServiceElements { ports }, builder.not_served)
}

struct ElementsBuilder<'a, A: Address> {
    service: &'a Service,
    slices: &'a [&'a EndpointSlice],
    zone: Option<&'a str>,
    claims: &'a Claims<A>,
    node: &'a NodeElements<A>,
    not_served: Vec<UnservedReason>,
}

impl<A: Address> ElementsBuilder<'_, A> {
    fn port(&mut self, port: &ServicePort) -> Option<PortElements<A>> {
        let service = self.service;
        let mut seen = BTreeSet::new();
        let cluster_ips = self.addresses(port, &service.cluster_ips, &mut seen);
        // An address that is both is a load-balancer IP: its source ranges must hold.
        let load_balancer_ips = self.addresses(port, &service.load_balancer_ips, &mut seen);
        let external_ips = self.addresses(port, &service.external_ips, &mut seen);
        let node_port = port.node_port;
        let node_port =
            node_port.filter(|number| self.won(Claim::Nodeport(port.protocol, *number)));
        let external =
            !external_ips.is_empty() || !load_balancer_ips.is_empty() || node_port.is_some();
        if cluster_ips.is_empty() && !external {
            return None;
        }
        let eligible = self.eligible(port);
        let any = eligible.any();
        let internal = match service.internal_policy {
            _ if !any => Route::Refuse,
            TrafficPolicy::Cluster => Route::Cluster,
            TrafficPolicy::Local if eligible.local.is_empty() => Route::Drop,
            TrafficPolicy::Local => Route::Local,
        };
        let external_route = match service.external_policy {
            _ if !any => Route::Refuse,
            TrafficPolicy::Cluster => Route::Cluster,
            TrafficPolicy::Local => Route::Split,
        };
        let routes = [
            (internal, !cluster_ips.is_empty()),
            (external_route, external),
        ];
        let uses = |wanted: &[Route]| {
            let mut routes = routes.iter();
            routes.any(|(route, exists)| *exists && wanted.contains(route))
        };
        let lists = EndpointLists {
            cluster: self.slots(eligible.cluster, uses(&[Route::Cluster, Route::Split])),
            local: self.slots(eligible.local, uses(&[Route::Local, Route::Split])),
        };
        let unused = UnusedEndpoints::of(eligible.ready, eligible.draining, &lists);
        let shape = PortSpec {
            comment: Comment::new(&service.name, &port.name),
            protocol: port.protocol,
            port: port.port,
            cluster_ips,
            external_ips,
            source_ranges: self.source_ranges(&load_balancer_ips),
            load_balancer_ips,
            node_port,
            internal,
            external: external_route,
            affinity: service.affinity,
        };
        Some(PortElements {
            shape,
            lists,
            here: eligible.here,
            unused,
        })
    }

    /// The endpoints by who may use them, without those that are `ClusterIPs`.
    fn eligible(&mut self, port: &ServicePort) -> EligibleEndpoints<A> {
        let cluster_ip = Cell::new(None);
        let eligible = eligible(port, self.slices, self.zone, |address| {
            let is_cluster_ip =
                self.claims.is_cluster_ip(address) || self.node.is_in_service_cidrs(address);
            if is_cluster_ip && cluster_ip.get().is_none_or(|known| address < known) {
                cluster_ip.set(Some(address));
            }
            !is_cluster_ip
        });
        if let Some(address) = cluster_ip.get() {
            self.not_served.push(UnservedReason::ClusterIpAsEndpoint {
                address: address.into(),
            });
        }
        eligible
    }

    /// Looks for endpoints on this node that are no Pods by their address.
    fn look_for_strays(&mut self) {
        let slices = self.slices.iter();
        let endpoints = slices.flat_map(|slice| A::endpoints(&slice.addresses).unwrap_or_default());
        let here = endpoints.filter(|endpoint| endpoint.local);
        let outside = here.map(|endpoint| endpoint.address);
        let outside = outside.filter(|address| self.node.is_outside_pod_ranges(*address));
        if let Some(address) = outside.min() {
            let address = address.into();
            self.not_served
                .push(UnservedReason::OutsidePodRanges { address });
        }
    }

    /// Whether the Service has what it claims.
    fn won(&mut self, claim: Claim<A>) -> bool {
        self.won_as(claim, |at| at)
    }

    /// Whether the Service has what it claims, which goes by this name. An older Service may have a node
    /// port, or the frontend of its number at an address of the node.
    fn won_as(&mut self, claim: Claim<A>, name: impl Fn(String) -> String) -> bool {
        // Not of this family, if nobody has it.
        let Some(holder) = self.claims.holder(&claim) else {
            return false;
        };
        if *holder != self.service.name {
            self.contested(name(claim.to_string()), holder.clone());
            return false;
        }
        match claim {
            Claim::Frontend(protocol, address, port) if self.node.is_node_ip(address) => {
                let rival = Claim::Nodeport(protocol, port);
                let rival = self.claims.rival(self.service, &rival).cloned();
                if let Some(rival) = &rival {
                    self.contested(name(claim.to_string()), rival.clone());
                }
                rival.is_none()
            }
            Claim::Frontend(..) => true,
            Claim::Nodeport(protocol, port) => {
                for address in self.node.node_ips() {
                    let rival = Claim::Frontend(protocol, address, port);
                    if let Some(rival) = self.claims.rival(self.service, &rival) {
                        let address: IpAddr = address.into();
                        self.contested(name(format!("{claim} at {address}")), rival.clone());
                    }
                }
                true
            }
        }
    }

    fn contested(&mut self, frontend: String, holder: ServiceName) {
        self.not_served
            .push(UnservedReason::Contested { frontend, holder });
    }

    fn addresses(&mut self, port: &ServicePort, ips: &[IpAddr], seen: &mut BTreeSet<A>) -> Vec<A> {
        let of_family = ips.iter().filter_map(|ip| A::from_ip(*ip));
        of_family
            .filter(|address| seen.insert(*address))
            .filter(|address| self.won(Claim::Frontend(port.protocol, *address, port.port)))
            .collect()
    }

    fn slots(&mut self, endpoints: Vec<EndpointAddr<A>>, used: bool) -> Slots<A> {
        if !used {
            return Slots::default();
        }
        if endpoints.len() > Slots::<A>::MAX {
            self.not_served.push(UnservedReason::TooManyEndpoints);
        }
        Slots::in_order(endpoints)
    }

    /// Who may use the load-balancer IPs; `None`: everyone. A range of everything, and ranges of
    /// the other family only, are no restriction in this one (kube-proxy's `TestLoadBalancer`).
    /// A range with this node in it takes in the IPs themselves: what the node sends to one may
    /// carry it as its source.
    fn source_ranges(&self, load_balancer_ips: &[A]) -> Option<Vec<A::Net>> {
        let ranges = self.service.source_ranges.iter();
        let mut ranges: Vec<_> = ranges.filter_map(|range| A::from_net(*range)).collect();
        let everyone = ranges.is_empty() || ranges.iter().any(|range| A::is_default_route(*range));
        if everyone || load_balancer_ips.is_empty() {
            return None;
        }
        let node = self.node.primary_ip();
        if node.is_some_and(|ip| ranges.iter().any(|range| A::contains(*range, ip))) {
            ranges.extend(load_balancer_ips.iter().map(|ip| A::host_net(*ip)));
        }
        Some(A::aggregate(&ranges))
    }
}

impl<A: Address> ServiceElements<A> {
    /// Gives the endpoints of each port their slots, changing as few as can be of those that
    /// `before` says the port had.
    pub fn assign_stable<'a>(
        &mut self,
        before: impl Fn(&PortElements<A>) -> Option<Cow<'a, EndpointLists<A>>>,
    ) {
        for port in &mut self.ports {
            let Some(had) = before(port) else { continue };
            let EndpointLists { cluster, local } = std::mem::take(&mut port.lists);
            port.lists = EndpointLists {
                cluster: had.cluster.assign_stable(cluster),
                local: had.local.assign_stable(local),
            };
        }
    }

    /// How many ports have endpoints elsewhere but none that their policy Local allows: for
    /// connections to their `ClusterIPs`, and for others.
    #[must_use]
    pub fn without_local_endpoints(&self) -> WithoutLocalEndpoints {
        let count =
            |is: fn(&PortElements<A>) -> bool| self.ports.iter().filter(|port| is(port)).count();
        WithoutLocalEndpoints {
            internal: count(|port| port.shape.internal == Route::Drop),
            external: count(|port| {
                port.shape.external == Route::Split && port.lists.local.is_empty()
            }),
        }
    }

    /// The slots of the port that is called as `port` and has its protocol.
    #[must_use]
    pub fn lists_of(&self, port: &PortElements<A>) -> Option<&EndpointLists<A>> {
        self.same_port(port).map(|own| &own.lists)
    }

    /// The port that is called as `port` and has its protocol.
    pub(super) fn same_port(&self, port: &PortElements<A>) -> Option<&PortElements<A>> {
        let mut ports = self.ports.iter();
        let wanted = &port.shape;
        ports.find(|own| {
            own.shape.comment == wanted.comment && own.shape.protocol == wanted.protocol
        })
    }

    /// The elements, in the order of sets and keys, each key of a set once.
    #[must_use]
    pub fn elements(&self) -> Vec<Element<A>> {
        in_order(|elements| {
            for port in &self.ports {
                port.push_elements(elements);
            }
        })
    }

    /// The elements but for some that `other` has too: where only endpoints differ, in time linear
    /// in them, with few others beside those that differ. What it leaves out of the one it leaves
    /// out of the other.
    #[must_use]
    pub fn changed_elements(&self, other: &Self) -> Vec<Element<A>> {
        let ports = || self.ports.iter().zip(&other.ports);
        let alike = |(port, other): (&PortElements<A>, _)| port.differs_in_endpoints_only(other);
        if self.ports.len() != other.ports.len() || !ports().all(alike) {
            return self.elements();
        }
        // Ports share the addresses of their endpoints: all or none.
        let moved = ports().any(|(port, other)| port.here != other.here);
        in_order(|elements| {
            for (port, other) in ports() {
                port.push_changed_slots(other, elements);
                if moved {
                    port.push_hairpin(elements);
                }
            }
        })
    }
}

fn in_order<A: Address>(push: impl FnOnce(&mut Vec<Element<A>>)) -> Vec<Element<A>> {
    let mut elements = Vec::new();
    push(&mut elements);
    elements.sort_unstable();
    elements.dedup();
    elements
}
