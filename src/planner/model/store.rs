//! The objects as last reported, and the effects of a new report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::shared::Shared;
use super::slow_start::SlowStarts;
use super::{
    Address, EndpointSlice, NewEndpoints, Node, Object, ObjectKey, ObjectKind, Service,
    ServiceCidr, ServiceName, Topology, Update,
};

/// All objects that are not ignored, as last reported.
#[derive(Debug, Default)]
pub struct Store {
    /// The Services, by name.
    services: HashMap<ServiceName, Arc<Service>>,
    /// The slices of each `EndpointSlice` or Endpoints object.
    slices: HashMap<ObjectKey, Box<[EndpointSlice]>>,
    /// The sorted keys of the objects with slices of each Service. Most have one.
    slices_of: HashMap<ServiceName, Box<[ObjectKey]>>,
    /// The addresses of endpoints on this node, each with the number of endpoints that have it.
    local_addresses: BTreeMap<IpAddr, usize>,
    /// The number of endpoints on other nodes.
    remote_count: usize,
    /// The names of ports.
    port_names: Shared<str>,
    /// The places of endpoints.
    topologies: Shared<Topology>,
    /// The Node object of this node.
    node: Option<Node>,
    /// The `ServiceCIDR` objects, by name.
    service_cidrs: BTreeMap<Arc<str>, ServiceCidr>,
    /// The new endpoints of Services with slow start.
    slow_starts: SlowStarts,
}

/// The effect of a report.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// The report changes nothing.
    Nothing,
    /// A Service was added, changed or deleted.
    Service {
        /// The previous state; `None` if the Service is new.
        before: Option<Arc<Service>>,
        /// The new state; `None` if the Service is deleted.
        after: Option<Arc<Service>>,
    },
    /// The endpoints of these Services changed.
    Endpoints(BTreeSet<ServiceName>),
    /// The Node object or the ranges of `ClusterIPs` changed.
    Node,
}

impl Store {
    /// Applies a report, in time linear in the object.
    pub fn apply(&mut self, update: Update) -> StoreChange {
        let Update { key, object, .. } = update;
        let change = match key.kind {
            ObjectKind::Service => self.apply_service(&key, object),
            ObjectKind::EndpointSlice | ObjectKind::Endpoints => self.apply_slices(key, object),
            ObjectKind::Node => self.apply_node(object),
            ObjectKind::ServiceCidr => self.apply_service_cidr(key, object),
        };
        let changed: Vec<_> = match &change {
            StoreChange::Nothing | StoreChange::Node => Vec::new(),
            StoreChange::Service { before, after } => {
                let changed = before.iter().chain(after);
                changed.map(|service| &service.name).collect()
            }
            StoreChange::Endpoints(services) => services.iter().collect(),
        };
        for service in changed {
            self.update_slow_start(service);
        }
        change
    }

    /// Updates the new endpoints of a Service, if it has slow start.
    fn update_slow_start(&mut self, name: &ServiceName) {
        let service = self.services.get(name).cloned();
        let endpoints = service.and_then(|service| {
            let window = service.features.as_ref()?.slow_start?;
            let slices = self.slices(&service);
            let ready = slices.flat_map(EndpointSlice::ready_addresses);
            Some((window, ready.collect()))
        });
        self.slow_starts.update(name, endpoints);
    }

    /// Advances the shares of new endpoints to this time, which is the time since any moment that
    /// stays the same; returns the Services whose endpoints have other shares now.
    ///
    /// From the first call on, an endpoint that becomes ready is new.
    pub fn advance_slow_starts(&mut self, now: Duration) -> BTreeSet<ServiceName> {
        self.slow_starts.advance(now)
    }

    /// Returns the time at which the share of a new endpoint grows next.
    #[must_use]
    pub fn next_slow_start_step(&self) -> Option<Duration> {
        self.slow_starts.next_step()
    }

    /// Returns the new endpoints of a Service with slow start; `None` if it has none.
    #[must_use]
    pub fn new_endpoints(&self, service: &ServiceName) -> Option<&NewEndpoints> {
        self.slow_starts.new_endpoints(service)
    }

    /// Applies a report of a Service.
    fn apply_service(&mut self, key: &ObjectKey, object: Option<Object>) -> StoreChange {
        let name = ServiceName::from_key(&key.name);
        let after = match object {
            Some(Object::Service(mut service)) => {
                // Another holder of the object, as in a test, does not change what it sees.
                if let Some(service) = Arc::get_mut(&mut service) {
                    service.name = name.clone();
                    for port in &mut service.ports {
                        self.port_names.share(&mut port.name);
                    }
                }
                Some(service)
            }
            _ => None,
        };
        let before = match &after {
            Some(service) => self.services.insert(name, Arc::clone(service)),
            None => self.services.remove(&name),
        };
        if before == after {
            StoreChange::Nothing
        } else {
            StoreChange::Service { before, after }
        }
    }

