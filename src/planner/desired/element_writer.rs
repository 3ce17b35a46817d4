//! A writer of the elements of a Service port.

use super::frontend::{FrontendKey, maps};
use super::port::{PortSpec, Route, Selection};
use super::{EndpointAddr, PortSlots, Slots};
use crate::planner::model::{Address, NoLocalEndpoint, ServiceName};
use crate::planner::ruleset::{
    Comment, DynamicChain, Element, Key, SetName, SlotRange, Value, Verdict,
};

/// A frontend, the route of its connections, and the map with its verdict.
#[derive(Clone, Copy)]
pub(super) struct DispatchedFrontend<A> {
    /// The frontend.
    pub(super) frontend: FrontendKey<A>,
    /// The route of its connections.
    pub(super) route: Route,
    /// The map that has its verdict.
    pub(super) map: SetName,
}

/// The slots of a list to write: all, or those that changed.
pub(super) struct SlotChanges<A> {
    /// The number of slots in the list, if the verdict that depends on it is written, too.
    count: Option<u32>,
    /// The endpoints and slots to write.
    slots: Vec<(EndpointAddr<A>, u16)>,
}

impl<A: Address> SlotChanges<A> {
    /// Returns the number of slots of a list, if it has any.
    pub(super) fn count(list: &Slots<A>) -> Option<u32> {
        u32::try_from(list.len()).ok().filter(|count| *count > 0)
    }

    /// Returns all slots of a list.
    pub(super) fn all(list: &Slots<A>) -> Self {
        Self {
            count: Self::count(list),
            slots: list.iter().collect(),
        }
    }

    /// Returns the slots of a list that another version of it does not have.
    pub(super) fn between(list: &Slots<A>, other: &Slots<A>) -> Self {
        Self {
            count: Self::count(list).filter(|_| list.len() != other.len()),
            slots: list.difference(other),
        }
    }
}

/// A writer that appends the elements of a port, each with the port's comment.
pub(super) struct ElementWriter<'a, A: Address> {
    /// The port whose elements are written.
    port: &'a PortSpec<A>,
    /// The comment of the elements.
    comment: Comment,
    /// The elements so far.
    elements: &'a mut Vec<Element<A>>,
}

impl<'a, A: Address> ElementWriter<'a, A> {
    /// Returns a writer that appends to `elements`.
    pub(super) fn new(
        port: &'a PortSpec<A>,
        service: &ServiceName,
        elements: &'a mut Vec<Element<A>>,
    ) -> Self {
        Self {
            port,
            comment: port.comment(service),
            elements,
        }
    }

    /// Appends an element.
    pub(super) fn push(&mut self, set: SetName, key: Key<A>, value: Value<A>) {
        self.elements.push(Element {
            set,
            key,
            value,
            comment: Some(self.comment.clone()),
        });
    }

    /// Appends the verdict of a frontend, labelled in the maps that have every frontend.
    pub(super) fn push_verdict(
        &mut self,
        set: SetName,
        frontend: FrontendKey<A>,
        verdict: Verdict,
    ) {
        let is_dispatched = SetName::OF_FRONTENDS.contains(&set);
        let label = is_dispatched.then(|| self.port.label(frontend));
        self.elements.push(Element {
            set,
            key: frontend.key(),
            value: Value::Verdict(verdict),
            comment: Some(self.comment.clone().labelled(label)),
        });
    }

