//! The fields of Kubernetes API objects that kube-dnat reads, as in JSON or YAML.
//!
//! All other fields are skipped while they are decoded and need no memory. An absent field and one
//! that is `null` are equal: Go writes `null` for a list or time that is not set.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// The `metadata` of any object.
#[derive(Clone, Debug, Default, serde::Deserialize)]
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
    /// The value of `metadata.creationTimestamp`, in RFC 3339.
    pub creation_timestamp: Option<String>,
    /// The value of `metadata.deletionTimestamp`, in RFC 3339, if the object is being deleted.
    pub deletion_timestamp: Option<String>,
    /// The labels that kube-dnat reads.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: WireLabels,
    /// The annotations that kube-dnat reads.
    #[serde(deserialize_with = "null_as_default")]
    pub annotations: WireAnnotations,
}

/// The labels that kube-dnat reads; a label without a value is present and empty.
#[derive(Clone, Debug, Default, serde::Deserialize)]
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
#[derive(Clone, Debug, Default, serde::Deserialize)]
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
}

/// A Service of API version `v1`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Service", rename_all = "camelCase", default)]
pub struct WireService {
    /// The name, namespace and labels.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The desired state.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireServiceSpec,
    /// The state that the load balancer's controller reports.
    #[serde(deserialize_with = "null_as_default")]
    pub status: WireServiceStatus,
}

/// The `spec` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServiceSpec", rename_all = "camelCase", default)]
pub struct WireServiceSpec {
    /// The type: `ClusterIP` (also if empty), `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub service_type: String,
    /// The first of `cluster_ips`, `None` for a headless Service.
    #[serde(rename = "clusterIP", deserialize_with = "null_as_default")]
    pub cluster_ip: String,
    /// The `ClusterIPs`, one per family.
    #[serde(rename = "clusterIPs", deserialize_with = "null_as_default")]
    pub cluster_ips: Vec<String>,
    /// The external IPs.
    #[serde(rename = "externalIPs", deserialize_with = "null_as_default")]
    pub external_ips: Vec<String>,
    /// The ports.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireServicePort>,
    /// The internal policy: `Cluster` (also if absent) or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// The external policy: `Cluster` (also if absent) or `Local`.
    pub external_traffic_policy: Option<String>,
    /// The port of the health check for load balancers, 0 for none.
    #[serde(deserialize_with = "null_as_default")]
    pub health_check_node_port: i64,
    /// The session affinity: `None` (also if absent) or `ClientIP`.
    pub session_affinity: Option<String>,
    /// The options of the session affinity.
    #[serde(deserialize_with = "null_as_default")]
    pub session_affinity_config: WireSessionAffinityConfig,
    /// The source ranges that may use the load-balancer IPs.
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether `spec.selector` names any label.
    #[serde(rename = "selector", deserialize_with = "is_filled_map")]
    pub has_selector: bool,
}

/// The `spec.sessionAffinityConfig` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct SessionAffinityConfig",
    rename_all = "camelCase",
    default
)]
pub struct WireSessionAffinityConfig {
    /// The options of affinity `ClientIP`.
    #[serde(rename = "clientIP", deserialize_with = "null_as_default")]
    pub client_ip: WireClientIpConfig,
}

/// The `spec.sessionAffinityConfig.clientIP` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ClientIpConfig", rename_all = "camelCase", default)]
pub struct WireClientIpConfig {
    /// The timeout in seconds.
    pub timeout_seconds: Option<i64>,
}

/// An element of `spec.ports` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServicePort", rename_all = "camelCase", default)]
pub struct WireServicePort {
    /// The name, empty if the port is the only one.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The protocol: `TCP` (also if empty), `UDP` or `SCTP`.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// The port number at the Service's addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub port: i64,
    /// The node port, 0 for none.
    #[serde(deserialize_with = "null_as_default")]
    pub node_port: i64,
}

/// The `status` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServiceStatus", rename_all = "camelCase", default)]
pub struct WireServiceStatus {
    /// The state of the load balancer.
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer: WireLoadBalancerStatus,
}

/// The `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct LoadBalancerStatus",
    rename_all = "camelCase",
    default
)]
pub struct WireLoadBalancerStatus {
    /// The addresses of the load balancer.
    #[serde(deserialize_with = "null_as_default")]
    pub ingress: Vec<WireLoadBalancerIngress>,
}

