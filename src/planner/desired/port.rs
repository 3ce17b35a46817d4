//! One port of a Service as elements.

use super::answering::UnusedEndpoints;
use super::{EndpointAddr, EndpointLists, Slots};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    Comment, DynamicChain, Element, EndpointList, FrontendKind, Key, SetName, Value, Verdict,
};

/// What happens to new connections to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// They go to the endpoints of policy Cluster.
    Cluster,
    /// They go to the endpoints of policy Local: there are some.
    Local,
    /// External policy Local: by source, to all endpoints or to those of this node.
    Split,
    /// Policy Local without an endpoint here, but with some elsewhere: silence.
    Drop,
    /// No endpoint anywhere.
    Refuse,
}

/// One port of a Service in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortElements<A: Address> {
    pub(super) shape: PortSpec<A>,
    /// Its endpoints and their slots.
    pub(super) lists: EndpointLists<A>,
    /// The addresses of those endpoints that are on this node, in order.
    pub(super) here: Vec<A>,
    /// Its endpoints that are in no list and answer all the same.
    pub(super) unused: UnusedEndpoints<A>,
}

/// All of a port but its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortSpec<A: Address> {
    pub(super) comment: Comment,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// `ClusterIPs` that it has.
    pub(super) cluster_ips: Vec<A>,
    /// External IPs that it has.
    pub(super) external_ips: Vec<A>,
    /// Load-balancer IPs that it has.
    pub(super) load_balancer_ips: Vec<A>,
    /// Who may use the load-balancer IPs; `None`: everyone.
    pub(super) source_ranges: Option<Vec<A::Net>>,
    pub(super) node_port: Option<u16>,
    /// Where connections to its `ClusterIPs` go.
    pub(super) internal: Route,
    /// Where connections to its other frontends go.
    pub(super) external: Route,
    /// For how many seconds a client keeps its endpoint.
    pub(super) affinity: Option<u32>,
}

/// Where the slots of a list stand: the map, and the key of a slot.
type SlotKey<A> = (SetName, Key<A>);

/// One frontend, or node port.
#[derive(Clone, Copy)]
pub(super) enum FrontendKey<A> {
    Frontend(Protocol, A, u16),
    Nodeport(Protocol, u16),
}

/// The maps that a kind of frontend is in.
struct FrontendMaps {
    dispatch: SetName,
    cluster: SetName,
    local: SetName,
    external: fn(Protocol) -> SetName,
    sticky: fn(Protocol) -> SetName,
    external_local: Verdict,
}

fn maps(frontends: FrontendKind) -> FrontendMaps {
    match frontends {
        FrontendKind::Address => FrontendMaps {
            dispatch: SetName::Services,
            cluster: SetName::ServicesCluster,
            local: SetName::ServicesLocal,
            external: SetName::External,
            sticky: SetName::Sticky,
            external_local: Verdict::ExternalLocal,
        },
        FrontendKind::Nodeport => FrontendMaps {
            dispatch: SetName::Nodeports,
            cluster: SetName::NodeportsCluster,
            local: SetName::NodeportsLocal,
            external: SetName::ExternalNodeports,
            sticky: SetName::StickyNodeports,
            external_local: Verdict::ExternalLocalNodeport,
        },
    }
}

/// A frontend, where its connections go, and the map that says so.
#[derive(Clone, Copy)]
struct DispatchedFrontend<A> {
    at: FrontendKey<A>,
    route: Route,
    map: SetName,
}

impl<A: Address> PortSpec<A> {
    fn at_address(&self, address: A) -> FrontendKey<A> {
        FrontendKey::Frontend(self.protocol, address, self.port)
    }

    fn internal_frontends(&self) -> impl Iterator<Item = FrontendKey<A>> {
        let addresses = self.cluster_ips.iter();
        addresses.map(|address| self.at_address(*address))
    }

    fn external_frontends(&self) -> impl Iterator<Item = FrontendKey<A>> {
        let addresses = self.external_ips.iter().chain(&self.load_balancer_ips);
        let addresses = addresses.map(|address| self.at_address(*address));
        let node_port = self.node_port;
        addresses.chain(node_port.map(|port| FrontendKey::Nodeport(self.protocol, port)))
    }

    /// The load-balancer frontends that `loadBalancerSourceRanges` restrict.
    fn restricted(&self) -> &[A] {
        match self.source_ranges {
            Some(_) => &self.load_balancer_ips,
            None => &[],
        }
    }

    /// Every frontend, and where its connections go.
    pub(super) fn frontends(&self) -> impl Iterator<Item = (FrontendKey<A>, Route)> {
        let internal = self.internal_frontends().map(|at| (at, self.internal));
        let external = self.external_frontends().map(|at| (at, self.external));
        internal.chain(external)
    }

