//! The elements of one Service in the table of one family.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::answering::{ListedEndpoints, UnusedEndpoints};
use super::eligible::{PortOfSlices, in_any_state, listed_addresses, weighted};
use super::port::{PortElements, PortSpec, Route, SpecialPort};
use super::spread::{PortWeights, spread};
use super::{
    Claim, Claims, EligibleEndpoints, NodeElements, RangesProblem, Slots, cluster_ips, eligible,
    health_check_claim,
};
use crate::planner::model::parse::annotation;
use crate::planner::model::{
    Address, EndpointSlice, NewEndpoints, NoLocalEndpoint, Protocol, Service, ServiceName,
    ServicePort, Store, TrafficPolicy,
};
use crate::planner::ruleset::Element;

/// The elements of one Service: its ports with their frontends and endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceElements<A: Address> {
    /// The ports, in the Service's order.
    pub ports: Box<[PortElements<A>]>,
}

impl<A: Address> Default for ServiceElements<A> {
    fn default() -> Self {
        Self {
            ports: Box::default(),
        }
    }
}

/// The numbers of Service ports that drop connections because this node has no endpoint of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocalEndpoints {
    /// The ports that drop connections to their `ClusterIPs`.
    pub internal: usize,
    /// The ports that drop external connections to their other frontends.
    pub external: usize,
}

/// The reason why a part of a valid Service is not programmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnservedReason {
    /// An older Service claims the same frontend.
    #[error("{frontend} is in use by the older Service {holder}")]
    Contested {
        /// The contested frontend, such as `10.96.0.1:80/tcp`.
        frontend: String,
        /// The Service that has the frontend.
        holder: ServiceName,
    },
    /// An endpoint is a `ClusterIP` or in a `ServiceCIDR`: the kernel translates a connection once.
    #[error("the endpoint {address} is ignored: it is a ClusterIP, or in a ServiceCIDR")]
    ClusterIpAsEndpoint {
        /// The lowest such address.
        address: IpAddr,
    },
    /// A port has more endpoints than slots. The text omits their number, which changes often.
    #[error("only {} of its endpoints are used", Slots::<Ipv4Addr>::MAX)]
    TooManyEndpoints,
    /// An annotation that the endpoints of the Service contradict.
    #[error("annotation {annotation} has no effect: {problem}")]
    NoEffect {
        /// The name of the annotation.
        annotation: &'static str,
        /// The problem, in words that do not change with each endpoint.
        problem: &'static str,
    },
    /// An address does not serve the port ranges of a protocol.
    #[error(
        "annotation {} has no effect for {protocol} at {address}: {problem}",
        annotation::PORT_RANGES
    )]
    NoRanges {
        /// The protocol of the ranges.
        protocol: Protocol,
        /// The address of the Service.
        address: IpAddr,
        /// The problem.
        problem: RangesProblem,
    },
    /// An endpoint on this node is outside the configured Pod ranges.
    #[error(
        "the endpoint {address} is on this node but outside the Pod ranges, so its connections \
         count as external; check --cluster-cidr and --detect-local-mode"
    )]
    OutsidePodRanges {
        /// The lowest such address.
        address: IpAddr,
    },
}

/// The two lists of endpoints of a port, with their slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSlots<A> {
    /// The endpoints for policy Cluster.
    pub cluster: Slots<A>,
    /// The endpoints for policy Local.
    pub local: Slots<A>,
}

impl<A> Default for PortSlots<A> {
    fn default() -> Self {
        Self {
            cluster: Slots::default(),
            local: Slots::default(),
        }
    }
}

