//! Which endpoints clients may keep, and what session affinity must forget.

use std::collections::{BTreeMap, BTreeSet};

use super::{Claim, EndpointAddr, Route, ServiceElements, Slots};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, EndpointList, Key, SetName, Table, Value, Verdict};

/// What a client connected to: also a node port, on the address of the node that it chose.
pub type ClientTarget<A> = (Protocol, A, u16);

/// A frontend, and an endpoint that its clients may not keep.
pub type LostEndpoint<A> = (ClientTarget<A>, EndpointAddr<A>);

/// Where a client is, as external policy Local sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientSide {
    /// A Pod of this node, or the node itself.
    Inside,
    /// Anyone else.
    Outside,
    /// Pods are known by their interface, which nobody remembers.
    Unknown,
}

/// How the side of a client is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSides<A: Address> {
    /// The ranges of Pods; `None`: they are known by their interface.
    pub pods: Option<Vec<A::Net>>,
    /// The node's own addresses.
    pub own: BTreeSet<A>,
}

impl<A: Address> ClientSides<A> {
    /// Where this client is.
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
    inside: &'a Slots<A>,
    outside: &'a Slots<A>,
    seconds: u32,
}

impl<'a, A: Address> KeepableEndpoints<'a, A> {
    fn new((port, route): (&'a super::PortElements<A>, Route)) -> Option<Self> {
        let (cluster, local) = (&port.lists.cluster, &port.lists.local);
        let (inside, outside) = match route {
            Route::Cluster => (cluster, cluster),
            Route::Local => (local, local),
            Route::Split => (cluster, local),
            Route::Drop | Route::Refuse => return None,
        };
        let seconds = port.shape.affinity?;
        Some(Self {
            inside,
            outside,
            seconds,
        })
    }

    fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.inside.endpoints().chain(self.outside.endpoints())
    }

    fn holds(&self, endpoint: EndpointAddr<A>) -> bool {
        self.inside.holds(endpoint) || self.outside.holds(endpoint)
    }

    /// The endpoints that clients may no longer keep when this becomes `now`.
    fn gone(&self, now: &Self) -> GoneEndpoints<A> {
        let inside = self.inside.removed_in(now.inside);
        let outside = self.outside.removed_in(now.outside);
        let both = inside.iter().chain(&outside);
        let anyone = both.filter(|endpoint| !now.holds(**endpoint));
        GoneEndpoints::These {
            anyone: anyone.copied().collect(),
            inside: inside.into_iter().collect(),
            outside: outside.into_iter().collect(),
        }
    }
}

/// What clients may remember of some Services.
#[derive(Debug)]
pub struct AffinityMemory<'a, A>(BTreeMap<ClientTarget<A>, KeepableEndpoints<'a, A>>);

impl<'a, A: Address> AffinityMemory<'a, A> {
    /// Of these Services, with node ports on these addresses.
    #[must_use]
    pub fn of(
        all_service_elements: impl IntoIterator<Item = &'a ServiceElements<A>>,
        node_ips: &BTreeSet<A>,
    ) -> Self {
        let mut memory = BTreeMap::new();
        let all_service_elements = all_service_elements.into_iter();
        for (claim, port, route) in all_service_elements.flat_map(ServiceElements::frontends) {
            let Some(keeps) = KeepableEndpoints::new((port, route)) else {
                continue;
            };
            let asked = asked(claim, node_ips);
            memory.extend(asked.map(|asked| (asked, keeps)));
        }
        Self(memory)
    }

    /// What happens to a connection to this endpoint of a client that may not keep it; `None`: all may.
    #[must_use]
    pub fn denies(&self, (asked, endpoint): &LostEndpoint<A>) -> Option<Verdict> {
        let keeps = self.0.get(asked).map(|keeps| {
            (
                keeps.inside.holds(*endpoint),
                keeps.outside.holds(*endpoint),
            )
        });
        verdict(|side| keeps.is_some_and(|(inside, outside)| side.either(inside, outside)))
    }

    /// Whether clients of this frontend remember anything.
    #[must_use]
    pub fn has(&self, asked: &ClientTarget<A>) -> bool {
        self.0.contains_key(asked)
    }

    /// What must be forgotten when this becomes `now`.
    #[must_use]
    pub fn lost(&self, now: &Self) -> ClientsToForget<A> {
        let mut forget = ClientsToForget::default();
        for (asked, before) in &self.0 {
            let now = now.0.get(asked);
            let gone = match now {
                None => GoneEndpoints::All(before.endpoints().collect()),
                Some(now) => before.gone(now),
            };
            let seconds = now.map(|now| now.seconds);
            let seconds = seconds.filter(|seconds| *seconds != before.seconds);
            if !gone.is_empty() || seconds.is_some() {
                forget.0.insert(*asked, (gone, seconds));
            }
        }
        forget
    }

    /// All of it, as it can be kept.
    #[must_use]
    pub fn right(&self) -> AllowedClients<A> {
        let all = self.0.iter().map(|(asked, keeps)| {
            let kept = KeptClients {
                inside: keeps.inside.endpoints().collect(),
                outside: keeps.outside.endpoints().collect(),
                seconds: Some(keeps.seconds),
            };
            (*asked, kept)
        });
        AllowedClients(all.collect())
    }
}

