//! The port ranges of Services (`docs/beyond-kube-proxy.md#port-ranges`).

use kube_dnat::planner::model::{
    Address, EndpointSlice, PortRange, PortRanges, Protocol, Service, ServicePort,
};

use super::{Objects, OfNode, addresses};

/// What a connection uses of a Service.
#[derive(Clone, Copy)]
pub(super) enum UsedPort<'a> {
    /// A port of the Service.
    Of(&'a ServicePort),
    /// A port in one of its ranges, which the endpoints have, too.
    InRange(u16),
}

impl UsedPort<'_> {
    /// Returns the ports of the endpoints in a slice.
    pub(super) fn numbers(self, slice: &EndpointSlice) -> Vec<u16> {
        match self {
            Self::Of(port) => {
                let ports = slice.ports.iter();
                let ports =
                    ports.filter(|own| own.name == port.name && own.protocol == port.protocol);
                ports.map(|own| own.port).collect()
            }
            Self::InRange(number) => vec![number],
        }
    }
}

/// Returns the port ranges of a Service.
pub(super) fn port_ranges(service: &Service) -> Option<&PortRanges> {
    service.features.as_ref()?.port_ranges.as_ref()
}

impl Objects {
    /// Returns the Service with a destination in its port ranges, also if it is one of its ports.
    pub(super) fn range_owner<A: Address>(
        &self,
        node: &OfNode<A>,
        (protocol, address, port): (Protocol, A, u16),
    ) -> Option<&Service> {
        let (service, ranges) = self.ranges_at(node, protocol, address)?;
        let is_in = ranges.iter().any(|range| range.contains(port));
        is_in.then_some(service)
    }

    /// Returns whether a port range has a destination that is no ClusterIP of its Service.
    ///
    /// The rules of these ranges come before those of ClusterIPs.
    pub(super) fn is_in_external_range<A: Address>(
        &self,
        node: &OfNode<A>,
        (protocol, address, port): (Protocol, A, u16),
    ) -> bool {
        let owner = self.range_owner(node, (protocol, address, port));
        owner.is_some_and(|owner| !Self::has(&owner.cluster_ips, address))
    }

    /// Returns the Service whose port ranges of a protocol an address serves, and these ranges.
    pub(super) fn ranges_at<A: Address>(
        &self,
        node: &OfNode<A>,
        protocol: Protocol,
        address: A,
    ) -> Option<(&Service, Vec<PortRange>)> {
        let has = |service: &Service| {
            Self::exists::<A>(service) && addresses::<A>(service).any(|ip| ip == address)
        };
        let (_, service, ranges) = self.oldest(|service| {
            let ranges: Vec<_> = port_ranges(service)?.of(protocol).collect();
            (has(service) && !ranges.is_empty()).then_some(ranges)
        })?;
        let is_in = |port: u16| ranges.iter().any(|range| range.contains(port));
        let holder = |port: &ServicePort| {
            let has_port = |service: &&Service| {
                let mut own = service.ports.iter();
                has(service) && own.any(|own| (own.protocol, own.port) == (protocol, port.port))
            };
            self.services.iter().find(has_port)
        };
        let ports = self.services.iter().flat_map(|service| &service.ports);
        let mut ports = ports.filter(|port| port.protocol == protocol && is_in(port.port));
        let is_taken = ports.any(|port| holder(port).is_some_and(|own| own.name != service.name));
        let of_node =
            node.primary_ip == Some(address) || self.node_addresses.contains(&address.into());
        let is_restricted = !Self::has(&service.cluster_ips, address)
            && Self::has(&service.load_balancer_ips, address)
            && Self::has_source_ranges::<A>(service);
        (!is_taken && !of_node && !is_restricted).then_some((service, ranges))
    }

    /// Returns whether `loadBalancerSourceRanges` exclude any source of a family.
    fn has_source_ranges<A: Address>(service: &Service) -> bool {
        let ranges = service.source_ranges.iter();
        let ranges: Vec<_> = ranges.filter_map(|net| A::from_net(*net)).collect();
        !ranges.is_empty() && !ranges.iter().any(|range| A::is_default_route(*range))
    }
}
