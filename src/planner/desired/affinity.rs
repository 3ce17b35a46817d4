//! The endpoints that session affinity may keep clients at, and the clients that it must forget.

use std::collections::{BTreeMap, BTreeSet};

use super::gone::slot_targets;
use super::{Claim, EndpointAddr, Route, ServiceElements, Slots};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, Verdict};

/// The destination of a client: a frontend, or a node port at an address of the node.
pub type ClientTarget<A> = (Protocol, A, u16);

/// A destination, and an endpoint that its clients may not keep.
pub type LostEndpoint<A> = (ClientTarget<A>, EndpointAddr<A>);

/// The side of the node on which a client is, for external policy Local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientSide {
    /// A Pod of this node, or the node itself.
    Inside,
    /// Any other client.
    Outside,
    /// Unknown, because Pods are recognised by their interface, which the map does not store.
    Unknown,
}

/// The address ranges that tell on which side of the node a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSides<A: Address> {
    /// The ranges of this node's Pods; `None`: Pods are recognised by their interface.
    pub pods: Option<Vec<A::Net>>,
    /// The node's own addresses.
    pub own: BTreeSet<A>,
}

impl<A: Address> ClientSides<A> {
    /// Returns the side of a client.
    #[must_use]
    pub fn of(&self, client: A) -> ClientSide {
        let ip: std::net::IpAddr = client.into();
        if ip.is_loopback() || self.own.contains(&client) {
            return ClientSide::Inside;
        }
        match &self.pods {
            None => ClientSide::Unknown,
            Some(pods) if pods.iter().any(|net| A::contains(*net, client)) => ClientSide::Inside,
            Some(_) => ClientSide::Outside,
        }
    }
}

/// The endpoints that the clients of a frontend with session affinity may keep.
#[derive(Clone, Copy, Debug)]
struct KeepableEndpoints<'a, A> {
    /// The endpoints for clients inside.
    inside: &'a Slots<A>,
    /// The endpoints for clients outside.
    outside: &'a Slots<A>,
    /// The session affinity timeout, in seconds.
    seconds: u32,
}

impl<'a, A: Address> KeepableEndpoints<'a, A> {
    /// Returns the endpoints of a frontend; `None` without session affinity or endpoints.
    fn new((port, route): (&'a super::PortElements<A>, Route)) -> Option<Self> {
        let (cluster, local) = (&port.lists.cluster, &port.lists.local);
        let (inside, outside) = match route {
            Route::Cluster => (cluster, cluster),
            Route::Local => (local, local),
            Route::LocalPolicy => (cluster, local),
            Route::Drop | Route::Reject => return None,
        };
        let seconds = port.spec.selection.affinity()?;
        Some(Self {
            inside,
            outside,
            seconds,
        })
    }

    /// Returns all endpoints.
    fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.inside.endpoints().chain(self.outside.endpoints())
    }

    /// Returns whether some client may keep an endpoint.
    fn contains(&self, endpoint: EndpointAddr<A>) -> bool {
        self.inside.contains(endpoint) || self.outside.contains(endpoint)
    }

    /// Returns the endpoints that clients may no longer keep after a change to `now`.
    fn gone(&self, now: &Self) -> GoneEndpoints<A> {
        let inside = self.inside.removed_in(now.inside);
        let outside = self.outside.removed_in(now.outside);
        GoneEndpoints::These {
            anyone: inside
                .iter()
                .chain(&outside)
                .copied()
                .filter(|endpoint| !now.contains(*endpoint))
                .collect(),
            inside: inside.into_iter().collect(),
            outside: outside.into_iter().collect(),
        }
    }
}

/// The endpoints that the clients of some Services may keep, by destination.
#[derive(Debug)]
pub struct AffinityMemory<'a, A>(BTreeMap<ClientTarget<A>, KeepableEndpoints<'a, A>>);

impl<'a, A: Address> AffinityMemory<'a, A> {
    /// Collects the endpoints of Services, with node ports at these addresses.
    #[must_use]
    pub fn of(
        services: impl IntoIterator<Item = &'a ServiceElements<A>>,
        node_ips: &BTreeSet<A>,
    ) -> Self {
        let (mut memory, mut at_addresses) = (BTreeMap::new(), Vec::new());
        for (claim, port, route) in services.into_iter().flat_map(ServiceElements::frontends) {
            let Some(keepable) = KeepableEndpoints::new((port, route)) else {
                continue;
            };
            let targets = targets(claim, node_ips).map(|target| (target, keepable));
            match claim {
                Claim::Frontend(..) | Claim::Ranges(..) => at_addresses.extend(targets),
                Claim::Nodeport(..) => memory.extend(targets),
            }
        }
        // A frontend at an address of the node takes precedence over the node port.
        memory.extend(at_addresses);
        Self(memory)
    }

