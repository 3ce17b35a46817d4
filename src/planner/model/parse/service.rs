//! The conversion of Services.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::planner::model::{
    Object, ObjectKind, Protocol, RejectReason, Service, ServicePort, TrafficPolicy, Update, wire,
};

use super::features::{FeatureContext, features, reject_ranges_of_headless};
use super::{created, ip, is_name, port_number, protocol, service_name, update};

/// Converts a Service.
///
/// Ignored are headless Services, those of type `ExternalName`, and those of another proxy (label
/// `service.kubernetes.io/service-proxy-name`).
#[must_use]
pub fn service(service: &wire::WireService) -> Update {
    update(ObjectKind::Service, &service.metadata, |rejected| {
        let spec = &service.spec;
        if service.metadata.labels.service_proxy_name.is_some()
            || spec.service_type == "ExternalName"
        {
            return None;
        }
        if spec.cluster_ip == "None" {
            reject_ranges_of_headless(&service.metadata.annotations, rejected);
            return None;
        }
        let cluster_ips = ip::addresses(cluster_ips(spec), rejected);
        if cluster_ips.is_empty() {
            return None;
        }
        let ports = ports(spec, rejected);
        let affinity = affinity(spec, rejected);
        let external_policy = external_policy(spec);
        let served = FeatureContext {
            affinity,
            external_policy,
            has_tcp: ports.iter().any(|port| port.protocol == Protocol::Tcp),
        };
        Some(Object::Service(Arc::new(Service {
            name: service_name(&service.metadata),
            created: created(&service.metadata, rejected),
            has_selector: spec.selector.is_some(),
            cluster_ips,
            external_ips: ip::addresses(external_ips(spec), rejected),
            load_balancer_ips: ip::addresses(load_balancer_ips(&service.status), rejected),
            internal_policy: policy(spec.internal_traffic_policy.as_deref()),
            external_policy,
            affinity,
            source_ranges: source_ranges(spec, rejected),
            health_check_node_port: health_check_node_port(spec, &ports, rejected),
            ports,
            features: features(&service.metadata.annotations, &served, rejected),
        })))
    })
}

/// The path and text of a field.
type Text<'a, F> = (F, &'a str);

/// Returns the texts of `ClusterIPs`.
fn cluster_ips(
    spec: &wire::WireServiceSpec,
) -> impl Iterator<Item = Text<'_, impl FnOnce() -> String>> {
    let is_list = !spec.cluster_ips.is_empty();
    let texts = if is_list {
        spec.cluster_ips.as_slice()
    } else {
        std::slice::from_ref(&spec.cluster_ip)
    };
    texts
        .iter()
        .enumerate()
        .filter(|(_, text)| !matches!(text.as_str(), "" | "None"))
        .map(move |(index, text)| {
            let field = move || {
                if is_list {
                    format!("spec.clusterIPs[{index}]")
                } else {
                    "spec.clusterIP".to_owned()
                }
            };
            (field, text.as_str())
        })
}

/// Returns the texts of external IPs.
fn external_ips(
    spec: &wire::WireServiceSpec,
) -> impl Iterator<Item = Text<'_, impl FnOnce() -> String>> {
    spec.external_ips.iter().enumerate().map(|(index, text)| {
        let field = move || format!("spec.externalIPs[{index}]");
        (field, text.as_str())
    })
}

/// Returns the texts of load-balancer IPs.
///
/// Packets to an ingress with only a host name, or with `ipMode: Proxy` (KEP-1860), do not have its
/// address when they reach the node.
fn load_balancer_ips(
    status: &wire::WireServiceStatus,
) -> impl Iterator<Item = Text<'_, impl FnOnce() -> String>> {
    status
        .load_balancer
        .ingress
        .iter()
        .enumerate()
        .filter(|(_, ingress)| {
            !ingress.ip.is_empty() && matches!(ingress.ip_mode.as_deref(), None | Some("VIP"))
        })
        .map(|(index, ingress)| {
            let field = move || format!("status.loadBalancer.ingress[{index}].ip");
            (field, ingress.ip.as_str())
        })
}

