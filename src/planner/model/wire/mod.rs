//! The fields of Kubernetes API objects that kube-dnat reads, as in JSON, YAML or protobuf.
//!
//! All other fields are skipped while they are decoded and need no memory. An absent field and one
//! that is `null` are equal: Go writes `null` for a list or time that is not set.
//!
//! The field numbers are those of `generated.proto` in `k8s.io/api/core/v1`, `discovery/v1` and
//! `networking/v1`. A message that Go does not hold behind a pointer is always there, and `required`
//! here, which means for prost: the default if it is absent. `int64` also reads an `int32`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

mod metadata;

pub use metadata::{WireAnnotations, WireLabels, WireMetadata, WireTime};

/// A Service of API version `v1`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct Service", rename_all = "camelCase", default)]
pub struct WireService {
    /// The name, namespace and labels.
    #[prost(message, required, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The desired state.
    #[prost(message, required, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireServiceSpec,
    /// The state that the load balancer's controller reports.
    #[prost(message, required, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub status: WireServiceStatus,
}

/// The `spec` of a Service.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct ServiceSpec", rename_all = "camelCase", default)]
pub struct WireServiceSpec {
    /// The type: `ClusterIP` (also if empty), `NodePort`, `LoadBalancer` or `ExternalName`.
    #[prost(string, tag = "4")]
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub service_type: String,
    /// The first of `cluster_ips`, `None` for a headless Service.
    #[prost(string, tag = "3")]
    #[serde(rename = "clusterIP", deserialize_with = "null_as_default")]
    pub cluster_ip: String,
    /// The `ClusterIPs`, one per family.
    #[prost(string, repeated, tag = "18")]
    #[serde(rename = "clusterIPs", deserialize_with = "null_as_default")]
    pub cluster_ips: Vec<String>,
    /// The external IPs.
    #[prost(string, repeated, tag = "5")]
    #[serde(rename = "externalIPs", deserialize_with = "null_as_default")]
    pub external_ips: Vec<String>,
    /// The ports.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireServicePort>,
    /// The internal policy: `Cluster` (also if absent) or `Local`.
    #[prost(string, optional, tag = "22")]
    pub internal_traffic_policy: Option<String>,
    /// The external policy: `Cluster` (also if absent) or `Local`.
    #[prost(string, optional, tag = "11")]
    pub external_traffic_policy: Option<String>,
    /// The port of the health check for load balancers, 0 for none.
    #[prost(int64, tag = "12")]
    #[serde(deserialize_with = "null_as_default")]
    pub health_check_node_port: i64,
    /// The session affinity: `None` (also if absent) or `ClientIP`.
    #[prost(string, optional, tag = "7")]
    pub session_affinity: Option<String>,
    /// The options of the session affinity.
    #[prost(message, required, tag = "14")]
    #[serde(deserialize_with = "null_as_default")]
    pub session_affinity_config: WireSessionAffinityConfig,
    /// The source ranges that may use the load-balancer IPs.
    #[prost(string, repeated, tag = "9")]
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// The mark of a `spec.selector` that names any label.
    #[prost(message, optional, tag = "2")]
    #[serde(deserialize_with = "entry_of_map")]
    pub selector: Option<WireEntry>,
}

/// The mark of a map with entries, whose keys and values do not matter.
///
/// The entries of a map are messages of one field, and all of them decode into one mark.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireEntry {}

/// The `spec.sessionAffinityConfig` of a Service.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(
    expecting = "struct SessionAffinityConfig",
    rename_all = "camelCase",
    default
)]
pub struct WireSessionAffinityConfig {
    /// The options of affinity `ClientIP`.
    #[prost(message, required, tag = "1")]
    #[serde(rename = "clientIP", deserialize_with = "null_as_default")]
    pub client_ip: WireClientIpConfig,
}

/// The `spec.sessionAffinityConfig.clientIP` of a Service.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct ClientIpConfig", rename_all = "camelCase", default)]
pub struct WireClientIpConfig {
    /// The timeout in seconds.
    #[prost(int64, optional, tag = "1")]
    pub timeout_seconds: Option<i64>,
}

