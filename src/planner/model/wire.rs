//! The fields of Kubernetes' API objects that we read, as they stand in JSON or YAML. Every other
//! field is skipped while it is decoded and never reaches memory. A field that is absent and one
//! that is `null` mean the same: Go writes `null` for a list or a time that is not set.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// `metadata` of any object.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Metadata", rename_all = "camelCase", default)]
pub struct WireMetadata {
    /// `metadata.name`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `metadata.namespace`; empty for a cluster-wide kind.
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
    /// `metadata.creationTimestamp`, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// `metadata.deletionTimestamp`, RFC 3339: it is about to go.
    pub deletion_timestamp: Option<String>,
    /// The labels we know.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: WireLabels,
    /// The annotations we know.
    #[serde(deserialize_with = "null_as_default")]
    pub annotations: WireAnnotations,
}

/// The labels that have a meaning here; one without a value is there, and empty.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Labels", default)]
pub struct WireLabels {
    /// On a slice: the Service it belongs to.
    #[serde(rename = "kubernetes.io/service-name")]
    pub service_name: Option<String>,
    /// On a Service: the proxy that serves it instead of us.
    #[serde(
        rename = "service.kubernetes.io/service-proxy-name",
        deserialize_with = "present"
    )]
    pub service_proxy_name: Option<String>,
    /// On a slice: it belongs to a headless Service.
    #[serde(
        rename = "service.kubernetes.io/headless",
        deserialize_with = "present"
    )]
    pub headless: Option<String>,
    /// On a Node: the zone it is in.
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub zone: Option<String>,
    /// On Endpoints: `true` keeps them from being mirrored.
    #[serde(rename = "endpointslice.kubernetes.io/skip-mirror")]
    pub skip_mirror: Option<String>,
}

/// The annotations that have a meaning here.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Annotations", default)]
pub struct WireAnnotations {
    /// On Endpoints: it is a leader-election lock and holds no endpoints.
    #[serde(
        rename = "control-plane.alpha.kubernetes.io/leader",
        deserialize_with = "present"
    )]
    pub leader: Option<String>,
    /// On a slice: when the Pod or Service changed that it was last changed for, RFC 3339.
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub last_change_trigger_time: Option<String>,
}

/// `v1` Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Service", rename_all = "camelCase", default)]
pub struct WireService {
    /// Name, namespace, labels.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// What is asked for.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireServiceSpec,
    /// What the load balancer's controller answered.
    #[serde(deserialize_with = "null_as_default")]
    pub status: WireServiceStatus,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServiceSpec", rename_all = "camelCase", default)]
pub struct WireServiceSpec {
    /// `ClusterIP` (also when empty), `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub service_type: String,
    /// The first of `cluster_ips`; `None` for a headless Service.
    #[serde(rename = "clusterIP", deserialize_with = "null_as_default")]
    pub cluster_ip: String,
    /// One address a family.
    #[serde(rename = "clusterIPs", deserialize_with = "null_as_default")]
    pub cluster_ips: Vec<String>,
    /// Further addresses that the nodes answer on.
    #[serde(rename = "externalIPs", deserialize_with = "null_as_default")]
    pub external_ips: Vec<String>,
    /// The ports.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireServicePort>,
    /// `Cluster` (also when absent) or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `Cluster` (also when absent) or `Local`.
    pub external_traffic_policy: Option<String>,
    /// Where load balancers ask how many endpoints this node has.
    #[serde(deserialize_with = "null_as_default")]
    pub health_check_node_port: i64,
    /// `None` (also when absent) or `ClientIP`.
    pub session_affinity: Option<String>,
    /// The time-out of the affinity.
    #[serde(deserialize_with = "null_as_default")]
    pub session_affinity_config: WireSessionAffinityConfig,
    /// Who may use the load balancer's addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether `spec.selector` names any label.
    #[serde(rename = "selector", deserialize_with = "is_filled_map")]
    pub has_selector: bool,
}

/// `spec.sessionAffinityConfig` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct SessionAffinityConfig",
    rename_all = "camelCase",
    default
)]
pub struct WireSessionAffinityConfig {
    /// For affinity `ClientIP`.
    #[serde(rename = "clientIP", deserialize_with = "null_as_default")]
    pub client_ip: WireClientIpConfig,
}

/// `spec.sessionAffinityConfig.clientIP` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ClientIpConfig", rename_all = "camelCase", default)]
pub struct WireClientIpConfig {
    /// Seconds.
    pub timeout_seconds: Option<i64>,
}

/// One of `spec.ports` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServicePort", rename_all = "camelCase", default)]
pub struct WireServicePort {
    /// Its name; empty if it is the only one.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// The port number of its `ClusterIPs`.
    #[serde(deserialize_with = "null_as_default")]
    pub port: i64,
    /// The port number on the nodes; 0 for none.
    #[serde(deserialize_with = "null_as_default")]
    pub node_port: i64,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServiceStatus", rename_all = "camelCase", default)]
pub struct WireServiceStatus {
    /// The load balancer's addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer: WireLoadBalancerStatus,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct LoadBalancerStatus",
    rename_all = "camelCase",
    default
)]
pub struct WireLoadBalancerStatus {
    /// Its addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub ingress: Vec<WireLoadBalancerIngress>,
}

