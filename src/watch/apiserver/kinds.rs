//! The watched kinds: their API resources, and the selectors that filter them at the API server.

use std::fmt::Debug;

use prost::Message;
use serde::de::DeserializeOwned;

use crate::planner::model::wire::{self, WireMetadata};
use crate::planner::model::{ObjectKind, Update, parse};

/// A watched kind, decoded to the fields that kube-dnat uses.
pub(super) trait Watched:
    Clone + Debug + Default + DeserializeOwned + Message + Send + Sync + 'static
{
    /// The kind in the model.
    const KIND: ObjectKind;
    /// The API group; empty for the core group.
    const GROUP: &'static str;
    /// The plural name in URLs.
    const PLURAL: &'static str;
    /// The label selector of the watch.
    const LABEL_SELECTOR: Option<&'static str> = None;
    /// Whether kube-dnat can run without this kind if the API server does not have or forbids it.
    const OPTIONAL: bool;

    /// Returns the field selector of the watch.
    fn field_selector(our_node: &str) -> Option<String>;

    /// Returns the `metadata` of the object.
    fn metadata(&self) -> &WireMetadata;

    /// Parses the object into an update of the model.
    fn update(&self, our_node: &str) -> Update;
}

impl Watched for wire::WireService {
    const KIND: ObjectKind = ObjectKind::Service;
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "services";
    const LABEL_SELECTOR: Option<&'static str> = Some("!service.kubernetes.io/service-proxy-name");
    const OPTIONAL: bool = false;

    fn field_selector(_our_node: &str) -> Option<String> {
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
    const LABEL_SELECTOR: Option<&'static str> = Some("!service.kubernetes.io/headless");
    const OPTIONAL: bool = false;

    fn field_selector(_our_node: &str) -> Option<String> {
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

    fn field_selector(our_node: &str) -> Option<String> {
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

    fn field_selector(_our_node: &str) -> Option<String> {
        None
    }

    fn metadata(&self) -> &WireMetadata {
        &self.metadata
    }

    fn update(&self, _our_node: &str) -> Update {
        parse::service_cidr(self)
    }
}
