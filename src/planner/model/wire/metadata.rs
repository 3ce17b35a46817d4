//! The metadata of any object, of which kube-dnat reads some labels and annotations.
//!
//! The field numbers are those of `ObjectMeta` and `Time` in `generated.proto` of
//! `k8s.io/apimachinery/pkg/apis/meta/v1`.

use ::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, bytes, message, skip_field, string};
use prost::{DecodeError, Message};

use super::{null_as_default, present};

/// The `metadata` of any object.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(expecting = "struct Metadata", rename_all = "camelCase", default)]
pub struct WireMetadata {
    /// The value of `metadata.name`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The value of `metadata.namespace`, empty for a cluster-scoped kind.
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
    /// The value of `metadata.resourceVersion`.
    pub resource_version: Option<String>,
    /// The value of `metadata.creationTimestamp`.
    pub creation_timestamp: Option<WireTime>,
    /// The value of `metadata.deletionTimestamp`, if the object is being deleted.
    pub deletion_timestamp: Option<WireTime>,
    /// The labels that kube-dnat reads.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: WireLabels,
    /// The annotations that kube-dnat reads.
    #[serde(deserialize_with = "null_as_default")]
    pub annotations: WireAnnotations,
}

/// A time in the metadata of an object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(from = "String")]
pub enum WireTime {
    /// The text of JSON, in RFC 3339 unless the object is invalid.
    Text(String),
    /// The seconds since 1970, from protobuf.
    Seconds(i64),
}

impl From<String> for WireTime {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The labels that kube-dnat reads; a label without a value is present and empty.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(expecting = "struct Labels", default)]
pub struct WireLabels {
    /// The Service of a slice.
    #[serde(rename = "kubernetes.io/service-name")]
    pub service_name: Option<String>,
    /// The other proxy that serves a Service.
    #[serde(
        rename = "service.kubernetes.io/service-proxy-name",
        deserialize_with = "present"
    )]
    pub service_proxy_name: Option<String>,
    /// The mark of a headless Service's slice.
    #[serde(
        rename = "service.kubernetes.io/headless",
        deserialize_with = "present"
    )]
    pub headless: Option<String>,
    /// The zone of a Node.
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub zone: Option<String>,
    /// The mark of Endpoints that are not mirrored, with value `true`.
    #[serde(rename = "endpointslice.kubernetes.io/skip-mirror")]
    pub skip_mirror: Option<String>,
}

/// The annotations that kube-dnat reads.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(expecting = "struct Annotations", default)]
pub struct WireAnnotations {
    /// The mark of Endpoints that are a leader-election lock.
    #[serde(
        rename = "control-plane.alpha.kubernetes.io/leader",
        deserialize_with = "present"
    )]
    pub leader: Option<String>,
    /// The time of the change of a Pod or Service that caused a slice's state, in RFC 3339.
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub last_change_trigger_time: Option<String>,
    /// The mark of a bookmark that ends a streaming list (KEP-3157).
    #[serde(rename = "k8s.io/initial-events-end")]
    pub initial_events_end: Option<String>,
    /// The hash that selects the endpoint of a connection to a Service.
    #[serde(rename = "kube-dnat.io/balance")]
    pub balance: Option<String>,
    /// The weights of a Service's endpoints.
    #[serde(rename = "kube-dnat.io/weights")]
    pub weights: Option<String>,
    /// The time in which the share of a new endpoint of a Service grows.
    #[serde(rename = "kube-dnat.io/slow-start")]
    pub slow_start: Option<String>,
    /// Whether connections to removed endpoints of a Service are closed.
    #[serde(rename = "kube-dnat.io/close-removed")]
    pub close_removed: Option<String>,
    /// The additional ranges of ports of a Service.
    #[serde(rename = "kube-dnat.io/port-ranges")]
    pub port_ranges: Option<String>,
    /// What external policy Local does on a node without an endpoint of a Service.
    #[serde(rename = "kube-dnat.io/external-local-without-endpoints")]
    pub external_local_without_endpoints: Option<String>,
}