/// An element of `spec.ports` of a Service.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct ServicePort", rename_all = "camelCase", default)]
pub struct WireServicePort {
    /// The name, empty if the port is the only one.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The protocol: `TCP` (also if empty), `UDP` or `SCTP`.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// The port number at the Service's addresses.
    #[prost(int64, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub port: i64,
    /// The node port, 0 for none.
    #[prost(int64, tag = "5")]
    #[serde(deserialize_with = "null_as_default")]
    pub node_port: i64,
}

/// The `status` of a Service.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct ServiceStatus", rename_all = "camelCase", default)]
pub struct WireServiceStatus {
    /// The state of the load balancer.
    #[prost(message, required, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer: WireLoadBalancerStatus,
}

/// The `status.loadBalancer` of a Service.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(
    expecting = "struct LoadBalancerStatus",
    rename_all = "camelCase",
    default
)]
pub struct WireLoadBalancerStatus {
    /// The addresses of the load balancer.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub ingress: Vec<WireLoadBalancerIngress>,
}

/// An element of `status.loadBalancer.ingress` of a Service.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(
    expecting = "struct LoadBalancerIngress",
    rename_all = "camelCase",
    default
)]
pub struct WireLoadBalancerIngress {
    /// The address, empty if there is only a host name.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// The mode: `VIP` (also if absent) or `Proxy`.
    #[prost(string, optional, tag = "3")]
    pub ip_mode: Option<String>,
}

/// An `EndpointSlice` of API version `discovery.k8s.io/v1`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct EndpointSlice", rename_all = "camelCase", default)]
pub struct WireEndpointSlice {
    /// The name, namespace and labels.
    #[prost(message, required, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The type of the addresses: `IPv4`, `IPv6` or `FQDN`.
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The endpoints.
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<WireEndpoint>,
    /// The ports of every endpoint.
    #[prost(message, repeated, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireEndpointPort>,
}

/// An element of `endpoints` of an `EndpointSlice`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct Endpoint", rename_all = "camelCase", default)]
pub struct WireEndpoint {
    /// The addresses; only the first is used.
    #[prost(string, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    /// The conditions of the endpoint.
    #[prost(message, required, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub conditions: WireEndpointConditions,
    /// The name of the endpoint's Node.
    #[prost(string, optional, tag = "6")]
    pub node_name: Option<String>,
    /// The name of the endpoint's zone.
    #[prost(string, optional, tag = "7")]
    pub zone: Option<String>,
    /// The topology hints.
    #[prost(message, required, tag = "8")]
    #[serde(deserialize_with = "null_as_default")]
    pub hints: WireEndpointHints,
}

/// The `hints` of an endpoint.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct EndpointHints", rename_all = "camelCase", default)]
pub struct WireEndpointHints {
    /// The zones that the endpoint is for.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub for_zones: Vec<WireName>,
    /// The nodes that the endpoint is for.
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub for_nodes: Vec<WireName>,
}

/// A reference by name.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct Name", default)]
pub struct WireName {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The `conditions` of an endpoint.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(
    expecting = "struct EndpointConditions",
    rename_all = "camelCase",
    default
)]
pub struct WireEndpointConditions {
    /// Whether the endpoint accepts new connections, `true` if absent.
    #[prost(bool, optional, tag = "1")]
    pub ready: Option<bool>,
    /// Whether the endpoint answers, `true` if absent.
    #[prost(bool, optional, tag = "2")]
    pub serving: Option<bool>,
    /// Whether the endpoint is terminating, `false` if absent.
    #[prost(bool, optional, tag = "3")]
    pub terminating: Option<bool>,
}

/// An element of `ports` of an `EndpointSlice` or of a subset of Endpoints.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct EndpointPort", rename_all = "camelCase", default)]
pub struct WireEndpointPort {
    /// The name of the Service port.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The protocol: `TCP` (also if empty), `UDP` or `SCTP`.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// The port number; if absent, all ports, which a proxy does not support.
    #[prost(int64, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub port: i64,
}

