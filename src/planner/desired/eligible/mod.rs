//! The endpoints that a Service port may use, as kube-proxy's `CategorizeEndpoints` selects them
//! (`pkg/proxy/topology.go`).

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use super::maglev::WeightedEndpoint;
use super::spread::Lists;
use super::{EndpointAddr, Route};
use crate::planner::model::{
    self, Address, EndpointSlice, Hints, NewEndpoints, ServicePort, Weights,
};

/// The endpoints of one Service port by policy; each list is sorted, without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EligibleEndpoints<A> {
    /// For policy Cluster: the ready endpoints that topology allows.
    ///
    /// If no endpoint is ready: those that still serve while they terminate.
    pub cluster: Vec<EndpointAddr<A>>,
    /// For policy Local: the ready endpoints on this node, regardless of topology.
    ///
    /// If none of them is ready: those on this node that still serve while they terminate.
    pub local: Vec<EndpointAddr<A>>,
    /// The addresses of used endpoints that may be on this node and connect to themselves.
    ///
    /// An endpoint without `nodeName` may be: packets from other nodes never have its address.
    pub hairpin: Vec<A>,
    /// All ready endpoints.
    pub ready: Vec<EndpointAddr<A>>,
    /// All endpoints that serve but are not ready.
    pub draining: Vec<EndpointAddr<A>>,
}

impl<A> EligibleEndpoints<A> {
    /// Returns whether any node has a usable endpoint.
    ///
    /// If a policy allows no endpoint, this decides whether connections are dropped or rejected.
    #[must_use]
    pub fn has_any(&self) -> bool {
        // Topology never empties the list, and the fallback has all endpoints that serve.
        !self.cluster.is_empty()
    }
}

impl<A> EligibleEndpoints<A> {
    /// Takes the lists that the routes in use need.
    pub(super) fn take_used_lists(&mut self, routes: [(Route, bool); 2]) -> Lists<A> {
        let uses = |wanted: &[Route]| {
            let mut used = routes.iter().filter(|(_, is_used)| *is_used);
            used.any(|(route, _)| wanted.contains(route))
        };
        let (cluster, local) = (mem::take(&mut self.cluster), mem::take(&mut self.local));
        let if_used = |wanted: &[Route], list| if uses(wanted) { list } else { Vec::new() };
        Lists {
            cluster: if_used(&[Route::Cluster, Route::LocalPolicy], cluster),
            local: if_used(&[Route::Local, Route::LocalPolicy], local),
        }
    }
}

/// The ports in slices that a frontend leads to.
#[derive(Clone, Copy, Debug)]
pub enum PortOfSlices<'a> {
    /// Those with the name and protocol of a Service port.
    Of(&'a ServicePort),
    /// Any, since a connection to a port range keeps its port: an endpoint has the number 0.
    Any,
}

impl PortOfSlices<'_> {
    /// Returns the numbers that the endpoints of a slice have.
    fn numbers(self, slice: &EndpointSlice) -> impl Iterator<Item = u16> {
        let (port, any) = match self {
            Self::Of(port) => (Some(port), None),
            Self::Any => (None, Some(0)),
        };
        let of_port = port.into_iter().flat_map(|port| {
            let ports = slice.ports.iter();
            ports.filter(|own| own.name == port.name && own.protocol == port.protocol)
        });
        of_port.map(|own| own.port).chain(any)
    }
}