/// The field numbers of `ObjectMeta`.
mod tag {
    pub(super) const NAME: u32 = 1;
    pub(super) const NAMESPACE: u32 = 3;
    pub(super) const RESOURCE_VERSION: u32 = 6;
    pub(super) const CREATION_TIMESTAMP: u32 = 8;
    pub(super) const DELETION_TIMESTAMP: u32 = 9;
    pub(super) const LABELS: u32 = 11;
    pub(super) const ANNOTATIONS: u32 = 12;
}

/// The key of an entry of the labels or annotations, as a part of the decoded buffer.
#[derive(Clone, PartialEq, Message)]
struct MapKey {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// An entry of the labels or annotations.
#[derive(Clone, PartialEq, Message)]
struct MapEntry {
    /// The key.
    #[prost(string, tag = "1")]
    key: String,
    /// The value.
    #[prost(string, tag = "2")]
    value: String,
}

/// A time without its fraction of a second.
#[derive(Clone, PartialEq, Message)]
struct TimeMessage {
    /// The seconds since 1970; Go leaves them out for the zero time.
    #[prost(int64, optional, tag = "1")]
    seconds: Option<i64>,
}

/// A map of which a few keys are kept.
trait KnownKeys {
    /// Returns the field of a key, or `None` for a key that kube-dnat does not read.
    fn field(&mut self, key: &[u8]) -> Option<&mut Option<String>>;

    /// Returns the kept keys with their fields.
    fn fields(&self) -> impl Iterator<Item = (&'static str, &Option<String>)>;

    /// Decodes one entry; an entry that kube-dnat does not read needs no memory.
    fn merge_entry(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut entry = Bytes::new();
        bytes::merge(wire_type, &mut entry, buf, ctx)?;
        let MapKey { key } = MapKey::decode(entry.clone())?;
        if let Some(field) = self.field(&key) {
            *field = Some(MapEntry::decode(entry)?.value);
        }
        Ok(())
    }

    /// Returns the entries.
    fn entries(&self) -> impl Iterator<Item = MapEntry> {
        self.fields().filter_map(|(key, field)| {
            let (key, value) = (key.to_owned(), field.clone()?);
            Some(MapEntry { key, value })
        })
    }
}

impl KnownKeys for WireLabels {
    fn field(&mut self, key: &[u8]) -> Option<&mut Option<String>> {
        match key {
            b"kubernetes.io/service-name" => Some(&mut self.service_name),
            b"service.kubernetes.io/service-proxy-name" => Some(&mut self.service_proxy_name),
            b"service.kubernetes.io/headless" => Some(&mut self.headless),
            b"topology.kubernetes.io/zone" => Some(&mut self.zone),
            b"endpointslice.kubernetes.io/skip-mirror" => Some(&mut self.skip_mirror),
            _ => None,
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, &Option<String>)> {
        [
            ("kubernetes.io/service-name", &self.service_name),
            (
                "service.kubernetes.io/service-proxy-name",
                &self.service_proxy_name,
            ),
            ("service.kubernetes.io/headless", &self.headless),
            ("topology.kubernetes.io/zone", &self.zone),
            ("endpointslice.kubernetes.io/skip-mirror", &self.skip_mirror),
        ]
        .into_iter()
    }
}

impl KnownKeys for WireAnnotations {
    fn field(&mut self, key: &[u8]) -> Option<&mut Option<String>> {
        match key {
            b"control-plane.alpha.kubernetes.io/leader" => Some(&mut self.leader),
            b"endpoints.kubernetes.io/last-change-trigger-time" => {
                Some(&mut self.last_change_trigger_time)
            }
            b"k8s.io/initial-events-end" => Some(&mut self.initial_events_end),
            b"kube-dnat.io/balance" => Some(&mut self.balance),
            b"kube-dnat.io/weights" => Some(&mut self.weights),
            b"kube-dnat.io/slow-start" => Some(&mut self.slow_start),
            b"kube-dnat.io/close-removed" => Some(&mut self.close_removed),
            b"kube-dnat.io/port-ranges" => Some(&mut self.port_ranges),
            b"kube-dnat.io/external-local-without-endpoints" => {
                Some(&mut self.external_local_without_endpoints)
            }
            _ => None,
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, &Option<String>)> {
        [
            ("control-plane.alpha.kubernetes.io/leader", &self.leader),
            (
                "endpoints.kubernetes.io/last-change-trigger-time",
                &self.last_change_trigger_time,
            ),
            ("k8s.io/initial-events-end", &self.initial_events_end),
            ("kube-dnat.io/balance", &self.balance),
            ("kube-dnat.io/weights", &self.weights),
            ("kube-dnat.io/slow-start", &self.slow_start),
            ("kube-dnat.io/close-removed", &self.close_removed),
            ("kube-dnat.io/port-ranges", &self.port_ranges),
            (
                "kube-dnat.io/external-local-without-endpoints",
                &self.external_local_without_endpoints,
            ),
        ]
        .into_iter()
    }
}

/// Decodes a time; the zero time is none.
fn merge_time(
    wire_type: WireType,
    time: &mut Option<WireTime>,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    let mut decoded = TimeMessage::default();
    message::merge(wire_type, &mut decoded, buf, ctx)?;
    *time = decoded.seconds.map(WireTime::Seconds);
    Ok(())
}

impl WireMetadata {
    /// Returns the text fields that are not empty, with their numbers.
    fn texts(&self) -> impl Iterator<Item = (u32, &String)> {
        [
            (tag::NAME, Some(&self.name)),
            (tag::NAMESPACE, Some(&self.namespace)),
            (tag::RESOURCE_VERSION, self.resource_version.as_ref()),
        ]
        .into_iter()
        .filter_map(|(tag, text)| Some((tag, text.filter(|text| !text.is_empty())?)))
    }