/// An element of `status.loadBalancer.ingress` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct LoadBalancerIngress",
    rename_all = "camelCase",
    default
)]
pub struct WireLoadBalancerIngress {
    /// The address, empty if there is only a host name.
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// The mode: `VIP` (also if absent) or `Proxy`.
    pub ip_mode: Option<String>,
}

/// An `EndpointSlice` of API version `discovery.k8s.io/v1`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointSlice", rename_all = "camelCase", default)]
pub struct WireEndpointSlice {
    /// The name, namespace and labels.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The type of the addresses: `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The endpoints.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<WireEndpoint>,
    /// The ports of every endpoint.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireEndpointPort>,
}

/// An element of `endpoints` of an `EndpointSlice`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Endpoint", rename_all = "camelCase", default)]
pub struct WireEndpoint {
    /// The addresses; only the first is used.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    /// The conditions of the endpoint.
    #[serde(deserialize_with = "null_as_default")]
    pub conditions: WireEndpointConditions,
    /// The name of the endpoint's Node.
    pub node_name: Option<String>,
    /// The topology hints.
    #[serde(deserialize_with = "null_as_default")]
    pub hints: WireEndpointHints,
}

/// The `hints` of an endpoint.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointHints", rename_all = "camelCase", default)]
pub struct WireEndpointHints {
    /// The zones that the endpoint is for.
    #[serde(deserialize_with = "null_as_default")]
    pub for_zones: Vec<WireName>,
    /// The nodes that the endpoint is for.
    #[serde(deserialize_with = "null_as_default")]
    pub for_nodes: Vec<WireName>,
}

/// A reference by name.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Name", default)]
pub struct WireName {
    /// The name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The `conditions` of an endpoint.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct EndpointConditions",
    rename_all = "camelCase",
    default
)]
pub struct WireEndpointConditions {
    /// Whether the endpoint accepts new connections, `true` if absent.
    pub ready: Option<bool>,
    /// Whether the endpoint answers, `true` if absent.
    pub serving: Option<bool>,
    /// Whether the endpoint is terminating, `false` if absent.
    pub terminating: Option<bool>,
}

/// An element of `ports` of an `EndpointSlice` or of a subset of Endpoints.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointPort", rename_all = "camelCase", default)]
pub struct WireEndpointPort {
    /// The name of the Service port.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// The protocol: `TCP` (also if empty), `UDP` or `SCTP`.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// The port number; if absent, all ports, which a proxy does not support.
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
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Node", rename_all = "camelCase", default)]
pub struct WireNode {
    /// The name and labels.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The configuration.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireNodeSpec,
    /// The state that the kubelet reports.
    #[serde(deserialize_with = "null_as_default")]
    pub status: WireNodeStatus,
}

/// The `spec` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct NodeSpec", rename_all = "camelCase", default)]
pub struct WireNodeSpec {
    /// The address ranges of the Pods, one per family.
    #[serde(rename = "podCIDRs", deserialize_with = "null_as_default")]
    pub pod_cidrs: Vec<String>,
    /// The taints.
    #[serde(deserialize_with = "null_as_default")]
    pub taints: Vec<WireTaint>,
}

/// An element of `spec.taints` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Taint", default)]
pub struct WireTaint {
    /// The key of the taint.
    #[serde(deserialize_with = "null_as_default")]
    pub key: String,
}

/// The `status` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct NodeStatus", rename_all = "camelCase", default)]
pub struct WireNodeStatus {
    /// The addresses and host names.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<WireNodeAddress>,
}

/// An element of `status.addresses` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct NodeAddress", rename_all = "camelCase", default)]
pub struct WireNodeAddress {
    /// The type of the address, such as `InternalIP`, `ExternalIP` or `Hostname`.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The address or host name.
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
}

/// A `ServiceCIDR` of API version `networking.k8s.io/v1`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServiceCidr", rename_all = "camelCase", default)]
pub struct WireServiceCidr {
    /// The name.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// The desired state.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireServiceCidrSpec,
}

/// The `spec` of a `ServiceCIDR`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct ServiceCidrSpec",
    rename_all = "camelCase",
    default
)]
pub struct WireServiceCidrSpec {
    /// The ranges of `ClusterIPs`, one per family.
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

/// Decodes whether a map has an entry, without memory for its entries.
fn is_filled_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct IsFilled;

    impl<'de> Visitor<'de> for IsFilled {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map or null")
        }

        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(false)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut filled = false;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                filled = true;
            }
            Ok(filled)
        }
    }

    deserializer.deserialize_any(IsFilled)
}
