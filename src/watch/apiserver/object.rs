//! An object as it arrives: the fields that kube-dnat reads, and nothing else of it.
//!
//! An object of JSON that does not decode costs only itself: the others of its list are used.

use std::sync::Arc;

use serde::Deserialize;

use super::kinds::Watched;
use super::version::ResourceVersion;
use crate::planner::model::wire::WireMetadata;
use crate::planner::model::{ObjectKey, RejectReason, Update, parse};

/// An object of kind `W`, or its identity and the error if it does not decode.
#[derive(Clone, Debug)]
pub(super) struct WatchedObject<W>(Result<W, Malformed>);

/// An object that does not decode.
#[derive(Clone, Debug)]
struct Malformed {
    /// The metadata that could be decoded.
    metadata: WireMetadata,
    /// The error of the decoder.
    error: Arc<str>,
}

impl<W: Watched> WatchedObject<W> {
    /// Creates an object that decoded.
    pub(super) fn from_decoded(object: W) -> Self {
        Self(Ok(object))
    }

    /// Decodes an object from JSON.
    pub(super) fn from_json(json: &str) -> Self {
        Self(serde_json::from_str::<W>(json).map_err(|error| Malformed {
            metadata: identity(json),
            error: error.to_string().into(),
        }))
    }

    /// Parses the object into an update of the model.
    pub(super) fn update(&self, our_node: &str) -> Update {
        match &self.0 {
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

    /// Returns the version of the object, from which a watch can continue.
    pub(super) fn version(&self) -> Option<ResourceVersion> {
        ResourceVersion::new(self.metadata().resource_version.as_deref())
    }

    /// Returns the metadata of the object.
    fn metadata(&self) -> &WireMetadata {
        match &self.0 {
            Ok(object) => object.metadata(),
            Err(malformed) => &malformed.metadata,
        }
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
