//! Which endpoints a Service port may use: kube-proxy's `CategorizeEndpoints`
//! (`pkg/proxy/topology.go`), as a value with named results.

use std::collections::BTreeSet;

use super::EndpointAddr;
use crate::planner::model::{self, Address, EndpointSlice, Hints, ServicePort};

/// The endpoints of one Service port by who may use them: each list in order, and each endpoint
/// of it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EligibleEndpoints<A> {
    /// For policy Cluster: the ready ones that topology allows; if there is none, those that
    /// still serve while they terminate.
    pub cluster: Vec<EndpointAddr<A>>,
    /// For policy Local: the ready ones of this node; if there is none, those of this node that
    /// still serve while they terminate. Topology does not count.
    pub local: Vec<EndpointAddr<A>>,
    /// The addresses in either list of the endpoints that are or may be on this node: only they can
    /// hairpin here. What has no `nodeName` may be: a packet from elsewhere never has its address.
    pub here: Vec<A>,
    /// All that are ready.
    pub ready: Vec<EndpointAddr<A>>,
    /// All that serve though they are not ready.
    pub draining: Vec<EndpointAddr<A>>,
}

impl<A> EligibleEndpoints<A> {
    /// Whether there is any usable endpoint anywhere: it decides between refusing and dropping
    /// where a policy leaves none.
    #[must_use]
    pub fn any(&self) -> bool {
        // Topology never empties a list, and the fall-back takes all that serve.
        !self.cluster.is_empty()
    }
}

/// Sorts the endpoints of `port` in `slices` by who may use them; `zone` is this node's. An address that
/// `is_endpoint` denies is not looked at.
#[must_use]
pub fn eligible<A: Address>(
    port: &ServicePort,
    slices: &[&EndpointSlice],
    zone: Option<&str>,
    is_endpoint: impl Fn(A) -> bool,
) -> EligibleEndpoints<A> {
    let merged = merge(port, slices, is_endpoint);
    let topology = TopologyHints::of(&merged, zone);
    let still_serves = |endpoint: &model::Endpoint<A>| endpoint.serving && endpoint.terminating;
    let mut cluster = Vec::with_capacity(merged.len());
    let mut here = Vec::new();
    for merged in &merged {
        let (key, endpoint) = merged;
        if endpoint.ready && topology.allows(endpoint, zone) {
            cluster.push(*key);
        }
        if endpoint.local {
            here.push(merged);
        }
    }
    if cluster.is_empty() {
        let serve = merged.iter().filter(|(_, endpoint)| still_serves(endpoint));
        cluster = serve.map(|(key, _)| *key).collect();
    }
    let ready = here.iter().filter(|(_, endpoint)| endpoint.ready);
    let mut local: Vec<_> = ready.map(|(key, _)| *key).collect();
    if local.is_empty() {
        let serve = here.iter().filter(|(_, endpoint)| still_serves(endpoint));
        local = serve.map(|(key, _)| *key).collect();
    }
    let used = |key: &EndpointAddr<A>| {
        [&cluster, &local]
            .iter()
            .any(|list| list.binary_search(key).is_ok())
    };
    let here = merged
        .iter()
        .filter(|(key, endpoint)| (endpoint.local || endpoint.unplaced) && used(key));
    let mut here: Vec<_> = here.map(|((address, _), _)| *address).collect();
    here.dedup();
    let that = |is: fn(&model::Endpoint<A>) -> bool| {
        let which = merged.iter().filter(|(_, endpoint)| is(endpoint));
        which.map(|(key, _)| *key).collect()
    };
    EligibleEndpoints {
        cluster,
        local,
        here,
        ready: that(|endpoint| endpoint.ready),
        draining: that(|endpoint| endpoint.serving && !endpoint.ready),
    }
}

/// An endpoint of a port, and what its slice says of it.
type MergedEndpoint<'a, A> = (EndpointAddr<A>, &'a model::Endpoint<A>);