/// Derives the elements of a Service, and the reasons for the parts that are not programmed.
///
/// Slots are assigned in the order of the endpoints; [`ServiceElements::keep_slots_of`] keeps
/// those of an earlier version. Takes time linear in the Service and its endpoints.
#[must_use]
pub fn service_elements<A: Address>(
    service: &Service,
    store: &Store,
    claims: &Claims<A>,
    node: &NodeElements<A>,
) -> (ServiceElements<A>, Vec<UnservedReason>) {
    // kube-proxy's `ServicePortMap` skips it, too.
    if cluster_ips::<A>(service).next().is_none() {
        return (ServiceElements::default(), Vec::new());
    }
    let slices: Vec<_> = store.slices(service).collect();
    let zone = store.node().and_then(|node| node.zone.as_deref());
    let mut builder = ElementsBuilder {
        service,
        slices: &slices,
        listed_addresses: closes_removed(service)
            .then(|| listed_addresses(&slices))
            .flatten(),
        new_endpoints: store.new_endpoints(&service.name),
        zone,
        claims,
        node,
        unserved: Vec::new(),
    };
    let ports = service.ports.iter();
    let mut ports: Vec<_> = ports.filter_map(|port| builder.port(port)).collect();
    ports.extend(builder.port_ranges());
    if let Some(claim) = health_check_claim(service) {
        builder.has_named_claim(claim, |frontend| format!("the health check at {frontend}"));
    }
    builder.check_pod_ranges();
    let ports = ports.into();
    (ServiceElements { ports }, builder.unserved)
}

/// A builder of the elements of one Service, which collects what is not programmed.
pub(super) struct ElementsBuilder<'a, A: Address> {
    /// The Service.
    pub(super) service: &'a Service,
    /// The slices that apply to the Service.
    slices: &'a [&'a EndpointSlice],
    /// The addresses in the slices, if connections to all others are closed.
    listed_addresses: Option<Arc<[A]>>,
    /// The new endpoints, whose shares grow.
    new_endpoints: Option<&'a NewEndpoints>,
    /// The zone of this node.
    zone: Option<&'a str>,
    /// The holders of frontends.
    pub(super) claims: &'a Claims<A>,
    /// The addresses of the node.
    pub(super) node: &'a NodeElements<A>,
    /// The reasons for parts that are not programmed, so far.
    pub(super) unserved: Vec<UnservedReason>,
}

/// The addresses of a Service that serve a port.
pub(super) struct PortAddresses<A> {
    /// The `ClusterIPs`.
    pub(super) cluster: Box<[A]>,
    /// The load-balancer IPs.
    pub(super) load_balancer: Box<[A]>,
    /// The external IPs.
    pub(super) external: Box<[A]>,
}

impl<A> PortAddresses<A> {
    /// Returns whether there is an external or load-balancer IP.
    pub(super) fn has_external(&self) -> bool {
        !self.external.is_empty() || !self.load_balancer.is_empty()
    }

    /// Returns whether there is any address.
    pub(super) fn has_any(&self) -> bool {
        !self.cluster.is_empty() || self.has_external()
    }
}

