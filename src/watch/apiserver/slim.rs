//! An object as it arrives: the fields we read, and nothing else of it. Decoding never fails: the
//! watcher would drop a whole page of a list, or an event, for one object that does not decode.

use std::borrow::Cow;
use std::sync::Arc;

use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::kinds::Watched;
use crate::planner::model::wire::WireMetadata;
use crate::planner::model::{ObjectKey, RejectReason, Update, parse};

/// An object of kind `W`, or its identity and the error if it does not decode.
#[derive(Clone, Debug)]
pub(super) struct WatchedObject<W> {
    /// The `resourceVersion` from which the watcher continues, and nothing else.
    meta: ObjectMeta,
    /// The decoded object, or the error.
    object: Result<W, Malformed>,
}

/// An object that does not decode.
#[derive(Clone, Debug)]
struct Malformed {
    /// The metadata that could be decoded.
    metadata: WireMetadata,
    /// The error of the decoder.
    error: Arc<str>,
}

impl<W: Watched> WatchedObject<W> {
    /// Parses the object into an update of the model.
    pub(super) fn update(&self, our_node: &str) -> Update {
        match &self.object {
            Ok(object) => object.update(our_node),
            Err(Malformed { error, .. }) => Update {
                key: self.key(),
                object: None,
                rejected: vec![RejectReason::Malformed(Arc::clone(error))],
                triggered: None,
            },
        }
    }

    /// Returns the kind and name of the object.
    pub(super) fn key(&self) -> ObjectKey {
        parse::key(W::KIND, self.metadata())
    }

    /// Returns the metadata of the object.
    fn metadata(&self) -> &WireMetadata {
        match &self.object {
            Ok(object) => object.metadata(),
            Err(malformed) => &malformed.metadata,
        }
    }

    /// Decodes an object from JSON.
    fn decode(json: &str) -> Self {
        let object = serde_json::from_str::<W>(json).map_err(|error| Malformed {
            metadata: identity(json),
            error: error.to_string().into(),
        });
        let mut slim = Self {
            meta: ObjectMeta::default(),
            object,
        };
        let version = slim.metadata().resource_version.clone();
        slim.meta.resource_version = version;
        slim
    }
}

/// Decodes only name, namespace and version, since another field does not decode.
fn identity(json: &str) -> WireMetadata {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Named {
        metadata: Identity,
    }

    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Identity {
        name: String,
        namespace: String,
        resource_version: Option<String>,
    }

    let Identity {
        name,
        namespace,
        resource_version,
    } = serde_json::from_str::<Named>(json)
        .unwrap_or_default()
        .metadata;
    WireMetadata {
        name,
        namespace,
        resource_version,
        ..WireMetadata::default()
    }
}

impl<'de, W: Watched> Deserialize<'de> for WatchedObject<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text comes first, so that an error inside leaves the decoder at the next object.
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self::decode(raw.get()))
    }
}

impl<W: Watched> Resource for WatchedObject<W> {
    type DynamicType = ();
    // Lists and watches cover all namespaces.
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        W::KIND.to_string().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        W::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        W::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use kube::api::{ObjectList, WatchEvent};

    use super::*;
    use crate::planner::model::{Object, wire};

    const GOOD: &str = r#"{"metadata": {"name": "good", "namespace": "shop", "resourceVersion": "7",
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}}"#;
    const BAD: &str = r#"{"metadata": {"name": "bad", "namespace": "shop", "resourceVersion": "8"},
        "spec": {"ports": [{"port": "eighty"}]}}"#;
    const BAD_METADATA: &str = r#"{"metadata": {"name": 5}, "spec": {"ports": "none"}}"#;

    #[test]
    fn a_malformed_object_does_not_affect_the_others_of_a_list() {
        let list = format!(
            r#"{{"kind": "ServiceList", "apiVersion": "v1", "metadata": {{"resourceVersion": "9"}},
                "items": [{BAD}, {GOOD}, {BAD_METADATA}, null]}}"#
        );
        let list: ObjectList<WatchedObject<wire::WireService>> =
            serde_json::from_str(&list).unwrap();

        let updates: Vec<Update> = list.iter().map(|slim| slim.update("node")).collect();

        let keys: Vec<&str> = updates.iter().map(|update| &*update.key.name).collect();
        assert_eq!(keys, ["shop/bad", "shop/good", "default/", "default/"]);
        assert!(matches!(
            updates[0].rejected[..],
            [RejectReason::Malformed(_)]
        ));
        assert!(matches!(updates[1].object, Some(Object::Service(_))));
        assert_eq!(updates[2].object, None);
        assert_eq!(updates[3].object, None);
    }

    #[test]
    fn a_malformed_object_advances_the_resource_version() {
        let event = format!(r#"{{"type": "ADDED", "object": {BAD}}}"#);
        let event: WatchEvent<WatchedObject<wire::WireService>> =
            serde_json::from_str(&event).unwrap();

        let WatchEvent::Added(slim) = event else {
            panic!("{event:?}");
        };
        assert_eq!(slim.meta().resource_version.as_deref(), Some("8"));
        assert_eq!(&*slim.update("node").key.name, "shop/bad");
    }

    #[test]
    fn urls_are_those_of_the_api_server() {
        let urls = [
            WatchedObject::<wire::WireService>::url_path(&(), None),
            WatchedObject::<wire::WireEndpointSlice>::url_path(&(), None),
            WatchedObject::<wire::WireNode>::url_path(&(), None),
            WatchedObject::<wire::WireServiceCidr>::url_path(&(), None),
        ];
        assert_eq!(
            urls,
            [
                "/api/v1/services",
                "/apis/discovery.k8s.io/v1/endpointslices",
                "/api/v1/nodes",
                "/apis/networking.k8s.io/v1/servicecidrs"
            ]
        );
    }
}
