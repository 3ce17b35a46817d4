//! The fields of Kubernetes' API objects that we read, as they stand in JSON or YAML. Every other
//! field is skipped while it is decoded and never reaches memory.

use serde::Deserialize;

/// `metadata` of any object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; empty for a cluster-wide kind.
    pub namespace: String,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
    /// `metadata.creationTimestamp`, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// The labels we know.
    pub labels: Option<Labels>,
    /// The annotations we know.
    pub annotations: Option<Annotations>,
}

/// The labels that have a meaning here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// On a slice: the Service it belongs to.
    #[serde(rename = "kubernetes.io/service-name")]
    pub service_name: Option<String>,
    /// On a Service: the proxy that serves it instead of us.
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub service_proxy_name: Option<String>,
    /// On a slice: it belongs to a headless Service.
    #[serde(rename = "service.kubernetes.io/headless")]
    pub headless: Option<String>,
    /// On Endpoints: `true` keeps them from being mirrored.
    #[serde(rename = "endpointslice.kubernetes.io/skip-mirror")]
    pub skip_mirror: Option<String>,
}

/// The annotations that have a meaning here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// On Endpoints: it is a leader-election lock and holds no endpoints.
    #[serde(rename = "control-plane.alpha.kubernetes.io/leader")]
    pub leader: Option<String>,
}