    /// Returns the verdict for clients that may not keep this endpoint; `None`: all may.
    #[must_use]
    pub fn denial(&self, (target, endpoint): &LostEndpoint<A>) -> Option<Verdict> {
        let (inside, outside) = self.0.get(target).map_or((false, false), |keepable| {
            (
                keepable.inside.contains(*endpoint),
                keepable.outside.contains(*endpoint),
            )
        });
        denial_verdict(|side| side.select(inside, outside))
    }

    /// Returns whether the clients of this destination are pinned.
    #[must_use]
    pub fn contains(&self, target: &ClientTarget<A>) -> bool {
        self.0.contains_key(target)
    }

    /// Returns the clients that must be forgotten after a change to `now`.
    #[must_use]
    pub fn lost(&self, now: &Self) -> ClientsToForget<A> {
        let mut forget = ClientsToForget::default();
        for (target, before) in &self.0 {
            let now = now.0.get(target);
            let gone = match now {
                None => GoneEndpoints::All(before.endpoints().collect()),
                Some(now) => before.gone(now),
            };
            let seconds = now
                .map(|now| now.seconds)
                .filter(|seconds| *seconds != before.seconds);
            if !gone.is_empty() || seconds.is_some() {
                forget.0.insert(*target, (gone, seconds));
            }
        }
        forget
    }

    /// Returns an owned copy, to compare it later with the clients in the kernel's map.
    #[must_use]
    pub fn allowed(&self) -> AllowedClients<A> {
        let all = self.0.iter().map(|(target, keepable)| {
            let kept = KeptClients {
                inside: keepable.inside.endpoints().collect(),
                outside: keepable.outside.endpoints().collect(),
                seconds: Some(keepable.seconds),
            };
            (*target, kept)
        });
        AllowedClients(all.collect())
    }
}

/// Returns the destinations of a frontend: itself, or a node port at each address.
fn targets<A: Address>(
    claim: Claim<A>,
    node_ips: &BTreeSet<A>,
) -> impl Iterator<Item = ClientTarget<A>> {
    let (frontend, node_port) = match claim {
        Claim::Frontend(protocol, address, port) => (Some((protocol, address, port)), None),
        Claim::Nodeport(protocol, port) => (None, Some((protocol, port))),
        // A hash selects the endpoint, which pins no client.
        Claim::Ranges(..) => (None, None),
    };
    let node_ports = node_port
        .into_iter()
        .flat_map(move |(protocol, port)| node_ips.iter().map(move |ip| (protocol, *ip, port)));
    frontend.into_iter().chain(node_ports)
}

/// Endpoints that clients of a destination must lose.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GoneEndpoints<A> {
    /// Every endpoint; the set has those that are known.
    All(BTreeSet<EndpointAddr<A>>),
    /// Some endpoints, by the side of the client.
    These {
        /// The endpoints that no client may keep.
        anyone: BTreeSet<EndpointAddr<A>>,
        /// The endpoints that clients inside must lose.
        inside: BTreeSet<EndpointAddr<A>>,
        /// The endpoints that clients outside must lose.
        outside: BTreeSet<EndpointAddr<A>>,
    },
}

impl<A: Address> GoneEndpoints<A> {
    /// Returns whether no client loses an endpoint.
    fn is_empty(&self) -> bool {
        match self {
            Self::All(_) => false,
            Self::These {
                inside, outside, ..
            } => inside.is_empty() && outside.is_empty(),
        }
    }

    /// Returns whether a client on this side loses an endpoint.
    fn contains(&self, endpoint: &EndpointAddr<A>, side: ClientSide) -> bool {
        let Self::These {
            anyone,
            inside,
            outside,
        } = self
        else {
            return true;
        };
        let of_side = match side {
            ClientSide::Inside => inside,
            ClientSide::Outside => outside,
            ClientSide::Unknown => anyone,
        };
        of_side.contains(endpoint) || anyone.contains(endpoint)
    }

    /// Returns the known endpoints.
    fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        let sets = match self {
            Self::All(all) => [Some(all), None],
            Self::These {
                inside, outside, ..
            } => [Some(inside), Some(outside)],
        };
        sets.into_iter().flatten().flatten().copied()
    }
}

/// The clients that must be forgotten, and changed timeouts of the others, by destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientsToForget<A>(BTreeMap<ClientTarget<A>, (GoneEndpoints<A>, Option<u32>)>);

