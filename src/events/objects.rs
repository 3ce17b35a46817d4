//! The objects that Events regard, as the API server has them.

use k8s_openapi::api::core::v1::{Endpoints, Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, Error};

use crate::planner::model::{ObjectKey, ObjectKind};

/// Where the API server has objects of a kind.
fn resource(kind: ObjectKind) -> ApiResource {
    match kind {
        ObjectKind::Service => ApiResource::erase::<Service>(&()),
        ObjectKind::EndpointSlice => ApiResource::erase::<EndpointSlice>(&()),
        ObjectKind::Endpoints => ApiResource::erase::<Endpoints>(&()),
        ObjectKind::Node => ApiResource::erase::<Node>(&()),
        ObjectKind::ServiceCidr => ApiResource::erase::<ServiceCIDR>(&()),
    }
}

/// Its namespace, if it has one, and its name.
fn split(object: &ObjectKey) -> (Option<&str>, &str) {
    match object.name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, &object.name),
    }
}

/// How an Event names an object.
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

/// What `kubectl describe` finds an object's Events by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Uid {
    Is(String),
    /// There is no such object any more.
    Gone,
    /// We may not see it.
    Hidden,
}

/// Asks for the uid of an object.
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
                object.metadata.uid.map_or(Uid::Hidden, Uid::Is)
            }))
        }
        Err(Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(Uid::Hidden),
        Err(error) => Err(error),
    }
}