/// One of `status.loadBalancer.ingress` of a Service.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct LoadBalancerIngress",
    rename_all = "camelCase",
    default
)]
pub struct WireLoadBalancerIngress {
    /// Its address; empty when it has a host name only.
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// `VIP` (also when absent) or `Proxy`.
    pub ip_mode: Option<String>,
}

/// `discovery.k8s.io/v1` `WireEndpointSlice`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointSlice", rename_all = "camelCase", default)]
pub struct WireEndpointSlice {
    /// Name, namespace, labels.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The endpoints.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<WireEndpoint>,
    /// The ports of every endpoint.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireEndpointPort>,
}

/// One of `endpoints` of an `WireEndpointSlice`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Endpoint", rename_all = "camelCase", default)]
pub struct WireEndpoint {
    /// Its addresses, of which the first counts.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    /// Whether it takes connections.
    #[serde(deserialize_with = "null_as_default")]
    pub conditions: WireEndpointConditions,
    /// The Node it runs on.
    pub node_name: Option<String>,
    /// For whom the slice controller means it.
    #[serde(deserialize_with = "null_as_default")]
    pub hints: WireEndpointHints,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointHints", rename_all = "camelCase", default)]
pub struct WireEndpointHints {
    /// The zones it is meant for.
    #[serde(deserialize_with = "null_as_default")]
    pub for_zones: Vec<WireName>,
    /// The nodes it is meant for.
    #[serde(deserialize_with = "null_as_default")]
    pub for_nodes: Vec<WireName>,
}

/// Something by its name.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Name", default)]
pub struct WireName {
    /// The name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct EndpointConditions",
    rename_all = "camelCase",
    default
)]
pub struct WireEndpointConditions {
    /// Whether it takes new connections; absent means yes.
    pub ready: Option<bool>,
    /// Whether it answers at all; absent means yes.
    pub serving: Option<bool>,
    /// Whether it is about to end; absent means no.
    pub terminating: Option<bool>,
}

/// One of `ports` of an `WireEndpointSlice` or of a subset of Endpoints.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointPort", rename_all = "camelCase", default)]
pub struct WireEndpointPort {
    /// The name of the Service port it answers.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// The port number; absent in a slice means every port, which no proxy can serve.
    #[serde(deserialize_with = "null_as_default")]
    pub port: i64,
}

/// `v1` Endpoints.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Endpoints", rename_all = "camelCase", default)]
pub struct WireEndpoints {
    /// Name (that of the Service), namespace, labels.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// Groups of endpoints that share their ports.
    #[serde(deserialize_with = "null_as_default")]
    pub subsets: Vec<WireEndpointSubset>,
}

/// One of `subsets` of Endpoints.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct EndpointSubset", rename_all = "camelCase", default)]
pub struct WireEndpointSubset {
    /// Endpoints that take connections.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<WireEndpointAddress>,
    /// Endpoints that do not yet, or no longer.
    #[serde(deserialize_with = "null_as_default")]
    pub not_ready_addresses: Vec<WireEndpointAddress>,
    /// The ports of every endpoint.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<WireEndpointPort>,
}

/// One address in a subset of Endpoints.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct EndpointAddress",
    rename_all = "camelCase",
    default
)]
pub struct WireEndpointAddress {
    /// The address, of either family.
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// The Node it runs on.
    pub node_name: Option<String>,
}

/// `v1` Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Node", rename_all = "camelCase", default)]
pub struct WireNode {
    /// Its name.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// What it was given.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireNodeSpec,
    /// What the kubelet reports.
    #[serde(deserialize_with = "null_as_default")]
    pub status: WireNodeStatus,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct NodeSpec", rename_all = "camelCase", default)]
pub struct WireNodeSpec {
    /// The ranges of its Pods' addresses; one a family.
    #[serde(rename = "podCIDRs", deserialize_with = "null_as_default")]
    pub pod_cidrs: Vec<String>,
    /// What keeps Pods away.
    #[serde(deserialize_with = "null_as_default")]
    pub taints: Vec<WireTaint>,
}

/// One of `spec.taints` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct Taint", default)]
pub struct WireTaint {
    /// What it is called.
    #[serde(deserialize_with = "null_as_default")]
    pub key: String,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct NodeStatus", rename_all = "camelCase", default)]
pub struct WireNodeStatus {
    /// Its addresses and names.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<WireNodeAddress>,
}

/// One of `status.addresses` of a Node.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct NodeAddress", rename_all = "camelCase", default)]
pub struct WireNodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and so on.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The address or name.
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
}

/// `networking.k8s.io/v1` `ServiceCIDR`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(expecting = "struct ServiceCidr", rename_all = "camelCase", default)]
pub struct WireServiceCidr {
    /// Its name.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: WireMetadata,
    /// Its ranges.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: WireServiceCidrSpec,
}

/// `spec` of a `ServiceCIDR`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(
    expecting = "struct ServiceCidrSpec",
    rename_all = "camelCase",
    default
)]
pub struct WireServiceCidrSpec {
    /// One range a family.
    #[serde(deserialize_with = "null_as_default")]
    pub cidrs: Vec<String>,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Selectors ask whether a label is there, and Go decodes `label: null` as one with an empty value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    null_as_default(deserializer).map(Some)
}

/// Takes no memory for the map's entries.
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