/// Parses a traffic policy; the default is Cluster.
fn policy(text: Option<&str>) -> TrafficPolicy {
    match text {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

/// Returns the external policy if it has an effect, otherwise Cluster.
///
/// A Service of type `ClusterIP` has it only for external IPs (`ExternallyAccessible` and
/// `ExternalPolicyLocal` in Kubernetes' `pkg/api/v1/service`).
fn external_policy(spec: &wire::WireServiceSpec) -> TrafficPolicy {
    let has_node_ports = matches!(spec.service_type.as_str(), "NodePort" | "LoadBalancer");
    if has_node_ports || !spec.external_ips.is_empty() {
        policy(spec.external_traffic_policy.as_deref())
    } else {
        TrafficPolicy::Cluster
    }
}

/// Returns the health check port if it has an effect (`NeedsHealthCheck` in Kubernetes'
/// `pkg/api/v1/service`).
fn health_check_node_port(
    spec: &wire::WireServiceSpec,
    ports: &[ServicePort],
    rejected: &mut Vec<RejectReason>,
) -> Option<u16> {
    let has_effect = spec.service_type == "LoadBalancer"
        && policy(spec.external_traffic_policy.as_deref()) == TrafficPolicy::Local
        && spec.health_check_node_port != 0;
    let field = || "spec.healthCheckNodePort".to_owned();
    if !has_effect {
        return None;
    }
    let number = port_number(field, spec.health_check_node_port)
        .map_err(|reason| rejected.push(reason))
        .ok()?;
    let is_same =
        |port: &ServicePort| port.protocol == Protocol::Tcp && port.node_port == Some(number);
    if ports.iter().any(is_same) {
        let text = format!("spec.healthCheckNodePort {number} is also a node port of the Service");
        rejected.push(RejectReason::Contradiction(text.into()));
        return None;
    }
    Some(number)
}

/// The API server's default of `timeoutSeconds`.
const DEFAULT_AFFINITY: u32 = 10_800;

/// The API server's maximum of `timeoutSeconds`.
const MAX_AFFINITY: u32 = 86_400;

/// Returns the session affinity timeout in seconds; `None` without session affinity.
fn affinity(spec: &wire::WireServiceSpec, rejected: &mut Vec<RejectReason>) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let Some(seconds) = spec.session_affinity_config.client_ip.timeout_seconds else {
        return Some(DEFAULT_AFFINITY);
    };
    let valid = u32::try_from(seconds)
        .ok()
        .filter(|seconds| (1..=MAX_AFFINITY).contains(seconds));
    if valid.is_none() {
        let text = format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds {seconds} is not between 1 and \
             {MAX_AFFINITY}; {DEFAULT_AFFINITY} is used"
        );
        rejected.push(RejectReason::Contradiction(text.into()));
    }
    valid.or(Some(DEFAULT_AFFINITY))
}

/// Parses `loadBalancerSourceRanges`; like kube-proxy, it trims spaces and rejects invalid ranges.
fn source_ranges(spec: &wire::WireServiceSpec, rejected: &mut Vec<RejectReason>) -> Box<[IpNet]> {
    let mut ranges = Vec::new();
    for (index, text) in spec.load_balancer_source_ranges.iter().enumerate() {
        match ip::range(text.trim()) {
            Some(range) => ranges.push(range),
            None => rejected.push(RejectReason::Address {
                field: format!("spec.loadBalancerSourceRanges[{index}]").into(),
                value: text.as_str().into(),
                expected: "address range",
            }),
        }
    }
    ranges.into()
}

/// A property that is unique among the ports of a Service.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PortClaim {
    /// The name of the port.
    Name(Protocol, Arc<str>),
    /// The port number at the Service's addresses.
    Port(Protocol, u16),
    /// The node port.
    NodePort(Protocol, u16),
}

impl PortClaim {
    /// Returns the properties of a port.
    fn all(port: &ServicePort) -> impl Iterator<Item = Self> + use<> {
        let protocol = port.protocol;
        [
            Self::Name(protocol, port.name.clone()),
            Self::Port(protocol, port.port),
        ]
        .into_iter()
        .chain(
            port.node_port
                .map(|number| Self::NodePort(protocol, number)),
        )
    }

    /// Returns the reason why a port with this property is rejected.
    fn contested(&self, index: usize) -> RejectReason {
        let text = match self {
            Self::Name(protocol, name) => {
                format!("spec.ports[{index}] is a second {protocol} port named \"{name}\"")
            }
            Self::Port(protocol, number) => {
                format!("spec.ports[{index}] is a second {protocol} port {number}")
            }
            Self::NodePort(protocol, number) => {
                format!("spec.ports[{index}] is a second {protocol} port with node port {number}")
            }
        };
        RejectReason::Contradiction(text.into())
    }
}

/// Converts the ports of a Service, and rejects duplicates.
fn ports(spec: &wire::WireServiceSpec, rejected: &mut Vec<RejectReason>) -> Box<[ServicePort]> {
    let has_node_ports = matches!(spec.service_type.as_str(), "NodePort" | "LoadBalancer");
    let mut ports = Vec::with_capacity(spec.ports.len());
    let mut claimed = BTreeSet::new();
    for (index, wire) in spec.ports.iter().enumerate() {
        let mut port = match port(index, wire) {
            Ok(port) => port,
            Err(reason) => {
                rejected.push(reason);
                continue;
            }
        };
        if has_node_ports && wire.node_port != 0 {
            let field = || format!("spec.ports[{index}].nodePort");
            match port_number(field, wire.node_port) {
                Ok(number) => port.node_port = Some(number),
                Err(reason) => rejected.push(reason),
            }
        }
        if let Some(claim) = PortClaim::all(&port).find(|claim| claimed.contains(claim)) {
            rejected.push(claim.contested(index));
        } else {
            claimed.extend(PortClaim::all(&port));
            ports.push(port);
        }
    }
    ports.into()
}

/// Converts a port, without its node port.
fn port(index: usize, wire: &wire::WireServicePort) -> Result<ServicePort, RejectReason> {
    // The name is a part of the ruleset's comments (see `invalid_name`).
    if !wire.name.is_empty() && !is_name(&wire.name, 63) {
        return Err(RejectReason::Name {
            field: format!("spec.ports[{index}].name").into(),
            value: wire.name.as_str().into(),
        });
    }
    Ok(ServicePort {
        name: wire.name.as_str().into(),
        protocol: protocol(|| format!("spec.ports[{index}].protocol"), &wire.protocol)?,
        port: port_number(|| format!("spec.ports[{index}].port"), wire.port)?,
        node_port: None,
    })
}