/// Each endpoint once, in order. Where slices disagree (one moves from a slice to another, or another Pod has
/// the address), the conditions decide, then the time of the change, then where it is: never a name or an order.
fn merge<'a, A: Address>(
    port: &ServicePort,
    slices: &[&'a EndpointSlice],
    is_endpoint: impl Fn(A) -> bool,
) -> Vec<MergedEndpoint<'a, A>> {
    let mut said: Vec<(MergedEndpoint<'a, A>, Option<i64>)> = Vec::new();
    for slice in slices {
        let Some(addresses) = A::endpoints(&slice.addresses) else {
            continue;
        };
        let answers = slice
            .ports
            .iter()
            .filter(|answer| answer.name == port.name && answer.protocol == port.protocol);
        for answer in answers {
            let endpoints = addresses.iter();
            let endpoints = endpoints.filter(|endpoint| is_endpoint(endpoint.address));
            let of_slice = |endpoint: &'a model::Endpoint<A>| {
                (((endpoint.address, answer.port), endpoint), slice.triggered)
            };
            said.extend(endpoints.map(of_slice));
        }
    }
    said.sort_by_key(|(((address, port), _), _)| (address.bits(), *port));
    said.dedup_by(|other, known| {
        let same = other.0.0 == known.0.0;
        if same && precedence(other) > precedence(known) {
            *known = *other;
        }
        same
    });
    said.into_iter().map(|(merged, _)| merged).collect()
}

/// Of two that disagree the greater counts. Those that are equal in this are equal in all.
fn precedence<'a, A>(
    ((_, endpoint), triggered): &(MergedEndpoint<'a, A>, Option<i64>),
) -> impl Ord + use<'a, A> {
    let conditions = (!endpoint.terminating, endpoint.ready, endpoint.serving);
    let place = (endpoint.local, endpoint.unplaced);
    (conditions, *triggered, place, endpoint.hints.as_deref())
}

/// The addresses of ready endpoints on this node that any of the ports uses, in order. Linear in the
/// endpoints, times the ports.
pub(super) fn ready_here<A: Address>(
    ports: &[ServicePort],
    slices: &[&EndpointSlice],
    is_endpoint: impl Fn(A) -> bool,
) -> BTreeSet<A> {
    let merged = ports
        .iter()
        .flat_map(|port| merge(port, slices, &is_endpoint));
    let ready = merged.filter(|(_, endpoint)| endpoint.local && endpoint.ready);
    ready.map(|((address, _), _)| address).collect()
}

/// How the hints of the ready endpoints count (KEP-2433, KEP-3015): all of them or none.
enum TopologyHints {
    /// Not at all: one lacks its hint, or none is for us.
    Any,
    /// Those that name this node.
    SameNode,
    /// Those that name this node's zone.
    SameZone,
}

impl TopologyHints {
    fn of<A>(merged: &[MergedEndpoint<'_, A>], zone: Option<&str>) -> Self {
        let ready = || merged.iter().filter(|(_, endpoint)| endpoint.ready);
        let hints = || ready().map(|(_, endpoint)| endpoint.hints.as_deref());
        let all = |has: fn(&Hints) -> bool| hints().all(|hints| hints.is_some_and(has));
        if all(|hints| hints.nodes) && hints().flatten().any(|hints| hints.our_node) {
            return Self::SameNode;
        }
        let ours = |hints: &Hints| names_zone(hints, zone);
        if all(|hints| !hints.zones.is_empty()) && hints().flatten().any(ours) {
            return Self::SameZone;
        }
        Self::Any
    }

    fn allows<A>(&self, endpoint: &model::Endpoint<A>, zone: Option<&str>) -> bool {
        let hints = endpoint.hints.as_deref();
        match self {
            Self::Any => true,
            Self::SameNode => hints.is_some_and(|hints| hints.our_node),
            Self::SameZone => hints.is_some_and(|hints| names_zone(hints, zone)),
        }
    }
}

fn names_zone(hints: &Hints, zone: Option<&str>) -> bool {
    zone.is_some_and(|zone| hints.zones.iter().any(|name| **name == *zone))
}

#[cfg(test)]
mod tests;