impl<A: Address> ElementsBuilder<'_, A> {
    /// Builds the elements of a port; `None` if all its frontends belong to older Services.
    fn port(&mut self, port: &ServicePort) -> Option<PortElements<A>> {
        let service = self.service;
        let mut seen = BTreeSet::new();
        let addresses = PortAddresses {
            cluster: self.addresses(port, &service.cluster_ips, &mut seen),
            // An address that is both is a load-balancer IP: its source ranges must apply.
            load_balancer: self.addresses(port, &service.load_balancer_ips, &mut seen),
            external: self.addresses(port, &service.external_ips, &mut seen),
        };
        let node_port = port
            .node_port
            .filter(|number| self.has_claim(Claim::Nodeport(port.protocol, *number)));
        if !addresses.has_any() && node_port.is_none() {
            return None;
        }
        let slice_port = PortOfSlices::Of(port);
        let mut eligible = self.eligible(slice_port);
        let [internal, external] = routes(service, &eligible);
        let used = [
            (internal, !addresses.cluster.is_empty()),
            (external, addresses.has_external() || node_port.is_some()),
        ];
        let lists = eligible.take_used_lists(used);
        let spread = spread(service, &lists, &self.weights(slice_port));
        self.unserved.extend(spread.unserved);
        let (selection, lists) = (spread.selection, spread.lists);
        let closes = port.protocol == Protocol::Tcp && closes_removed(service);
        let unused = UnusedEndpoints::new(eligible.ready, eligible.draining, &lists);
        let spec = PortSpec {
            name: Arc::clone(&port.name),
            protocol: port.protocol,
            port: port.port,
            special: self
                .source_ranges(&addresses.load_balancer)
                .map(|ranges| Box::new(SpecialPort::SourceRanges(ranges))),
            cluster_ips: addresses.cluster,
            external_ips: addresses.external,
            load_balancer_ips: addresses.load_balancer,
            refuses_other_ports: self.node.refuses_other_ports(&service.load_balancer_ips),
            node_port,
            internal,
            external,
            // A hash sends a connection that comes from another node to the same endpoint.
            closes: (closes && selection.balance().is_none()).then(|| self.node.tcp_pickup()),
            no_local_endpoint: self.no_local_endpoint(),
            selection,
            policies: [service.internal_policy, service.external_policy],
        };
        Some(PortElements {
            spec,
            lists,
            hairpin: eligible.hairpin.into(),
            unused,
            closes_others: closes.then(|| self.listed(slice_port)).flatten(),
        })
    }

    /// Returns the endpoints in the slices, if connections to all others are closed.
    pub(super) fn listed(&self, port: PortOfSlices<'_>) -> Option<Arc<ListedEndpoints<A>>> {
        let addresses = self.listed_addresses.clone()?;
        let of_port = in_any_state(port, self.slices);
        Some(Arc::new(ListedEndpoints { of_port, addresses }))
    }

    /// Returns the answer to outside clients without a local endpoint: the Service's, or the node's.
    pub(super) fn no_local_endpoint(&self) -> NoLocalEndpoint {
        let features = self.service.features.as_ref();
        let of_service = features.and_then(|features| features.no_local_endpoint);
        of_service.unwrap_or_else(|| self.node.no_local_endpoint())
    }

    /// Sorts the endpoints of a port by policy, and ignores those that are `ClusterIPs`.
    pub(super) fn eligible(&mut self, port: PortOfSlices<'_>) -> EligibleEndpoints<A> {
        let cluster_ip = Cell::new(None);
        let eligible = eligible(port, self.slices, self.zone, |address| {
            let is_cluster_ip =
                self.claims.is_cluster_ip(address) || self.node.is_in_service_cidrs(address);
            if is_cluster_ip && cluster_ip.get().is_none_or(|lowest| address < lowest) {
                cluster_ip.set(Some(address));
            }
            !is_cluster_ip
        });
        if let Some(address) = cluster_ip.get() {
            self.unserved.push(UnservedReason::ClusterIpAsEndpoint {
                address: address.into(),
            });
        }
        eligible
    }

    /// Returns the weights of the endpoints of a port.
    pub(super) fn weights(&self, port: PortOfSlices<'_>) -> PortWeights<A> {
        let features = self.service.features.as_ref();
        let weights = features.and_then(|features| features.weights.as_ref());
        let weighted = |new| weighted(port, self.slices, weights, new);
        PortWeights {
            whole: weights.map(|_| weighted(None)),
            growing: self.new_endpoints.map(|new| weighted(Some(new))),
        }
    }

    /// Reports an endpoint on this node whose address is outside the Pod ranges.
    fn check_pod_ranges(&mut self) {
        let lowest_outside = self
            .slices
            .iter()
            .flat_map(|slice| A::endpoints(&slice.addresses).unwrap_or_default())
            .filter(|endpoint| endpoint.is_local())
            .map(|endpoint| endpoint.address)
            .filter(|address| self.node.is_outside_pod_ranges(*address))
            .min();
        if let Some(address) = lowest_outside {
            let address = address.into();
            self.unserved
                .push(UnservedReason::OutsidePodRanges { address });
        }
    }

    /// Returns whether the Service has a frontend that it claims; reports the holder otherwise.
    fn has_claim(&mut self, claim: Claim<A>) -> bool {
        self.has_named_claim(claim, |frontend| frontend)
    }

    /// Returns whether the Service has a frontend that it claims, and names it so in the report.
    ///
    /// Another Service may hold it as a node port, or as a frontend at an address of the node.
    fn has_named_claim(&mut self, claim: Claim<A>, name: impl Fn(String) -> String) -> bool {
        // The Service does not exist in this family if nothing holds its claim.
        let Some(holder) = self.claims.holder(&claim) else {
            return false;
        };
        if *holder != self.service.name {
            self.push_contested(name(claim.to_string()), holder.clone());
            return false;
        }
        match claim {
            Claim::Frontend(protocol, address, port) if self.node.is_node_ip(address) => {
                let node_port = Claim::Nodeport(protocol, port);
                let older = self.claims.older_holder(self.service, &node_port).cloned();
                if let Some(older) = &older {
                    self.push_contested(name(claim.to_string()), older.clone());
                }
                older.is_none()
            }
            Claim::Frontend(..) | Claim::Ranges(..) => true,
            Claim::Nodeport(protocol, port) => {
                for address in self.node.node_ips() {
                    let frontend = Claim::Frontend(protocol, address, port);
                    if let Some(older) = self.claims.older_holder(self.service, &frontend) {
                        let address: IpAddr = address.into();
                        self.push_contested(name(format!("{claim} at {address}")), older.clone());
                    }
                }
                true
            }
        }
    }

    /// Reports that another Service has a frontend.
    fn push_contested(&mut self, frontend: String, holder: ServiceName) {
        self.unserved
            .push(UnservedReason::Contested { frontend, holder });
    }

    /// Selects the addresses of this family where the Service has the port.
    fn addresses(
        &mut self,
        port: &ServicePort,
        ips: &[IpAddr],
        seen: &mut BTreeSet<A>,
    ) -> Box<[A]> {
        ips.iter()
            .filter_map(|ip| A::from_ip(*ip))
            .filter(|address| seen.insert(*address))
            .filter(|address| self.has_claim(Claim::Frontend(port.protocol, *address, port.port)))
            .collect()
    }

    /// Returns the sources that may use the load-balancer IPs; `None`: all.
    ///
    /// A range of all addresses, or ranges of only the other family, do not restrict this family
    /// (kube-proxy's `TestLoadBalancer`). If a range contains this node, the load-balancer IPs are
    /// added: packets of the node to such an address may have it as their source.
    pub(super) fn source_ranges(&self, load_balancer_ips: &[A]) -> Option<Box<[A::Net]>> {
        let mut ranges: Vec<_> = self
            .service
            .source_ranges
            .iter()
            .filter_map(|range| A::from_net(*range))
            .collect();
        let allows_all =
            ranges.is_empty() || ranges.iter().any(|range| A::is_default_route(*range));
        if allows_all || load_balancer_ips.is_empty() {
            return None;
        }
        let node = self.node.primary_ip();
        if node.is_some_and(|ip| ranges.iter().any(|range| A::contains(*range, ip))) {
            ranges.extend(load_balancer_ips.iter().map(|ip| A::host_net(*ip)));
        }
        Some(A::aggregate(&ranges).into())
    }
}

