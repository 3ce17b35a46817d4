//! The elements of one Service port.

use std::sync::Arc;

use super::PortSlots;
use super::answering::{ListedEndpoints, UnusedEndpoints};
use super::element_writer::{DispatchedFrontend, ElementWriter, SlotChanges};
use super::frontend::{FrontendKey, SlotKey, maps};
use crate::planner::model::{
    Address, Balance, EndpointSlice, NoLocalEndpoint, PortRange, Protocol, ServiceName,
    TrafficPolicy,
};
use crate::planner::ruleset::{
    AddressKind, Comment, Element, FrontendLabel, Key, SetName, SlotRange, TcpPickup,
};

/// The treatment of new connections to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// To the endpoints that policy Cluster allows.
    Cluster,
    /// To the endpoints that policy Local allows; there is at least one.
    Local,
    /// By source: Pods and the node reach all endpoints, other sources the endpoints on this node.
    ///
    /// This is external policy Local. Without an endpoint on this node, the other sources get the
    /// answer of [`NoLocalEndpoint`].
    LocalPolicy,
    /// Dropped: policy Local, and all endpoints are on other nodes.
    Drop,
    /// Rejected: no endpoint on any node.
    Reject,
}

/// How a rule selects the endpoint of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// At random.
    Random,
    /// The endpoint that the client is pinned to for so many seconds, or one at random.
    Sticky(u32),
    /// By a hash of the connection.
    Hashed(Balance),
}

impl Selection {
    /// Returns the hash; `None`: at random.
    pub(super) fn balance(self) -> Option<Balance> {
        match self {
            Self::Hashed(balance) => Some(balance),
            Self::Random | Self::Sticky(_) => None,
        }
    }

    /// Returns the session affinity timeout in seconds; `None`: no session affinity.
    pub(super) fn affinity(self) -> Option<u32> {
        match self {
            Self::Sticky(seconds) => Some(seconds),
            Self::Random | Self::Hashed(_) => None,
        }
    }
}

/// The elements of one Service port in the table of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortElements<A: Address> {
    /// The port without its endpoints.
    pub(super) spec: PortSpec<A>,
    /// The endpoints and their slots.
    pub(super) lists: PortSlots<A>,
    /// The sorted addresses of the endpoints that may connect to themselves on this node.
    pub(super) hairpin: Box<[A]>,
    /// The endpoints that are in no list but still answer.
    pub(super) unused: UnusedEndpoints<A>,
    /// The sorted endpoints in any state, if connections to all others are closed.
    pub(super) closes_others: Option<Arc<ListedEndpoints<A>>>,
}

/// A Service port without its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortSpec<A: Address> {
    /// The name of the port, empty if it has none.
    pub(super) name: Arc<str>,
    /// The transport protocol.
    pub(super) protocol: Protocol,
    /// The port number at the Service's addresses.
    pub(super) port: u16,
    /// The `ClusterIPs` that no older Service claims.
    pub(super) cluster_ips: Box<[A]>,
    /// The external IPs that no older Service claims.
    pub(super) external_ips: Box<[A]>,
    /// The load-balancer IPs that no older Service claims.
    pub(super) load_balancer_ips: Box<[A]>,
    /// Whether the other ports of the load-balancer IPs are refused.
    pub(super) refuses_other_ports: bool,
    /// What few ports have, behind a pointer since a large cluster has many ports.
    pub(super) special: Option<Box<SpecialPort<A>>>,
    /// The node port, if no older Service claims it.
    pub(super) node_port: Option<u16>,
    /// The route of connections to the `ClusterIPs`.
    pub(super) internal: Route,
    /// The route of connections to the other frontends.
    pub(super) external: Route,
    /// The sets with the frontends whose packets in the middle of an unknown connection are
    /// answered with a RST, if they are.
    pub(super) closes: Option<TcpPickup>,
    /// The answer to outside clients of external policy Local if no endpoint is on this node.
    pub(super) no_local_endpoint: NoLocalEndpoint,
    /// How the endpoint of a new connection is selected.
    pub(super) selection: Selection,
    /// The internal and the external traffic policy, which the routes depend on.
    pub(super) policies: [TrafficPolicy; 2],
}

/// What few ports have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SpecialPort<A: Address> {
    /// The sources that may use the load-balancer IPs.
    SourceRanges(Box<[A::Net]>),
    /// The port stands for the port ranges of its protocol, which are not served at load-balancer IPs
    /// with source ranges. Its number is 0.
    PortRanges(RangesSpec),
}

/// The port ranges of a Service in one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RangesSpec {
    /// The ranges, sorted and disjoint.
    pub(super) ranges: Box<[PortRange]>,
    /// Whether the ports of the Service have session affinity.
    pub(super) has_affinity: bool,
}

