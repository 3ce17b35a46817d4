//! The objects as last reported, and what a new report touches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeBounds;
use std::sync::Arc;

use super::{
    Address, EndpointSlice, Node, Object, ObjectKey, ObjectKind, Service, ServiceCidr, ServiceName,
    Update,
};

/// Every object that counts, as last reported.
#[derive(Debug, Default)]
pub struct Store {
    services: HashMap<ServiceName, Arc<Service>>,
    slices: HashMap<ObjectKey, Vec<EndpointSlice>>,
    slices_of: HashMap<ServiceName, BTreeSet<ObjectKey>>,
    /// The addresses of endpoints on this node, and in how many slices each is.
    here: BTreeMap<IpAddr, usize>,
    /// How many endpoints are on other nodes.
    elsewhere: usize,
    node: Option<Node>,
    service_cidrs: BTreeMap<Arc<str>, ServiceCidr>,
}

/// What a report changed.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// Nothing.
    Nothing,
    /// A Service.
    Service {
        /// What it was; `None` if it is new.
        before: Option<Arc<Service>>,
        /// What it is; `None` if it is gone.
        after: Option<Arc<Service>>,
    },
    /// The endpoints of these Services.
    Endpoints(BTreeSet<ServiceName>),
    /// What the node knows of itself or of `ClusterIPs`.
    Node,
}

impl Store {
    /// Takes in a report. Linear in the object.
    pub fn apply(&mut self, update: Update) -> StoreChange {
        let Update { key, object, .. } = update;
        match key.kind {
            ObjectKind::Service => self.apply_service(&key, object),
            ObjectKind::EndpointSlice | ObjectKind::Endpoints => self.apply_slices(key, object),
            ObjectKind::Node => self.apply_node(object),
            ObjectKind::ServiceCidr => self.apply_service_cidr(key, object),
        }
    }

    fn apply_service(&mut self, key: &ObjectKey, object: Option<Object>) -> StoreChange {
        let name = ServiceName::of(&key.name);
        let after = match object {
            Some(Object::Service(service)) => Some(service),
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

    fn apply_slices(&mut self, key: ObjectKey, object: Option<Object>) -> StoreChange {
        let after = match object {
            Some(Object::Slices(slices)) => slices,
            _ => Vec::new(),
        };
        let before = self.slices.remove(&key).unwrap_or_default();
        if before == after {
            if !after.is_empty() {
                self.slices.insert(key, after);
            }
            return StoreChange::Nothing;
        }
        let mut touched = BTreeSet::new();
        let elsewhere = |slices: &[EndpointSlice]| -> usize {
            slices.iter().map(EndpointSlice::elsewhere).sum()
        };
        self.elsewhere = self.elsewhere + elsewhere(&after) - elsewhere(&before);
        for address in before.iter().flat_map(EndpointSlice::here) {
            if let Some(count) = self.here.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.here.remove(&address);
                }
            }
        }
        for address in after.iter().flat_map(EndpointSlice::here) {
            *self.here.entry(address).or_insert(0) += 1;
        }
        for slice in &before {
            if let Some(keys) = self.slices_of.get_mut(&slice.service) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.slices_of.remove(&slice.service);
                }
            }
            touched.insert(slice.service.clone());
        }
        for slice in &after {
            let keys = self.slices_of.entry(slice.service.clone()).or_default();
            keys.insert(key.clone());
            touched.insert(slice.service.clone());
        }
        if !after.is_empty() {
            self.slices.insert(key, after);
        }
        StoreChange::Endpoints(touched)
    }

    fn apply_node(&mut self, object: Option<Object>) -> StoreChange {
        let after = match object {
            Some(Object::Node(node)) => Some(node),
            // Another Node, or ours is gone: what it said last stays true of this machine.
            _ => return StoreChange::Nothing,
        };
        if self.node == after {
            return StoreChange::Nothing;
        }
        self.node = after;
        StoreChange::Node
    }

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

    /// The Service of that name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The names of all Services, in order. Linear in what exists: for a full sync.
    #[must_use]
    pub fn service_names(&self) -> BTreeSet<ServiceName> {
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered set")]
        self.services.keys().cloned().collect()
    }

    /// The slices that count for a Service, in the order of their keys: mirrored ones only if it
    /// has no selector.
    pub fn slices(&self, service: &Service) -> impl Iterator<Item = &EndpointSlice> {
        let name = service.name.clone();
        let mirror = !service.has_selector;
        self.slices_of
            .get(&name)
            .into_iter()
            .flatten()
            .filter_map(|key| self.slices.get(key))
            .flatten()
            .filter(move |slice| slice.service == name && (mirror || !slice.mirrored))
    }

    /// The Services with an endpoint at one of these addresses, in order. Linear in what exists.
    #[must_use]
    pub fn services_with_endpoints<A: Address>(
        &self,
        addresses: &BTreeSet<A>,
    ) -> BTreeSet<ServiceName> {
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered set")]
        let slices = self.slices.values().flatten();
        let has_one = |slice: &&EndpointSlice| {
            let endpoints = A::endpoints(&slice.addresses).unwrap_or_default();
            let mut endpoints = endpoints.iter();
            endpoints.any(|endpoint| addresses.contains(&endpoint.address))
        };
        slices
            .filter(has_one)
            .map(|slice| slice.service.clone())
            .collect()
    }

    /// The addresses of endpoints on this node that are in a range, in order.
    pub fn local_endpoints_in(
        &self,
        range: impl RangeBounds<IpAddr>,
    ) -> impl Iterator<Item = IpAddr> {
        self.here.range(range).map(|(address, _)| *address)
    }

    /// Whether endpoints are said to be on nodes, and none of them on this one.
    #[must_use]
    pub fn is_everything_elsewhere(&self) -> bool {
        self.here.is_empty() && self.elsewhere > 0
    }

    /// Our own Node, once it was seen.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The `ServiceCIDR` objects, in the order of their names.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &ServiceCidr> {
        self.service_cidrs.values()
    }
}