impl<A> Default for ClientsToForget<A> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<A: Address> ClientsToForget<A> {
    /// Returns the protocols of these clients.
    #[must_use]
    pub fn protocols(&self) -> BTreeSet<Protocol> {
        self.0.keys().map(|(protocol, ..)| *protocol).collect()
    }

    /// Returns whether a client of this destination and endpoint must be forgotten.
    ///
    /// A client on an unknown side is forgotten only if clients on both sides are.
    #[must_use]
    pub fn covers(
        &self,
        target: &ClientTarget<A>,
        endpoint: &EndpointAddr<A>,
        side: ClientSide,
    ) -> bool {
        let gone = self.0.get(target);
        gone.is_some_and(|(gone, _)| gone.contains(endpoint, side))
    }

    /// Returns the new timeout of a destination's clients in seconds, if it changes.
    #[must_use]
    pub fn seconds(&self, target: &ClientTarget<A>) -> Option<u32> {
        self.0.get(target)?.1
    }

    /// Returns the destinations and endpoints that some clients may have and must lose.
    pub fn pairs(&self) -> impl Iterator<Item = LostEndpoint<A>> {
        self.0.iter().flat_map(|(target, (gone, _))| {
            let endpoints = gone.endpoints();
            endpoints.map(|endpoint| (*target, endpoint))
        })
    }
}

impl ClientSide {
    /// Selects the value for this side; on an unknown side, both must be true.
    fn select(self, inside: bool, outside: bool) -> bool {
        match self {
            Self::Inside => inside,
            Self::Outside => outside,
            Self::Unknown => inside && outside,
        }
    }
}

/// Returns the verdict for clients that may not keep an endpoint; `None`: all may.
fn denial_verdict(may_keep: impl Fn(ClientSide) -> bool) -> Option<Verdict> {
    match (may_keep(ClientSide::Inside), may_keep(ClientSide::Outside)) {
        (false, false) => Some(Verdict::GONE),
        (true, false) => Some(Verdict::GoneOutside),
        // A Pod may stay at a local endpoint although its list has the others.
        (_, true) => None,
    }
}

/// The endpoints that the clients of one destination may keep.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeptClients<A> {
    /// The endpoints for clients inside.
    inside: BTreeSet<EndpointAddr<A>>,
    /// The endpoints for clients outside.
    outside: BTreeSet<EndpointAddr<A>>,
    /// The timeout in seconds, if it is known.
    seconds: Option<u32>,
}

impl<A> Default for KeptClients<A> {
    fn default() -> Self {
        Self {
            inside: BTreeSet::new(),
            outside: BTreeSet::new(),
            seconds: None,
        }
    }
}

/// The endpoints that clients may keep, by destination; all others must be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedClients<A>(BTreeMap<ClientTarget<A>, KeptClients<A>>);

impl<A: Address> AllowedClients<A> {
    /// Returns the verdict for clients that may not keep this endpoint; `None`: all may.
    #[must_use]
    pub fn verdict(&self, (target, endpoint): &LostEndpoint<A>) -> Option<Verdict> {
        denial_verdict(|side| !self.denies(target, endpoint, side))
    }

    /// Returns whether a client on this side may not keep this endpoint.
    #[must_use]
    pub fn denies(
        &self,
        target: &ClientTarget<A>,
        endpoint: &EndpointAddr<A>,
        side: ClientSide,
    ) -> bool {
        self.0.get(target).is_none_or(|kept| {
            let lacks = |endpoints: &BTreeSet<_>| !endpoints.contains(endpoint);
            side.select(lacks(&kept.inside), lacks(&kept.outside))
        })
    }

    /// Returns the timeout of a destination's clients in seconds, if it is known.
    #[must_use]
    pub fn seconds(&self, target: &ClientTarget<A>) -> Option<u32> {
        self.0.get(target)?.seconds
    }

    /// Returns the destinations and endpoints that only clients inside may keep.
    pub fn only_inside(&self) -> impl Iterator<Item = LostEndpoint<A>> {
        self.0.iter().flat_map(|(target, kept)| {
            let only = kept.inside.difference(&kept.outside);
            only.map(|endpoint| (*target, *endpoint))
        })
    }

    /// Allows the endpoint of a slot that stays in the table, on a node with these addresses.
    pub fn keep_slot(&mut self, slot: &Element<A>, node_ips: &BTreeSet<A>) {
        for (target, endpoint) in slot_targets(slot, node_ips) {
            let kept = self.0.entry(target).or_default();
            kept.inside.insert(endpoint);
            kept.outside.insert(endpoint);
        }
    }
}