/// Returns whether TCP connections to removed endpoints of a Service are closed.
pub(super) fn closes_removed(service: &Service) -> bool {
    let features = service.features.as_ref();
    features.is_some_and(|features| features.close_removed)
}

/// Returns the routes of connections to the `ClusterIPs` and to the other frontends of a port.
pub(super) fn routes<A: Address>(service: &Service, eligible: &EligibleEndpoints<A>) -> [Route; 2] {
    let has_endpoints = eligible.has_any();
    let internal = match service.internal_policy {
        _ if !has_endpoints => Route::Reject,
        TrafficPolicy::Cluster => Route::Cluster,
        TrafficPolicy::Local if eligible.local.is_empty() => Route::Drop,
        TrafficPolicy::Local => Route::Local,
    };
    let external = match service.external_policy {
        _ if !has_endpoints => Route::Reject,
        TrafficPolicy::Cluster => Route::Cluster,
        TrafficPolicy::Local => Route::LocalPolicy,
    };
    [internal, external]
}

impl<A: Address> ServiceElements<A> {
    /// Reassigns the slots of each port so that as few as possible differ from those `before`.
    ///
    /// The slots that a hash selects from stay: they follow from the endpoints alone.
    pub fn keep_slots_of<'a>(
        &mut self,
        before: impl Fn(&PortElements<A>) -> Option<Cow<'a, PortSlots<A>>>,
    ) {
        for port in &mut self.ports {
            if port.spec.selection.balance().is_some() {
                continue;
            }
            let Some(lists_before) = before(port) else {
                continue;
            };
            let PortSlots { cluster, local } = std::mem::take(&mut port.lists);
            port.lists = PortSlots {
                cluster: cluster.keep_slots_of(&lists_before.cluster),
                local: local.keep_slots_of(&lists_before.local),
            };
        }
    }

    /// Counts the ports that have endpoints on other nodes but none that their policy Local allows.
    #[must_use]
    pub fn without_local_endpoints(&self) -> WithoutLocalEndpoints {
        let count =
            |is: fn(&PortElements<A>) -> bool| self.ports.iter().filter(|port| is(port)).count();
        WithoutLocalEndpoints {
            internal: count(|port| port.spec.internal == Route::Drop),
            external: count(|port| {
                port.spec.external == Route::LocalPolicy && port.lists.local.is_empty()
            }),
        }
    }

    /// Returns the lists of the port with the same name and protocol.
    #[must_use]
    pub fn lists_of(&self, port: &PortElements<A>) -> Option<&PortSlots<A>> {
        self.same_port(port).map(|same| &same.lists)
    }

    /// Returns the port with the same name and protocol.
    pub(super) fn same_port(&self, port: &PortElements<A>) -> Option<&PortElements<A>> {
        self.ports.iter().find(|same| {
            same.spec.name == port.spec.name && same.spec.protocol == port.spec.protocol
        })
    }

    /// Returns the elements of this Service, sorted by set and key, without duplicates.
    #[must_use]
    pub fn elements(&self, service: &ServiceName) -> Vec<Element<A>> {
        in_order(|elements| {
            for port in &self.ports {
                port.push_elements(service, elements);
            }
        })
    }

    /// Returns the elements without some that `other` has, too.
    ///
    /// If only endpoints differ, this takes time linear in them and returns few elements that do
    /// not differ. An element that is omitted here is also omitted if the two are swapped.
    #[must_use]
    pub fn changed_elements(&self, other: &Self, service: &ServiceName) -> Vec<Element<A>> {
        let ports = || self.ports.iter().zip(&other.ports);
        let differs_in_endpoints_only =
            |(port, other): (&PortElements<A>, _)| port.differs_in_endpoints_only(other);
        if self.ports.len() != other.ports.len() || !ports().all(differs_in_endpoints_only) {
            return self.elements(service);
        }
        // Ports share the elements of their endpoints' addresses: write those of all ports or none.
        let has_moved = ports().any(|(port, other)| port.hairpin != other.hairpin);
        in_order(|elements| {
            for (port, other) in ports() {
                port.push_changed_slots(other, service, elements);
                if has_moved {
                    port.push_hairpin(elements);
                }
            }
        })
    }
}

/// Collects elements, sorts them and removes duplicates.
fn in_order<A: Address>(push: impl FnOnce(&mut Vec<Element<A>>)) -> Vec<Element<A>> {
    let mut elements = Vec::new();
    push(&mut elements);
    elements.sort_unstable();
    elements.dedup();
    elements
}
