//! The kinds that are watched: where the API server has them, and what it is asked to leave out.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

use crate::planner::model::wire::{self, WireMetadata};
use crate::planner::model::{ObjectKind, Update, parse};

/// A kind of object as far as we read it.
pub(super) trait Watched: Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    /// Which kind.
    const KIND: ObjectKind;
    /// Its API group; empty for the core group.
    const GROUP: &'static str;
    /// Its plural, as it stands in URLs.
    const PLURAL: &'static str;
    /// What labels an object must have or not have to be sent at all.
    const LABELS: Option<&'static str> = None;
    /// Whether rules can be made without it, when the API server does not have or show it.
    const OPTIONAL: bool;

    /// What fields an object must have or not have to be sent at all.
    fn fields(our_node: &str) -> Option<String>;

    /// Its `metadata`.
    fn metadata(&self) -> &WireMetadata;

    /// What it means.
    fn update(&self, our_node: &str) -> Update;
}

impl Watched for wire::WireService {
    const KIND: ObjectKind = ObjectKind::Service;
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "services";
    const LABELS: Option<&'static str> = Some("!service.kubernetes.io/service-proxy-name");
    const OPTIONAL: bool = false;

    fn fields(_our_node: &str) -> Option<String> {
        Some("spec.clusterIP!=None".to_owned())
    }

    fn metadata(&self) -> &WireMetadata {
        &self.metadata
    }

    fn update(&self, _our_node: &str) -> Update {
        parse::service(self)
    }
}

impl Watched for wire::WireEndpointSlice {
    const KIND: ObjectKind = ObjectKind::EndpointSlice;
    const GROUP: &'static str = "discovery.k8s.io";
    const PLURAL: &'static str = "endpointslices";
    const LABELS: Option<&'static str> = Some("!service.kubernetes.io/headless");
    const OPTIONAL: bool = false;

    fn fields(_our_node: &str) -> Option<String> {
        None
    }

    fn metadata(&self) -> &WireMetadata {
        &self.metadata
    }

    fn update(&self, our_node: &str) -> Update {
        parse::slice(self, our_node)
    }
}

impl Watched for wire::WireNode {
    const KIND: ObjectKind = ObjectKind::Node;
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "nodes";
    const OPTIONAL: bool = true;

    fn fields(our_node: &str) -> Option<String> {
        Some(format!("metadata.name={our_node}"))
    }

    fn metadata(&self) -> &WireMetadata {
        &self.metadata
    }

    fn update(&self, our_node: &str) -> Update {
        parse::node(self, our_node)
    }
}

impl Watched for wire::WireServiceCidr {
    const KIND: ObjectKind = ObjectKind::ServiceCidr;
    const GROUP: &'static str = "networking.k8s.io";
    const PLURAL: &'static str = "servicecidrs";
    const OPTIONAL: bool = true;

    fn fields(_our_node: &str) -> Option<String> {
        None
    }

    fn metadata(&self) -> &WireMetadata {
        &self.metadata
    }

    fn update(&self, _our_node: &str) -> Update {
        parse::service_cidr(self)
    }
}