impl<A: Address> PortSpec<A> {
    /// Returns the sources that may use the load-balancer IPs; `None`: all.
    pub(super) fn source_ranges(&self) -> Option<&[A::Net]> {
        match self.special.as_deref()? {
            SpecialPort::SourceRanges(ranges) => Some(ranges),
            SpecialPort::PortRanges(_) => None,
        }
    }

    /// Returns the port ranges that the port stands for; `None` for a port of a Service.
    pub(super) fn port_ranges(&self) -> Option<&[PortRange]> {
        Some(&self.ranges_spec()?.ranges)
    }

    /// Returns the number of the port, or the first one of its ranges.
    pub(super) fn first_port(&self) -> u16 {
        let first = self.port_ranges().and_then(<[_]>::first);
        first.map_or(self.port, |range| range.first())
    }

    /// Returns whether the port has endpoints in a slice.
    pub(super) fn has_endpoints_in(&self, slice: &EndpointSlice) -> bool {
        let mut ports = slice.ports.iter();
        self.port_ranges().is_some()
            || ports.any(|port| port.name == self.name && port.protocol == self.protocol)
    }

    fn ranges_spec(&self) -> Option<&RangesSpec> {
        match self.special.as_deref()? {
            SpecialPort::SourceRanges(_) => None,
            SpecialPort::PortRanges(ranges) => Some(ranges),
        }
    }

    /// Returns whether the ports of the Service have session affinity.
    fn is_sticky(&self) -> bool {
        let of_ranges = self.ranges_spec().map(|ranges| ranges.has_affinity);
        of_ranges.unwrap_or(self.selection.affinity().is_some())
    }

    /// Returns the comment of the port's elements. It is not kept: a large cluster has many ports.
    pub(super) fn comment(&self, service: &ServiceName) -> Comment {
        Comment::new(service, &self.name)
    }

    /// Returns the frontend at an address.
    fn at_address(&self, address: A) -> FrontendKey<A> {
        match self.port_ranges() {
            Some(_) => FrontendKey::Ranges(self.protocol, address),
            None => FrontendKey::Frontend(self.protocol, address, self.port),
        }
    }

    /// Returns the frontends at `ClusterIPs`.
    fn internal_frontends(&self) -> impl Iterator<Item = FrontendKey<A>> {
        let addresses = self.cluster_ips.iter();
        addresses.map(|address| self.at_address(*address))
    }

    /// Returns the frontends at external IPs, at load-balancer IPs and at the node port.
    fn external_frontends(&self) -> impl Iterator<Item = FrontendKey<A>> {
        let node_port = self
            .node_port
            .map(|port| FrontendKey::Nodeport(self.protocol, port));
        self.external_ips
            .iter()
            .chain(&self.load_balancer_ips)
            .map(|address| self.at_address(*address))
            .chain(node_port)
    }

    /// Returns the label of a frontend of this port.
    pub(super) fn label(&self, frontend: FrontendKey<A>) -> FrontendLabel {
        let [internal, external] = self.policies;
        let (kind, policy) = match frontend {
            FrontendKey::Nodeport(..) => (AddressKind::NodePort, external),
            FrontendKey::Frontend(_, address, _) | FrontendKey::Ranges(_, address) => {
                if self.cluster_ips.contains(&address) {
                    (AddressKind::ClusterIP, internal)
                } else if self.load_balancer_ips.contains(&address) {
                    (AddressKind::LoadBalancer, external)
                } else {
                    (AddressKind::ExternalIP, external)
                }
            }
        };
        FrontendLabel { kind, policy }
    }

    /// Returns the load-balancer IPs that `loadBalancerSourceRanges` restrict.
    fn restricted(&self) -> &[A] {
        match self.source_ranges() {
            Some(_) => &self.load_balancer_ips,
            None => &[],
        }
    }

    /// Returns every frontend with the route of its connections.
    pub(super) fn frontends(&self) -> impl Iterator<Item = (FrontendKey<A>, Route)> {
        let internal = self.internal_frontends().map(|key| (key, self.internal));
        let external = self.external_frontends().map(|key| (key, self.external));
        internal.chain(external)
    }

    /// Returns every frontend with the map that has its balancing verdict.
    fn dispatched(&self) -> impl Iterator<Item = DispatchedFrontend<A>> {
        self.frontends().map(|(frontend, route)| {
            let map = match frontend {
                FrontendKey::Frontend(_, address, _) if self.restricted().contains(&address) => {
                    SetName::ServicesRestricted
                }
                FrontendKey::Frontend(..) | FrontendKey::Nodeport(..) | FrontendKey::Ranges(..) => {
                    maps(frontend.kind()).dispatch
                }
            };
            DispatchedFrontend {
                frontend,
                route,
                map,
            }
        })
    }

    /// Returns the first frontend that has the slots of one of these lists, with the list.
    ///
    /// All frontends with a list have the same slots, so that reading one of them is enough.
    fn representative(
        &self,
        lists: [(Route, SlotRange); 2],
    ) -> Option<(FrontendKey<A>, SlotRange)> {
        let list_of = |route: Route| {
            let listed = lists.into_iter().find(|(listed, _)| *listed == route);
            listed.map(|(_, list)| list)
        };
        let internal =
            list_of(self.internal).and_then(|list| Some((self.internal_frontends().next()?, list)));
        internal.or_else(|| Some((self.external_frontends().next()?, list_of(self.external)?)))
    }
}