/// Sorts the endpoints of a port by policy; `zone` is the zone of this node.
///
/// Addresses for which `is_endpoint` returns `false` are ignored.
#[must_use]
pub fn eligible<A: Address>(
    port: PortOfSlices<'_>,
    slices: &[&EndpointSlice],
    zone: Option<&str>,
    is_endpoint: impl Fn(A) -> bool,
) -> EligibleEndpoints<A> {
    let merged = merge(port, slices, is_endpoint);
    let topology = TopologyHints::new(&merged, zone);
    let still_serves = |endpoint: &model::Endpoint<A>| endpoint.serving && endpoint.terminating;
    let mut cluster = Vec::with_capacity(merged.len());
    let mut on_this_node = Vec::new();
    for merged in &merged {
        let (key, endpoint) = merged;
        if endpoint.ready && topology.allows(endpoint, zone) {
            cluster.push(*key);
        }
        if endpoint.is_local() {
            on_this_node.push(merged);
        }
    }
    if cluster.is_empty() {
        cluster = merged
            .iter()
            .filter(|(_, endpoint)| still_serves(endpoint))
            .map(|(key, _)| *key)
            .collect();
    }
    let mut local: Vec<_> = on_this_node
        .iter()
        .filter(|(_, endpoint)| endpoint.ready)
        .map(|(key, _)| *key)
        .collect();
    if local.is_empty() {
        local = on_this_node
            .iter()
            .filter(|(_, endpoint)| still_serves(endpoint))
            .map(|(key, _)| *key)
            .collect();
    }
    let is_used = |key: &EndpointAddr<A>| {
        [&cluster, &local]
            .iter()
            .any(|list| list.binary_search(key).is_ok())
    };
    let mut hairpin: Vec<_> = merged
        .iter()
        .filter(|(key, endpoint)| endpoint.may_be_local() && is_used(key))
        .map(|((address, _), _)| *address)
        .collect();
    hairpin.dedup();
    let endpoints_where = |condition: fn(&model::Endpoint<A>) -> bool| {
        let matching = merged.iter().filter(|(_, endpoint)| condition(endpoint));
        matching.map(|(key, _)| *key).collect()
    };
    EligibleEndpoints {
        cluster,
        local,
        hairpin,
        ready: endpoints_where(|endpoint| endpoint.ready),
        draining: endpoints_where(|endpoint| endpoint.serving && !endpoint.ready),
    }
}

/// Returns the sorted endpoints of a port, in any state.
pub(super) fn in_any_state<A: Address>(
    port: PortOfSlices<'_>,
    slices: &[&EndpointSlice],
) -> Box<[EndpointAddr<A>]> {
    let merged = merge(port, slices, |_: A| true);
    merged.into_iter().map(|(key, _)| key).collect()
}

/// Returns the sorted addresses in the slices; `None` without a slice of the family, as while one is
/// recreated.
pub(super) fn listed_addresses<A: Address>(slices: &[&EndpointSlice]) -> Option<Arc<[A]>> {
    let of_family = slices
        .iter()
        .filter_map(|slice| A::endpoints(&slice.addresses));
    let mut of_family = of_family.peekable();
    of_family.peek()?;
    let addresses: BTreeSet<_> = of_family
        .flatten()
        .map(|endpoint| endpoint.address)
        .collect();
    Some(addresses.into_iter().collect())
}

/// An endpoint of a port, and its conditions in the slice that takes precedence.
type MergedEndpoint<'a, A> = (EndpointAddr<A>, &'a model::Endpoint<A>);

/// Returns each endpoint once, sorted.
///
/// Slices disagree while an endpoint moves from one to another, or when another Pod gets its
/// address. Then the conditions decide, then the time of the change, then the node; never the name
/// of a slice or the order.
fn merge<'a, A: Address>(
    port: PortOfSlices<'_>,
    slices: &[&'a EndpointSlice],
    is_endpoint: impl Fn(A) -> bool,
) -> Vec<MergedEndpoint<'a, A>> {
    let mut listed: Vec<(MergedEndpoint<'a, A>, Option<i64>)> = Vec::new();
    for slice in slices {
        let Some(addresses) = A::endpoints(&slice.addresses) else {
            continue;
        };
        for number in port.numbers(slice) {
            listed.extend(
                addresses
                    .iter()
                    .filter(|endpoint| is_endpoint(endpoint.address))
                    .map(|endpoint| {
                        let key = (endpoint.address, number);
                        ((key, endpoint), slice.triggered)
                    }),
            );
        }
    }
    listed.sort_by_key(|(((address, port), _), _)| (address.bits(), *port));
    listed.dedup_by(|other, kept| {
        let same = other.0.0 == kept.0.0;
        if same && precedence(other) > precedence(kept) {
            *kept = *other;
        }
        same
    });
    listed.into_iter().map(|(merged, _)| merged).collect()
}