    /// Applies a report of an `EndpointSlice` or Endpoints object.
    fn apply_slices(&mut self, key: ObjectKey, object: Option<Object>) -> StoreChange {
        let mut after = match object {
            Some(Object::Slices(slices)) => slices,
            _ => Box::default(),
        };
        let before = self.slices.remove(&key).unwrap_or_default();
        if before == after {
            if !after.is_empty() {
                self.slices.insert(key, after);
            }
            return StoreChange::Nothing;
        }
        let mut affected = BTreeSet::new();
        let remote_count = |slices: &[EndpointSlice]| -> usize {
            slices.iter().map(EndpointSlice::remote_count).sum()
        };
        self.remote_count = self.remote_count + remote_count(&after) - remote_count(&before);
        for address in before.iter().flat_map(EndpointSlice::local_addresses) {
            if let Some(count) = self.local_addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.local_addresses.remove(&address);
                }
            }
        }
        for address in after.iter().flat_map(EndpointSlice::local_addresses) {
            *self.local_addresses.entry(address).or_insert(0) += 1;
        }
        for slice in &before {
            self.change_slices_of(&slice.service, |keys| keys.retain(|other| *other != key));
            affected.insert(slice.service.clone());
        }
        for slice in &mut after {
            for port in &mut slice.ports {
                self.port_names.share(&mut port.name);
            }
            for topology in slice.topologies() {
                self.topologies.share(topology);
            }
            // One allocation serves all that name the Service.
            if let Some((name, _)) = self.services.get_key_value(&slice.service) {
                slice.service = name.clone();
            }
            self.change_slices_of(&slice.service, |keys| {
                if let Err(position) = keys.binary_search(&key) {
                    keys.insert(position, key.clone());
                }
            });
            affected.insert(slice.service.clone());
        }
        if !after.is_empty() {
            self.slices.insert(key, after);
        }
        StoreChange::Endpoints(affected)
    }

    /// Changes the keys of the objects with slices of a Service.
    fn change_slices_of(&mut self, service: &ServiceName, change: impl Fn(&mut Vec<ObjectKey>)) {
        let mut keys = self.slices_of.remove(service).unwrap_or_default().into();
        change(&mut keys);
        if !keys.is_empty() {
            self.slices_of.insert(service.clone(), keys.into());
        }
    }

    /// Applies a report of a Node.
    fn apply_node(&mut self, object: Option<Object>) -> StoreChange {
        let after = match object {
            Some(Object::Node(node)) => Some(node),
            // Another Node, or this node's was deleted: its last state still describes this
            // machine.
            _ => return StoreChange::Nothing,
        };
        if self.node == after {
            return StoreChange::Nothing;
        }
        self.node = after;
        StoreChange::Node
    }

    /// Applies a report of a `ServiceCIDR`.
    fn apply_service_cidr(&mut self, key: ObjectKey, object: Option<Object>) -> StoreChange {
        let before = match object {
            Some(Object::ServiceCidr(cidr)) => {
                let before = self.service_cidrs.insert(key.name, cidr.clone());
                if before.as_ref() == Some(&cidr) {
                    return StoreChange::Nothing;
                }
                return StoreChange::Node;
            }
            _ => self.service_cidrs.remove(&key.name),
        };
        if before.is_some() {
            StoreChange::Node
        } else {
            StoreChange::Nothing
        }
    }

    /// Returns a Service by its name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Returns the sorted names of all Services, in time linear in their number.
    #[must_use]
    pub fn service_names(&self) -> BTreeSet<ServiceName> {
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered set")]
        self.services.keys().cloned().collect()
    }

    /// Returns the slices that apply to a Service, in the order of their keys.
    ///
    /// Slices from Endpoints objects apply only to a Service without a selector.
    pub fn slices(&self, service: &Service) -> impl Iterator<Item = &EndpointSlice> {
        let name = service.name.clone();
        let uses_mirrored = !service.has_selector;
        self.slices_of
            .get(&name)
            .into_iter()
            .flatten()
            .filter_map(|key| self.slices.get(key))
            .flatten()
            .filter(move |slice| slice.service == name && (uses_mirrored || !slice.mirrored))
    }

    /// Returns the Services with an endpoint at one of these addresses.
    ///
    /// Takes time linear in all endpoints.
    #[must_use]
    pub fn services_with_endpoints<A: Address>(
        &self,
        addresses: &BTreeSet<A>,
    ) -> BTreeSet<ServiceName> {
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered set")]
        let slices = self.slices.values().flatten();
        let has_one = |slice: &&EndpointSlice| {
            A::endpoints(&slice.addresses)
                .unwrap_or_default()
                .iter()
                .any(|endpoint| addresses.contains(&endpoint.address))
        };
        slices
            .filter(has_one)
            .map(|slice| slice.service.clone())
            .collect()
    }

    /// Returns the sorted addresses of endpoints on this node that are in a range.
    pub fn local_endpoints_in(
        &self,
        range: impl RangeBounds<IpAddr>,
    ) -> impl Iterator<Item = IpAddr> {
        self.local_addresses
            .range(range)
            .map(|(address, _)| *address)
    }

    /// Returns whether there are endpoints with a node name, but none on this node.
    #[must_use]
    pub fn has_only_remote_endpoints(&self) -> bool {
        self.local_addresses.is_empty() && self.remote_count > 0
    }

    /// Returns the Node object of this node, if it has been reported.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Returns the `ServiceCIDR` objects, in the order of their names.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &ServiceCidr> {
        self.service_cidrs.values()
    }
}