/// Endpoints of API version `v1`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Endpoints", rename_all = "camelCase", default)]
pub struct WireEndpoints {
    /// The name, which is that of the Service, the namespace and labels.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The groups of endpoints with the same ports.
    #[serde(deserialize_with = "null_as_default")]
    pub subsets: Vec<WireEndpointSubset>,
}

/// An element of `subsets` of Endpoints.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointSubset", rename_all = "camelCase", default)]
pub struct WireEndpointSubset {
    /// The ready endpoints.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<WireEndpointAddress>,
    /// The endpoints that are not ready.
    #[serde(deserialize_with = "null_as_default")]
    pub not_ready_addresses: Vec<WireEndpointAddress>,
    /// The ports of every endpoint.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireEndpointPort>,
}

/// An address in a subset of Endpoints.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct EndpointAddress",
    rename_all = "camelCase",
    default
)]
pub struct WireEndpointAddress {
    /// The address, of any family.
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// The name of the endpoint's Node.
    pub node_name: Option<String>,
}

/// A Node of API version `v1`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct Node", rename_all = "camelCase", default)]
pub struct WireNode {
    /// The name and labels.
    #[prost(message, required, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The configuration.
    #[prost(message, required, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireNodeSpec,
    /// The state that the kubelet reports.
    #[prost(message, required, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub status: WireNodeStatus,
}

/// The `spec` of a Node.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct NodeSpec", rename_all = "camelCase", default)]
pub struct WireNodeSpec {
    /// The address ranges of the Pods, one per family.
    #[prost(string, repeated, tag = "7")]
    #[serde(rename = "podCIDRs", deserialize_with = "null_as_default")]
    pub pod_cidrs: Vec<String>,
    /// The taints.
    #[prost(message, repeated, tag = "5")]
    #[serde(deserialize_with = "null_as_default")]
    pub taints: Vec<WireTaint>,
}

/// An element of `spec.taints` of a Node.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct Taint", default)]
pub struct WireTaint {
    /// The key of the taint.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub key: String,
}

/// The `status` of a Node.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct NodeStatus", rename_all = "camelCase", default)]
pub struct WireNodeStatus {
    /// The addresses and host names.
    #[prost(message, repeated, tag = "5")]
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<WireNodeAddress>,
}

/// An element of `status.addresses` of a Node.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct NodeAddress", rename_all = "camelCase", default)]
pub struct WireNodeAddress {
    /// The type of the address, such as `InternalIP`, `ExternalIP` or `Hostname`.
    #[prost(string, tag = "1")]
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The address or host name.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
}

/// A `ServiceCIDR` of API version `networking.k8s.io/v1`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(expecting = "struct ServiceCidr", rename_all = "camelCase", default)]
pub struct WireServiceCidr {
    /// The name.
    #[prost(message, required, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The desired state.
    #[prost(message, required, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireServiceCidrSpec,
}

/// The `spec` of a `ServiceCIDR`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(
    expecting = "struct ServiceCidrSpec",
    rename_all = "camelCase",
    default
)]
pub struct WireServiceCidrSpec {
    /// The ranges of `ClusterIPs`, one per family.
    #[prost(string, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub cidrs: Vec<String>,
}

/// Decodes a value, and `null` as its default.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Decodes a label that is present: Go decodes `label: null` as a label with an empty value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    null_as_default(deserializer).map(Some)
}

/// Decodes a map to one entry if it has any, without memory for its entries.
fn entry_of_map<'de, D: Deserializer<'de>>(from: D) -> Result<Option<WireEntry>, D::Error> {
    struct AnyEntry;

    impl<'de> Visitor<'de> for AnyEntry {
        type Value = Option<WireEntry>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entry = None;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                entry = Some(WireEntry {});
            }
            Ok(entry)
        }
    }

    from.deserialize_any(AnyEntry)
}