/// Returns the precedence of an endpoint; equal precedence means equal endpoints.
fn precedence<'a, A>(
    ((_, endpoint), triggered): &(MergedEndpoint<'a, A>, Option<i64>),
) -> impl Ord + use<'a, A> {
    let conditions = (!endpoint.terminating, endpoint.ready, endpoint.serving);
    (
        conditions,
        *triggered,
        endpoint.placement,
        endpoint.topology.as_deref(),
    )
}

/// Returns the weight of each endpoint of a port times its share if some are new, sorted by endpoint.
pub(super) fn weighted<A: Address>(
    port: PortOfSlices<'_>,
    slices: &[&EndpointSlice],
    weights: Option<&Weights>,
    new: Option<&NewEndpoints>,
) -> Vec<WeightedEndpoint<A>> {
    let merged = merge(port, slices, |_: A| true).into_iter();
    merged
        .map(|(key, endpoint)| {
            let address = endpoint.address.into();
            let topology = endpoint.topology.as_deref();
            let weight = weights.map_or(Weights::DEFAULT, |weights| weights.of(address, topology));
            (key, weight * new.map_or(1, |new| new.share(address)))
        })
        .collect()
}

/// Returns the sorted addresses of ready endpoints on this node that any of the ports uses.
///
/// Takes time linear in the endpoints times the ports.
pub(super) fn ready_local_addresses<A: Address>(
    ports: &[ServicePort],
    slices: &[&EndpointSlice],
    is_endpoint: impl Fn(A) -> bool,
) -> BTreeSet<A> {
    ports
        .iter()
        .flat_map(|port| merge(PortOfSlices::Of(port), slices, &is_endpoint))
        .filter(|(_, endpoint)| endpoint.is_local() && endpoint.ready)
        .map(|((address, _), _)| address)
        .collect()
}

/// The topology hints that apply to a port (KEP-2433, KEP-3015).
enum TopologyHints {
    /// No hints: a ready endpoint has none, or none names this node or its zone.
    Any,
    /// The hints that name this node.
    SameNode,
    /// The hints that name this node's zone.
    SameZone,
}

impl TopologyHints {
    /// Derives the hints that apply from the ready endpoints.
    fn new<A>(merged: &[MergedEndpoint<'_, A>], zone: Option<&str>) -> Self {
        let ready = || merged.iter().filter(|(_, endpoint)| endpoint.ready);
        let hints = || ready().map(|(_, endpoint)| endpoint.hints());
        let all = |has: fn(&Hints) -> bool| hints().all(|hints| hints.is_some_and(has));
        if all(|hints| hints.has_nodes) && hints().flatten().any(|hints| hints.has_this_node) {
            return Self::SameNode;
        }
        let names_our_zone = |hints: &Hints| names_zone(hints, zone);
        if all(|hints| !hints.zones.is_empty()) && hints().flatten().any(names_our_zone) {
            return Self::SameZone;
        }
        Self::Any
    }

    /// Returns whether the hints allow an endpoint.
    fn allows<A>(&self, endpoint: &model::Endpoint<A>, zone: Option<&str>) -> bool {
        let hints = endpoint.hints();
        match self {
            Self::Any => true,
            Self::SameNode => hints.is_some_and(|hints| hints.has_this_node),
            Self::SameZone => hints.is_some_and(|hints| names_zone(hints, zone)),
        }
    }
}

/// Returns whether the hints of an endpoint name a zone.
fn names_zone(hints: &Hints, zone: Option<&str>) -> bool {
    zone.is_some_and(|zone| hints.zones.iter().any(|name| **name == *zone))
}

#[cfg(test)]
mod tests;
