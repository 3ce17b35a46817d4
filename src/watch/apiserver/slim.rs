//! Objects as they arrive: only the fields of [`crate::model::wire`] are decoded.

use std::borrow::Cow;

use kube::api::ObjectMeta;
use kube::core::{ClusterResourceScope, Resource};
use kube::runtime::watcher;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::value::RawValue;

use crate::model::{Kind, Rejected, Update, parse, wire};

/// A kind of object that is watched.
pub(super) trait Watched:
    DeserializeOwned + Clone + std::fmt::Debug + Send + 'static
{
    const KIND: Kind;
    const GROUP: &'static str;
    const PLURAL: &'static str;

    fn metadata(&self) -> &wire::Metadata;
    fn parse(&self, our_node: &str) -> Update;
}

impl Watched for wire::Service {
    const KIND: Kind = Kind::Service;
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "services";

    fn metadata(&self) -> &wire::Metadata {
        &self.metadata
    }

    fn parse(&self, _: &str) -> Update {
        parse::service(self)
    }
}

impl Watched for wire::EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
    const GROUP: &'static str = "discovery.k8s.io";
    const PLURAL: &'static str = "endpointslices";

    fn metadata(&self) -> &wire::Metadata {
        &self.metadata
    }

    fn parse(&self, our_node: &str) -> Update {
        parse::slice(self, our_node)
    }
}

impl Watched for wire::Node {
    const KIND: Kind = Kind::Node;
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "nodes";

    fn metadata(&self) -> &wire::Metadata {
        &self.metadata
    }

    fn parse(&self, our_node: &str) -> Update {
        parse::node(self, our_node)
    }
}

impl Watched for wire::ServiceCidr {
    const KIND: Kind = Kind::ServiceCidr;
    const GROUP: &'static str = "networking.k8s.io";
    const PLURAL: &'static str = "servicecidrs";

    fn metadata(&self) -> &wire::Metadata {
        &self.metadata
    }

    fn parse(&self, _: &str) -> Update {
        parse::service_cidr(self)
    }
}

/// An object as it arrives. Decoding it never fails as long as it has a name: one that does not
/// decode must not stall the stream of the others.
#[derive(Clone, Debug)]
pub(super) struct Slim<T> {
    /// What kube's watcher wants to see of it.
    meta: ObjectMeta,
    object: Result<T, Nameless>,
}

/// An object of which only the name could be decoded.
#[derive(Clone, Debug)]
struct Nameless {
    metadata: wire::Metadata,
    reason: Rejected,
}

impl<T: Watched> Slim<T> {
    /// What the object says.
    pub(super) fn parsed(&self, our_node: &str) -> Update {
        match &self.object {
            Ok(object) => object.parse(our_node),
            Err(broken) => Update {
                key: parse::key(T::KIND, &broken.metadata),
                object: None,
                rejected: vec![broken.reason.clone()],
            },
        }
    }
}

/// What each object of an event says.
pub(super) fn parsed<T: Watched>(
    event: watcher::Event<Slim<T>>,
    our_node: &str,
) -> watcher::Event<Update> {
    match event {
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(object.parsed(our_node)),
        watcher::Event::InitDone => watcher::Event::InitDone,
        watcher::Event::Apply(object) => watcher::Event::Apply(object.parsed(our_node)),
        watcher::Event::Delete(object) => watcher::Event::Delete(object.parsed(our_node)),
    }
}

impl<'de, T: Watched> Deserialize<'de> for Slim<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Named {
            metadata: wire::Metadata,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let object = match serde_json::from_str::<T>(text.get()) {
            Ok(object) => Ok(object),
            Err(error) => {
                let named: Named = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                Err(Nameless {
                    metadata: named.metadata,
                    reason: Rejected::Malformed(error.to_string().into()),
                })
            }
        };
        let metadata = match &object {
            Ok(object) => object.metadata(),
            Err(broken) => &broken.metadata,
        };
        let meta = ObjectMeta {
            name: Some(metadata.name.clone()),
            namespace: Some(metadata.namespace.clone()).filter(|name| !name.is_empty()),
            resource_version: metadata.resource_version.clone(),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, object })
    }
}

impl<T: Watched> Resource for Slim<T> {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.to_string().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::PLURAL.into()
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
    use kube::core::WatchEvent;

    use super::*;

    #[test]
    fn an_object_that_does_not_decode_is_rejected_alone() {
        let line = r#"{"type":"ADDED","object":{"kind":"Service","metadata":{"name":"cart",
            "namespace":"shop","resourceVersion":"7","managedFields":[{"manager":"kubectl"}]},
            "spec":{"clusterIP":"10.96.0.1","ports":"none"}}}"#;
        let event: WatchEvent<Slim<wire::Service>> = serde_json::from_str(line).unwrap();
        let WatchEvent::Added(object) = event else {
            panic!("{event:?}");
        };
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
        let update = object.parsed("node-1");
        assert_eq!(&*update.key.name, "shop/cart");
        assert!(update.object.is_none());
        assert!(
            matches!(&update.rejected[..], [Rejected::Malformed(_)]),
            "{update:?}"
        );
    }
}
