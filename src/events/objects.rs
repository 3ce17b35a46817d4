//! References to the objects that Events are about.

use k8s_openapi::api::core::v1::{Endpoints, Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, Error};

use crate::planner::model::{ObjectKey, ObjectKind};

/// Returns the API resource of a kind.
fn resource(kind: ObjectKind) -> ApiResource {
    match kind {
        ObjectKind::Service => ApiResource::erase::<Service>(&()),
        ObjectKind::EndpointSlice => ApiResource::erase::<EndpointSlice>(&()),
        ObjectKind::Endpoints => ApiResource::erase::<Endpoints>(&()),
        ObjectKind::Node => ApiResource::erase::<Node>(&()),
        ObjectKind::ServiceCidr => ApiResource::erase::<ServiceCIDR>(&()),
    }
}

/// Splits the name of an object into its namespace, if it has one, and its own name.
fn split(object: &ObjectKey) -> (Option<&str>, &str) {
    match object.name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, &object.name),
    }
}

/// Builds the reference to an object in the field `regarding` of an Event.
pub(super) fn reference(object: &ObjectKey, uid: Option<String>) -> ObjectReference {
    let ApiResource {
        api_version, kind, ..
    } = resource(object.kind);
    let (namespace, name) = split(object);
    ObjectReference {
        api_version: Some(api_version),
        kind: Some(kind),
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        uid,
        ..ObjectReference::default()
    }
}

/// The uid of an object, by which `kubectl describe` finds its Events.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Uid {
    /// The object exists and has this uid.
    Known(String),
    /// The object does not exist any more.
    Gone,
    /// The API server does not show the object.
    Hidden,
}

/// Reads the uid of an object.
///
/// Lists one object's metadata: the `ClusterRole` of kube-proxy may list Services, but not get one.
pub(super) async fn uid(client: &Client, object: &ObjectKey) -> Result<Uid, Error> {
    let resource = resource(object.kind);
    let (namespace, name) = split(object);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let one = ListParams::default().fields(&format!("metadata.name={name}"));
    match api.list_metadata(&one).await {
        Ok(list) => {
            let object = list.items.into_iter().next();
            Ok(object.map_or(Uid::Gone, |object| {
                object.metadata.uid.map_or(Uid::Hidden, Uid::Known)
            }))
        }
        Err(Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(Uid::Hidden),
        Err(error) => Err(error),
    }
}