    /// Every frontend with the map that says how an endpoint is picked.
    fn dispatched(&self) -> impl Iterator<Item = DispatchedFrontend<A>> {
        self.frontends().map(|(at, route)| {
            let map = match at {
                FrontendKey::Frontend(_, address, _) if self.restricted().contains(&address) => {
                    SetName::ServicesRestricted
                }
                FrontendKey::Frontend(..) | FrontendKey::Nodeport(..) => {
                    maps(at.frontends()).dispatch
                }
            };
            DispatchedFrontend { at, route, map }
        })
    }

    /// Where a table has the slots of a list: of the frontend that stands for all that have it.
    fn representative(
        &self,
        lists: [(Route, EndpointList); 2],
    ) -> Option<(FrontendKey<A>, EndpointList)> {
        let of = |route: Route| {
            let listed = lists.into_iter().find(|(listed, _)| *listed == route);
            listed.map(|(_, list)| list)
        };
        let internal =
            of(self.internal).and_then(|list| Some((self.internal_frontends().next()?, list)));
        internal.or_else(|| Some((self.external_frontends().next()?, of(self.external)?)))
    }
}

impl<A: Address> PortElements<A> {
    /// Where a table has the slots of the list that policy Cluster uses.
    #[must_use]
    pub fn cluster_slot(&self) -> Option<impl Fn(u32) -> SlotKey<A> + use<A>> {
        let lists = [
            (Route::Cluster, EndpointList::Own),
            (Route::Split, EndpointList::Cluster),
        ];
        let (at, list) = self.shape.representative(lists)?;
        Some(move |slot| at.slot(list, slot))
    }

    /// Where a table has the slots of the list that policy Local uses.
    #[must_use]
    pub fn local_slot(&self) -> Option<impl Fn(u32) -> SlotKey<A> + use<A>> {
        let lists = [
            (Route::Local, EndpointList::Own),
            (Route::Split, EndpointList::Own),
        ];
        let (at, list) = self.shape.representative(lists)?;
        Some(move |slot| at.slot(list, slot))
    }

    pub(super) fn push_elements(&self, elements: &mut Vec<Element<A>>) {
        let cluster_ips = self.shape.cluster_ips.iter();
        let set = if self.shape.affinity.is_some() {
            SetName::ClusterIpsSticky
        } else {
            SetName::ClusterIps
        };
        elements.extend(cluster_ips.map(|ip| shared(set, Key::Address(*ip))));
        let mut push = ElementWriter::new(&self.shape, elements);
        for dispatched in self.shape.dispatched() {
            push.route(dispatched, &self.lists);
        }
        for at in self.shape.external_frontends() {
            push.external(at);
        }
        push.source_ranges();
        self.push_slots(
            &SlotChanges::all(&self.lists.cluster),
            &SlotChanges::all(&self.lists.local),
            elements,
        );
        self.push_hairpin(elements);
    }

    /// The addresses that may be sent back to themselves.
    pub(super) fn push_hairpin(&self, elements: &mut Vec<Element<A>>) {
        let here = self.here.iter();
        elements.extend(here.map(|ip| shared(SetName::Hairpin, Key::Pair(*ip, *ip))));
    }

    /// Whether `other` has all the elements of this, but for those of endpoints.
    pub(super) fn differs_in_endpoints_only(&self, other: &Self) -> bool {
        let lists = |port: &Self| [port.lists.cluster.is_empty(), port.lists.local.is_empty()];
        self.shape == other.shape && lists(self) == lists(other)
    }

    /// The elements of the slots that `other` has not, and of their number if it has another.
    pub(super) fn push_changed_slots(&self, other: &Self, elements: &mut Vec<Element<A>>) {
        let cluster = SlotChanges::unlike(&self.lists.cluster, &other.lists.cluster);
        let local = SlotChanges::unlike(&self.lists.local, &other.lists.local);
        self.push_slots(&cluster, &local, elements);
    }

    fn push_slots(
        &self,
        cluster: &SlotChanges<A>,
        local: &SlotChanges<A>,
        elements: &mut Vec<Element<A>>,
    ) {
        let mut push = ElementWriter::new(&self.shape, elements);
        for DispatchedFrontend { at, route, map } in self.shape.dispatched() {
            let maps = maps(at.frontends());
            match route {
                Route::Cluster => push.balance(map, at, EndpointList::Own, cluster),
                Route::Local => push.balance(map, at, EndpointList::Own, local),
                Route::Split => {
                    push.balance(maps.cluster, at, EndpointList::Cluster, cluster);
                    push.balance(maps.local, at, EndpointList::Own, local);
                }
                Route::Drop | Route::Refuse => {}
            }
        }
    }
}

/// An element that others may want too, hence no one's.
fn shared<A: Address>(set: SetName, key: Key<A>) -> Element<A> {
    Element {
        set,
        key,
        value: Value::Nothing,
        comment: None,
    }
}

/// A list, or a part of it.
struct SlotChanges<A> {
    /// The number of all endpoints, if its verdict is meant too.
    count: Option<u32>,
    slots: Vec<(EndpointAddr<A>, u16)>,
}

impl<A: Address> SlotChanges<A> {
    fn count(list: &Slots<A>) -> Option<u32> {
        u32::try_from(list.len()).ok().filter(|count| *count > 0)
    }