    /// Returns the messages in it, with their numbers. A time that was read from JSON has none.
    fn times(&self) -> impl Iterator<Item = (u32, TimeMessage)> {
        [
            (tag::CREATION_TIMESTAMP, &self.creation_timestamp),
            (tag::DELETION_TIMESTAMP, &self.deletion_timestamp),
        ]
        .into_iter()
        .filter_map(|(tag, time)| match time {
            Some(WireTime::Seconds(seconds)) => Some((
                tag,
                TimeMessage {
                    seconds: Some(*seconds),
                },
            )),
            Some(WireTime::Text(_)) | None => None,
        })
    }

    /// Returns the kept entries of the maps, with the numbers of the maps.
    fn map_entries(&self) -> impl Iterator<Item = (u32, MapEntry)> {
        let labels = self.labels.entries().map(|entry| (tag::LABELS, entry));
        let annotations = self.annotations.entries();
        labels.chain(annotations.map(|entry| (tag::ANNOTATIONS, entry)))
    }
}

// Not derived: the derived decoder of a map keeps every entry.
impl Message for WireMetadata {
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            tag::NAME => string::merge(wire_type, &mut self.name, buf, ctx),
            tag::NAMESPACE => string::merge(wire_type, &mut self.namespace, buf, ctx),
            tag::RESOURCE_VERSION => {
                let version = self.resource_version.get_or_insert_default();
                string::merge(wire_type, version, buf, ctx)
            }
            tag::CREATION_TIMESTAMP => {
                merge_time(wire_type, &mut self.creation_timestamp, buf, ctx)
            }
            tag::DELETION_TIMESTAMP => {
                merge_time(wire_type, &mut self.deletion_timestamp, buf, ctx)
            }
            tag::LABELS => self.labels.merge_entry(wire_type, buf, ctx),
            tag::ANNOTATIONS => self.annotations.merge_entry(wire_type, buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.texts()
            .for_each(|(tag, text)| string::encode(tag, text, buf));
        self.times()
            .for_each(|(tag, time)| message::encode(tag, &time, buf));
        self.map_entries()
            .for_each(|(tag, entry)| message::encode(tag, &entry, buf));
    }

    fn encoded_len(&self) -> usize {
        let texts = self
            .texts()
            .map(|(tag, text)| string::encoded_len(tag, text));
        let times = self
            .times()
            .map(|(tag, time)| message::encoded_len(tag, &time));
        let entries = self
            .map_entries()
            .map(|(tag, entry)| message::encoded_len(tag, &entry));
        texts.chain(times).chain(entries).sum()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