impl<A: Address> PortElements<A> {
    /// Returns the port ranges that the port stands for; `None` for a port of a Service.
    #[must_use]
    pub fn port_ranges(&self) -> Option<&[PortRange]> {
        self.spec.port_ranges()
    }

    /// Returns the map and key of each slot of the list for policy Cluster, if the table has it.
    #[must_use]
    pub fn cluster_slot(&self) -> Option<impl Fn(u32) -> SlotKey<A> + use<A>> {
        let lists = [
            (Route::Cluster, SlotRange::Own),
            (Route::LocalPolicy, SlotRange::Cluster),
        ];
        let (frontend, list) = self.spec.representative(lists)?;
        Some(move |slot| frontend.slot(list, slot))
    }

    /// Returns the map and key of each slot of the list for policy Local, if the table has it.
    #[must_use]
    pub fn local_slot(&self) -> Option<impl Fn(u32) -> SlotKey<A> + use<A>> {
        let lists = [
            (Route::Local, SlotRange::Own),
            (Route::LocalPolicy, SlotRange::Own),
        ];
        let (frontend, list) = self.spec.representative(lists)?;
        Some(move |slot| frontend.slot(list, slot))
    }

    /// Appends all elements of the port, which is one of this Service.
    pub(super) fn push_elements(&self, service: &ServiceName, elements: &mut Vec<Element<A>>) {
        let cluster_ips = self.spec.cluster_ips.iter();
        let set = if self.spec.is_sticky() {
            SetName::ClusterIpsSticky
        } else {
            SetName::ClusterIps
        };
        elements.extend(cluster_ips.map(|ip| Element::shared(set, Key::Address(*ip))));
        if self.spec.refuses_other_ports {
            let ips = self.spec.load_balancer_ips.iter();
            let set = SetName::LoadBalancerIps;
            elements.extend(ips.map(|ip| Element::shared(set, Key::Address(*ip))));
        }
        let mut writer = ElementWriter::new(&self.spec, service, elements);
        for dispatched in self.spec.dispatched() {
            writer.push_route(dispatched, &self.lists);
        }
        for frontend in self.spec.external_frontends() {
            writer.push_masquerading(frontend);
        }
        writer.push_source_ranges();
        for (frontend, _) in self.spec.frontends() {
            writer.push_port_ranges(frontend);
            writer.push_closing(frontend);
        }
        self.push_slots(
            &SlotChanges::all(&self.lists.cluster),
            &SlotChanges::all(&self.lists.local),
            &mut writer,
        );
        self.push_hairpin(elements);
    }

    /// Appends the elements of endpoints that may connect to themselves.
    pub(super) fn push_hairpin(&self, elements: &mut Vec<Element<A>>) {
        let hairpin = self.hairpin.iter();
        elements.extend(hairpin.map(|ip| Element::shared(SetName::Hairpin, Key::Pair(*ip, *ip))));
    }

    /// Returns whether another version of the port differs only in elements of endpoints.
    pub(super) fn differs_in_endpoints_only(&self, other: &Self) -> bool {
        let lists = |port: &Self| [port.lists.cluster.is_empty(), port.lists.local.is_empty()];
        self.spec == other.spec && lists(self) == lists(other)
    }

    /// Appends the slots that `other` does not have, and the verdict if their number differs.
    pub(super) fn push_changed_slots(
        &self,
        other: &Self,
        service: &ServiceName,
        elements: &mut Vec<Element<A>>,
    ) {
        let mut writer = ElementWriter::new(&self.spec, service, elements);
        let cluster = SlotChanges::between(&self.lists.cluster, &other.lists.cluster);
        let local = SlotChanges::between(&self.lists.local, &other.lists.local);
        self.push_slots(&cluster, &local, &mut writer);
    }

    /// Appends the elements of these slots, for every frontend.
    fn push_slots(
        &self,
        cluster: &SlotChanges<A>,
        local: &SlotChanges<A>,
        writer: &mut ElementWriter<'_, A>,
    ) {
        for DispatchedFrontend {
            frontend,
            route,
            map,
        } in self.spec.dispatched()
        {
            let maps = maps(frontend.kind());
            match route {
                Route::Cluster => writer.push_slots(map, frontend, SlotRange::Own, cluster),
                Route::Local => writer.push_slots(map, frontend, SlotRange::Own, local),
                Route::LocalPolicy => {
                    writer.push_slots(maps.cluster, frontend, SlotRange::Cluster, cluster);
                    writer.push_slots(maps.local, frontend, SlotRange::Own, local);
                }
                Route::Drop | Route::Reject => {}
            }
        }
    }
}
