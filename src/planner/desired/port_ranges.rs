//! The port ranges of a Service (`kube-dnat.io/port-ranges`), which are like a port of each protocol
//! whose endpoints are all addresses in the slices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::answering::UnusedEndpoints;
use super::claims::port_ranges;
use super::eligible::PortOfSlices;
use super::port::{PortElements, PortSpec, RangesSpec, Selection, SpecialPort};
use super::service_elements::{ElementsBuilder, PortAddresses, closes_removed, routes};
use super::spread::fitting;
use super::{Claim, UnservedReason};
use crate::planner::model::parse::annotation;
use crate::planner::model::{Address, Balance, PortRange, PortRanges, Protocol, ServiceName};

/// Why an address of a Service does not serve the port ranges of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangesProblem {
    /// An older Service has port ranges there, too.
    #[error("the older Service {0} has {1} port ranges there")]
    OlderService(ServiceName, Protocol),
    /// A port in a range is a port of another Service.
    #[error("{0}/{1} is a port of the Service {2} there")]
    PortOfService(u16, Protocol, ServiceName),
    /// The node has the address: node ports and the node's own processes would lose their ports.
    #[error("it is an address of this node")]
    AddressOfNode,
    /// Source ranges restrict the address.
    #[error("loadBalancerSourceRanges restrict it")]
    SourceRanges,
}

/// The name of port ranges, which no port has. It stays when the ranges change, so that a change
/// replaces the elements of the ranges only.
const NAME: &str = "*";

impl<A: Address> ElementsBuilder<'_, A> {
    /// Builds the elements of the port ranges, by protocol.
    pub(super) fn port_ranges(&mut self) -> Vec<PortElements<A>> {
        let Some(ranges) = port_ranges(self.service) else {
            return Vec::new();
        };
        let protocols = ranges.protocols();
        protocols
            .filter_map(|protocol| self.ranges_of(protocol, ranges))
            .collect()
    }

    /// Builds the elements of the ranges of a protocol; `None` if no address serves them.
    fn ranges_of(&mut self, protocol: Protocol, all: &PortRanges) -> Option<PortElements<A>> {
        let service = self.service;
        let ranges: Box<[_]> = all.of(protocol).collect();
        let addresses = self.addresses_of_ranges(protocol, &ranges);
        if !addresses.has_any() {
            return None;
        }
        let mut eligible = self.eligible(PortOfSlices::Any);
        let [internal, external] = routes(service, &eligible);
        let used = [
            (internal, !addresses.cluster.is_empty()),
            (external, addresses.has_external()),
        ];
        let lists = eligible.take_used_lists(used);
        let weights = self.weights(PortOfSlices::Any);
        let selection = Selection::Hashed(Balance::Source);
        let slots = fitting(service, selection, &lists, &weights, &mut self.unserved);
        let Ok(lists) = slots else {
            self.unserved.push(UnservedReason::NoEffect {
                annotation: annotation::PORT_RANGES,
                problem: "the table of all endpoints has too many slots",
            });
            return None;
        };
        let closes = protocol == Protocol::Tcp && closes_removed(service);
        let spec = PortSpec {
            name: NAME.into(),
            protocol,
            port: 0,
            cluster_ips: addresses.cluster,
            external_ips: addresses.external,
            load_balancer_ips: addresses.load_balancer,
            special: Some(Box::new(SpecialPort::PortRanges(RangesSpec {
                ranges,
                has_affinity: service.affinity.is_some(),
            }))),
            refuses_other_ports: self.node.refuses_other_ports(&service.load_balancer_ips),
            node_port: None,
            internal,
            external,
            closes: None,
            no_local_endpoint: self.no_local_endpoint(),
            selection,
            policies: [service.internal_policy, service.external_policy],
        };
        Some(PortElements {
            spec,
            unused: UnusedEndpoints::new(eligible.ready, eligible.draining, &lists),
            lists,
            hairpin: eligible.hairpin.into(),
            closes_others: closes.then(|| self.listed(PortOfSlices::Any)).flatten(),
        })
    }

    /// Selects the addresses that serve the ranges of a protocol, and reports the others.
    fn addresses_of_ranges(
        &mut self,
        protocol: Protocol,
        ranges: &[PortRange],
    ) -> PortAddresses<A> {
        let service = self.service;
        let is_restricted = !service.load_balancer_ips.is_empty() && {
            let ips = service.load_balancer_ips.iter();
            let ips: Vec<_> = ips.filter_map(|ip| A::from_ip(*ip)).collect();
            self.source_ranges(&ips).is_some()
        };
        let mut seen = BTreeSet::new();
        let mut select = |ips: &[IpAddr], is_restricted: bool| -> Box<[A]> {
            let ips = ips.iter().filter_map(|ip| A::from_ip(*ip));
            let new = ips.filter(|address| seen.insert(*address));
            new.filter(|address| {
                let problem = self.ranges_problem(protocol, *address, ranges);
                let restricted = is_restricted.then_some(RangesProblem::SourceRanges);
                let problem = problem.or(restricted);
                let is_served = problem.is_none();
                self.unserved
                    .extend(problem.map(|problem| UnservedReason::NoRanges {
                        protocol,
                        address: (*address).into(),
                        problem,
                    }));
                is_served
            })
            .collect()
        };
        PortAddresses {
            cluster: select(&service.cluster_ips, false),
            load_balancer: select(&service.load_balancer_ips, is_restricted),
            external: select(&service.external_ips, false),
        }
    }

    /// Returns why an address does not serve the ranges of a protocol, whatever their sources.
    fn ranges_problem(
        &self,
        protocol: Protocol,
        address: A,
        ranges: &[PortRange],
    ) -> Option<RangesProblem> {
        let own = &self.service.name;
        let holder = self.claims.holder(&Claim::Ranges(protocol, address));
        if let Some(holder) = holder.filter(|holder| *holder != own) {
            return Some(RangesProblem::OlderService(holder.clone(), protocol));
        }
        if self.node.is_address_of_node(address) {
            return Some(RangesProblem::AddressOfNode);
        }
        let mut ranges = ranges.iter();
        let port = ranges.find_map(|range| self.claims.port_in(own, protocol, address, *range));
        port.map(|(port, holder)| RangesProblem::PortOfService(port, protocol, holder.clone()))
    }
}