/// A frontend as clients ask for it.
fn asked<A: Address>(
    claim: Claim<A>,
    node_ips: &BTreeSet<A>,
) -> impl Iterator<Item = ClientTarget<A>> {
    let (address, node_port) = match claim {
        Claim::Frontend(protocol, address, port) => (Some((protocol, address, port)), None),
        Claim::Nodeport(protocol, port) => (None, Some((protocol, port))),
    };
    let node_port = node_port
        .into_iter()
        .flat_map(move |(protocol, port)| node_ips.iter().map(move |ip| (protocol, *ip, port)));
    address.into_iter().chain(node_port)
}

/// Endpoints that clients had, and may not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GoneEndpoints<A> {
    /// Whichever they have. These are known.
    All(BTreeSet<EndpointAddr<A>>),
    /// These.
    These {
        /// Wherever they are.
        anyone: BTreeSet<EndpointAddr<A>>,
        /// If they are inside.
        inside: BTreeSet<EndpointAddr<A>>,
        /// If they are outside.
        outside: BTreeSet<EndpointAddr<A>>,
    },
}

impl<A: Address> GoneEndpoints<A> {
    fn is_empty(&self) -> bool {
        matches!(self, Self::These { inside, outside, .. } if inside.is_empty() && outside.is_empty())
    }

    fn has(&self, endpoint: &EndpointAddr<A>, side: ClientSide) -> bool {
        let Self::These {
            anyone,
            inside,
            outside,
        } = self
        else {
            return true;
        };
        let own = match side {
            ClientSide::Inside => inside,
            ClientSide::Outside => outside,
            ClientSide::Unknown => anyone,
        };
        own.contains(endpoint) || anyone.contains(endpoint)
    }

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

/// The clients that must be forgotten, by the frontend that they connected to, and the time-out of the others
/// if that is another now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientsToForget<A>(BTreeMap<ClientTarget<A>, (GoneEndpoints<A>, Option<u32>)>);

impl<A> Default for ClientsToForget<A> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<A: Address> ClientsToForget<A> {
    /// The protocols that have any.
    #[must_use]
    pub fn protocols(&self) -> BTreeSet<Protocol> {
        self.0.keys().map(|(protocol, ..)| *protocol).collect()
    }

    /// Whether a client on this side must be forgotten, who connected there and got `endpoint`. Who may
    /// be on either side is forgotten if nobody may keep it.
    #[must_use]
    pub fn covers(
        &self,
        asked: &ClientTarget<A>,
        endpoint: &EndpointAddr<A>,
        side: ClientSide,
    ) -> bool {
        let gone = self.0.get(asked);
        gone.is_some_and(|(gone, _)| gone.has(endpoint, side))
    }

    /// For how many seconds the clients of a frontend are remembered now, if that changes.
    #[must_use]
    pub fn seconds(&self, asked: &ClientTarget<A>) -> Option<u32> {
        self.0.get(asked)?.1
    }

    /// The frontends and endpoints that some clients may have and may not keep.
    pub fn pairs(&self) -> impl Iterator<Item = LostEndpoint<A>> {
        self.0.iter().flat_map(|(asked, (gone, _))| {
            let endpoints = gone.endpoints();
            endpoints.map(|endpoint| (*asked, endpoint))
        })
    }
}

impl ClientSide {
    /// What holds of a client on this side, given what holds of those inside and outside.
    fn either(self, inside: bool, outside: bool) -> bool {
        match self {
            Self::Inside => inside,
            Self::Outside => outside,
            Self::Unknown => inside && outside,
        }
    }
}

/// What happens to a connection to an endpoint that clients of some sides may keep.
fn verdict(may_keep: impl Fn(ClientSide) -> bool) -> Option<Verdict> {
    match (may_keep(ClientSide::Inside), may_keep(ClientSide::Outside)) {
        (false, false) => Some(Verdict::GONE),
        (true, false) => Some(Verdict::GoneOutside),
        // That an endpoint of this node is not for Pods is no reason to cut them off.
        (_, true) => None,
    }
}

/// What clients of a frontend may keep.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeptClients<A> {
    /// The endpoints, if they are inside.
    inside: BTreeSet<EndpointAddr<A>>,
    /// The endpoints, if they are outside.
    outside: BTreeSet<EndpointAddr<A>>,
    /// For how many seconds, if that is known.
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

/// All that clients may remember; whatever else they do is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedClients<A>(BTreeMap<ClientTarget<A>, KeptClients<A>>);

impl<A: Address> AllowedClients<A> {
    /// What happens to a connection to this endpoint of a client that may not keep it; `None`: all may.
    #[must_use]
    pub fn verdict(&self, (asked, endpoint): &LostEndpoint<A>) -> Option<Verdict> {
        verdict(|side| !self.denies(asked, endpoint, side))
    }