    fn all(list: &Slots<A>) -> Self {
        Self {
            count: Self::count(list),
            slots: list.iter().collect(),
        }
    }

    fn unlike(list: &Slots<A>, other: &Slots<A>) -> Self {
        Self {
            count: Self::count(list).filter(|_| list.len() != other.len()),
            slots: list.unlike(other),
        }
    }
}

impl<A: Address> FrontendKey<A> {
    fn frontends(self) -> FrontendKind {
        match self {
            Self::Frontend(..) => FrontendKind::Address,
            Self::Nodeport(..) => FrontendKind::Nodeport,
        }
    }

    /// Its key in the verdict maps.
    fn key(self) -> Key<A> {
        match self {
            Self::Frontend(protocol, address, port) => Key::Frontend(protocol, address, port),
            Self::Nodeport(protocol, port) => Key::Nodeport(protocol, port),
        }
    }

    /// Its key in the sets that are told apart by protocol.
    fn key_of_protocol(self) -> Key<A> {
        match self {
            Self::Frontend(_, address, port) => Key::AddressPort(address, port),
            Self::Nodeport(_, port) => Key::Port(port),
        }
    }

    fn slot(self, list: EndpointList, slot: u32) -> SlotKey<A> {
        let slot = list.base() + slot;
        match self {
            Self::Frontend(protocol, address, port) => {
                (SetName::Endpoints, Key::Slot(protocol, address, port, slot))
            }
            Self::Nodeport(protocol, port) => (
                SetName::NodeportEndpoints,
                Key::NodeportSlot(protocol, port, slot),
            ),
        }
    }
}

/// Appends the elements of a port, each with its comment.
struct ElementWriter<'a, A: Address> {
    port: &'a PortSpec<A>,
    elements: &'a mut Vec<Element<A>>,
}

impl<'a, A: Address> ElementWriter<'a, A> {
    fn new(port: &'a PortSpec<A>, elements: &'a mut Vec<Element<A>>) -> Self {
        Self { port, elements }
    }

    fn element(&mut self, set: SetName, key: Key<A>, value: Value<A>) {
        self.elements.push(Element {
            set,
            key,
            value,
            comment: Some(self.port.comment.clone()),
        });
    }

    fn verdict(&mut self, set: SetName, at: FrontendKey<A>, verdict: Verdict) {
        self.element(set, at.key(), Value::Verdict(verdict));
    }

    /// All of a route but its slots.
    fn route(
        &mut self,
        DispatchedFrontend { at, route, map }: DispatchedFrontend<A>,
        lists: &EndpointLists<A>,
    ) {
        let maps = maps(at.frontends());
        if map == SetName::ServicesRestricted {
            self.verdict(maps.dispatch, at, Verdict::Restricted);
        }
        match route {
            Route::Cluster | Route::Local => {}
            Route::Split => {
                self.verdict(map, at, maps.external_local);
                if lists.local.is_empty() {
                    self.verdict(maps.local, at, Verdict::Drop);
                }
            }
            Route::Drop => self.verdict(map, at, Verdict::Drop),
            Route::Refuse => self.verdict(map, at, Verdict::Refuse),
        }
        if let (Some(seconds), Route::Cluster | Route::Local | Route::Split) =
            (self.port.affinity, route)
        {
            let learn = Verdict::OnDemand(DynamicChain::Learn(seconds));
            let set = (maps.sticky)(self.port.protocol);
            self.element(set, at.key_of_protocol(), Value::Verdict(learn));
        }
    }

    fn balance(
        &mut self,
        map: SetName,
        at: FrontendKey<A>,
        list: EndpointList,
        balanced: &SlotChanges<A>,
    ) {
        if let Some(count) = balanced.count {
            let chain = match self.port.affinity {
                Some(_) => DynamicChain::Sticky(at.frontends(), list, count),
                None => DynamicChain::Pick(at.frontends(), list, count),
            };
            self.verdict(map, at, Verdict::OnDemand(chain));
        }
        for ((address, port), slot) in &balanced.slots {
            let (set, key) = at.slot(list, u32::from(*slot));
            self.element(set, key, Value::Endpoint(*address, *port));
        }
    }

    /// How connections to an external frontend are masqueraded.
    fn external(&mut self, at: FrontendKey<A>) {
        let verdict = match self.port.external {
            Route::Cluster => Verdict::ToExternal,
            Route::Split => Verdict::ToExternalLocal,
            Route::Local | Route::Drop | Route::Refuse => return,
        };
        let map = (maps(at.frontends()).external)(self.port.protocol);
        self.element(map, at.key_of_protocol(), Value::Verdict(verdict));
    }

    fn source_ranges(&mut self) {
        let port = self.port;
        let Some(ranges) = &port.source_ranges else {
            return;
        };
        for address in &port.load_balancer_ips {
            for range in ranges {
                let key = Key::SourceRange(port.protocol, *address, port.port, *range);
                self.element(SetName::SourceRanges, key, Value::Nothing);
            }
        }
    }
}