    /// Appends the elements of a frontend's route, except its slots.
    pub(super) fn push_route(
        &mut self,
        DispatchedFrontend {
            frontend,
            route,
            map,
        }: DispatchedFrontend<A>,
        lists: &PortSlots<A>,
    ) {
        let maps = maps(frontend.kind());
        if map == SetName::ServicesRestricted {
            self.push_verdict(maps.dispatch, frontend, Verdict::Restricted);
            self.push_verdict(SetName::ServicesDenied, frontend, Verdict::Deny);
        }
        match route {
            Route::Cluster | Route::Local => {}
            Route::LocalPolicy => {
                self.push_verdict(map, frontend, maps.external_local);
                if lists.local.is_empty() {
                    let verdict = match self.port.no_local_endpoint {
                        NoLocalEndpoint::Drop => Verdict::Drop,
                        NoLocalEndpoint::Reject => Verdict::Refuse,
                    };
                    self.push_verdict(maps.local, frontend, verdict);
                }
            }
            Route::Drop => self.push_verdict(map, frontend, Verdict::Drop),
            Route::Reject => self.push_verdict(map, frontend, Verdict::Refuse),
        }
        if let (Some(sticky), Some(seconds), Route::Cluster | Route::Local | Route::LocalPolicy) =
            (maps.sticky, self.port.selection.affinity(), route)
        {
            let learn = Verdict::Dynamic(DynamicChain::Learn(seconds));
            let set = sticky(self.port.protocol);
            self.push(set, frontend.key_without_protocol(), Value::Verdict(learn));
        }
    }

    /// Appends the slots of a list, and the verdict that balances over them.
    pub(super) fn push_slots(
        &mut self,
        map: SetName,
        frontend: FrontendKey<A>,
        list: SlotRange,
        changes: &SlotChanges<A>,
    ) {
        if let Some(count) = changes.count {
            let kind = frontend.kind();
            let chain = match self.port.selection {
                Selection::Random => DynamicChain::Pick(kind, list, count),
                Selection::Sticky(_) => DynamicChain::Sticky(kind, list, count),
                Selection::Hashed(input) => DynamicChain::Hashed(input, kind, list, count),
            };
            self.push_verdict(map, frontend, Verdict::Dynamic(chain));
        }
        for ((address, port), slot) in &changes.slots {
            let (set, key) = frontend.slot(list, u32::from(*slot));
            let value = match frontend {
                FrontendKey::Frontend(..) | FrontendKey::Nodeport(..) => {
                    Value::Endpoint(*address, *port)
                }
                FrontendKey::Ranges(..) => Value::Address(*address),
            };
            self.push(set, key, value);
        }
    }

    /// Appends the verdict that masquerades connections to an external frontend.
    pub(super) fn push_masquerading(&mut self, frontend: FrontendKey<A>) {
        let verdict = match self.port.external {
            Route::Cluster => Verdict::ToExternal,
            Route::LocalPolicy => Verdict::ToExternalLocal,
            Route::Local | Route::Drop | Route::Reject => return,
        };
        let map = (maps(frontend.kind()).external)(self.port.protocol);
        self.push(
            map,
            frontend.key_without_protocol(),
            Value::Verdict(verdict),
        );
    }

    /// Appends the element that answers packets of unknown connections to a frontend with a RST.
    pub(super) fn push_closing(&mut self, frontend: FrontendKey<A>) {
        let set = maps(frontend.kind()).close_removed;
        if let (Some(pickup), Some(set)) = (self.port.closes, set) {
            self.push(set(pickup), frontend.key_without_protocol(), Value::Nothing);
        }
    }

    /// Appends the port ranges of an address.
    pub(super) fn push_port_ranges(&mut self, frontend: FrontendKey<A>) {
        let (Some(ranges), FrontendKey::Ranges(protocol, address)) =
            (self.port.port_ranges(), frontend)
        else {
            return;
        };
        for range in ranges {
            let key = Key::PortRange(protocol, address, *range);
            self.push(SetName::PortRanges, key, Value::Nothing);
        }
    }

    /// Appends the `loadBalancerSourceRanges` of each load-balancer IP.
    pub(super) fn push_source_ranges(&mut self) {
        let port = self.port;
        let Some(ranges) = port.source_ranges() else {
            return;
        };
        for address in &port.load_balancer_ips {
            for range in ranges {
                let key = Key::SourceRange(port.protocol, *address, port.port, *range);
                self.push(SetName::SourceRanges, key, Value::Nothing);
            }
        }
    }
}