    /// Whether a client on this side may not keep this endpoint.
    #[must_use]
    pub fn denies(
        &self,
        asked: &ClientTarget<A>,
        endpoint: &EndpointAddr<A>,
        side: ClientSide,
    ) -> bool {
        self.0.get(asked).is_none_or(|kept| {
            let lacks = |endpoints: &BTreeSet<_>| !endpoints.contains(endpoint);
            side.either(lacks(&kept.inside), lacks(&kept.outside))
        })
    }

    /// For how many seconds the clients of a frontend are remembered, if that is known.
    #[must_use]
    pub fn seconds(&self, asked: &ClientTarget<A>) -> Option<u32> {
        self.0.get(asked)?.seconds
    }

    /// The frontends and endpoints that only clients inside may keep.
    pub fn only_inside(&self) -> impl Iterator<Item = LostEndpoint<A>> {
        self.0.iter().flat_map(|(asked, kept)| {
            let only = kept.inside.difference(&kept.outside);
            only.map(|endpoint| (*asked, *endpoint))
        })
    }

    /// Takes in a slot that stays in the table, on a node with these addresses.
    pub fn keep_slot(&mut self, slot: &Element<A>, node_ips: &BTreeSet<A>) {
        for (asked, endpoint) in slot_asked(slot, node_ips) {
            let kept = self.0.entry(asked).or_default();
            kept.inside.insert(endpoint);
            kept.outside.insert(endpoint);
        }
    }
}

/// The frontends of a slot, and its endpoint.
fn slot_asked<A: Address>(slot: &Element<A>, node_ips: &BTreeSet<A>) -> Vec<LostEndpoint<A>> {
    let Value::Endpoint(address, port) = slot.value else {
        return Vec::new();
    };
    let endpoint = (address, port);
    if let Key::Slot(protocol, address, port, _) = slot.key {
        vec![((protocol, address, port), endpoint)]
    } else if let Key::NodeportSlot(protocol, port, _) = slot.key {
        let asked = node_ips.iter().map(|ip| (protocol, *ip, port));
        asked.map(|asked| (asked, endpoint)).collect()
    } else {
        Vec::new()
    }
}

/// The frontends and endpoints that clients may remember of a table that was found, and may not by what
/// is right now: those that it sends them to, also with node ports on these addresses, and those that an earlier process had them
/// forget.
#[must_use]
pub fn found_gone<A: Address>(
    found: &Table<A>,
    mut node_ips: BTreeSet<A>,
    right: &AllowedClients<A>,
) -> BTreeMap<LostEndpoint<A>, Verdict> {
    for (key, _) in found.entries(SetName::NodeIps) {
        if let Key::Address(address) = key {
            node_ips.insert(*address);
        }
    }
    let has = |set, key| found.get(set, &key).is_some();
    let sticky = |(protocol, address, port): ClientTarget<A>, is_node_port: bool| {
        if is_node_port {
            // An address with a port wins.
            let frontend = Key::Frontend(protocol, address, port);
            has(SetName::StickyNodeports(protocol), Key::Port(port))
                && !has(SetName::Services, frontend)
        } else {
            has(SetName::Sticky(protocol), Key::AddressPort(address, port))
        }
    };
    let verdict = |lost: LostEndpoint<A>| Some((lost, right.verdict(&lost)?));
    let mut gone: BTreeMap<_, _> = still_gone(found).filter_map(verdict).collect();
    for (set, is_node_port) in [
        (SetName::Endpoints, false),
        (SetName::NodeportEndpoints, true),
    ] {
        for slot in found.elements_of(set) {
            let lost = slot_asked(&slot, &node_ips).into_iter();
            let lost = lost.filter(|(asked, _)| sticky(*asked, is_node_port));
            let only_inside = is_of_all(&slot.key);
            gone.extend(
                lost.filter_map(verdict)
                    .filter(|(_, verdict)| !only_inside || *verdict != Verdict::GoneOutside),
            );
        }
    }
    gone
}

/// Whether a slot is of the endpoints that only clients inside reach: of external policy Local.
fn is_of_all<A: Address>(slot: &Key<A>) -> bool {
    matches!(slot, Key::Slot(.., slot) | Key::NodeportSlot(.., slot) if *slot >= EndpointList::CLUSTER)
}

fn still_gone<A: Address>(found: &Table<A>) -> impl Iterator<Item = LostEndpoint<A>> {
    Protocol::ALL.into_iter().flat_map(|protocol| {
        let entries = found.entries(SetName::Gone(protocol));
        entries.filter_map(move |(key, _)| lost_of(SetName::Gone(protocol), key))
    })
}

/// The frontend and endpoint of an element that says what happens to clients who may not keep it.
#[must_use]
pub fn lost_of<A: Address>(set: SetName, key: &Key<A>) -> Option<LostEndpoint<A>> {
    let (SetName::Gone(protocol), Key::Sent(address, port, endpoint, number)) = (set, *key) else {
        return None;
    };
    Some(((protocol, address, port), (endpoint, number)))
}

/// The set and key of such an element.
#[must_use]
pub fn gone_key<A: Address>(lost: &LostEndpoint<A>) -> (SetName, Key<A>) {
    let ((protocol, address, port), (endpoint, number)) = *lost;
    let key = Key::Sent(address, port, endpoint, number);
    (SetName::Gone(protocol), key)
}
