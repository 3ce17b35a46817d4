//! Which endpoints a Service port may use: kube-proxy's `CategorizeEndpoints`
//! (`pkg/proxy/topology.go`), as a value with named results.

use super::Endpoint;
use crate::model::{self, Address, EndpointSlice, Hints, ServicePort};

/// The endpoints of one Service port by who may use them: each list in order, and each endpoint
/// of it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eligible<A> {
    /// For policy Cluster: the ready ones that topology allows; if there is none, those that
    /// still serve while they terminate.
    pub cluster: Vec<Endpoint<A>>,
    /// For policy Local: the ready ones of this node; if there is none, those of this node that
    /// still serve while they terminate. Topology does not count.
    pub local: Vec<Endpoint<A>>,
    /// The addresses in either list of the endpoints that are or may be on this node: only they can
    /// hairpin here. What has no `nodeName` may be: a packet from elsewhere never has its address.
    pub here: Vec<A>,
    /// All that are ready.
    pub ready: Vec<Endpoint<A>>,
    /// All that serve though they are not ready.
    pub draining: Vec<Endpoint<A>>,
}

impl<A> Eligible<A> {
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
) -> Eligible<A> {
    let merged = merge(port, slices, is_endpoint);
    let topology = Topology::of(&merged, zone);
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
    let used = |key: &Endpoint<A>| {
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
    Eligible {
        cluster,
        local,
        here,
        ready: that(|endpoint| endpoint.ready),
        draining: that(|endpoint| endpoint.serving && !endpoint.ready),
    }
}

/// An endpoint of a port, and what its slice says of it.
type Merged<'a, A> = (Endpoint<A>, &'a model::Endpoint<A>);

/// Each endpoint once, in order. Where slices disagree (one moves from a slice to another), one that
/// terminates gives way to one that does not; else the ready one counts, the serving one, the one that is
/// here: never a name or an order.
fn merge<'a, A: Address>(
    port: &ServicePort,
    slices: &[&'a EndpointSlice],
    is_endpoint: impl Fn(A) -> bool,
) -> Vec<Merged<'a, A>> {
    let mut merged: Vec<Merged<'a, A>> = Vec::new();
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
            merged.extend(endpoints.map(|endpoint| ((endpoint.address, answer.port), endpoint)));
        }
    }
    merged.sort_by_key(|((address, port), _)| (address.bits(), *port));
    merged.dedup_by(|(key, endpoint), (known_key, known)| {
        let same = key == known_key;
        if same && precedence(endpoint) > precedence(known) {
            *known = endpoint;
        }
        same
    });
    merged
}

/// Of two that disagree the greater counts. Those that are equal in this are equal in all.
fn precedence<A>(endpoint: &model::Endpoint<A>) -> impl Ord + '_ {
    let conditions = (!endpoint.terminating, endpoint.ready, endpoint.serving);
    let place = (endpoint.local, endpoint.unplaced);
    (conditions, place, endpoint.hints.as_deref())
}

/// How the hints of the ready endpoints count (KEP-2433, KEP-3015): all of them or none.
enum Topology {
    /// Not at all: one lacks its hint, or none is for us.
    Any,
    /// Those that name this node.
    SameNode,
    /// Those that name this node's zone.
    SameZone,
}

impl Topology {
    fn of<A>(merged: &[Merged<'_, A>], zone: Option<&str>) -> Self {
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
