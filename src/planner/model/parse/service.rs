//! A Service: its addresses and ports.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::planner::model::{
    Object, ObjectKind, Protocol, RejectReason, Service, ServicePort, TrafficPolicy, Update, wire,
};

use super::{created, ip, is_name, port_number, protocol, service_name, update};

/// What a Service says. Not for us, hence without an object, is one that another proxy serves
/// (label `service.kubernetes.io/service-proxy-name`), a headless one and an `ExternalName`.
#[must_use]
pub fn service(service: &wire::WireService) -> Update {
    update(ObjectKind::Service, &service.metadata, |rejected| {
        let spec = &service.spec;
        if service.metadata.labels.service_proxy_name.is_some()
            || spec.service_type == "ExternalName"
            || spec.cluster_ip == "None"
        {
            return None;
        }
        let cluster_ips = ip::addresses(cluster_ips(spec), rejected);
        if cluster_ips.is_empty() {
            return None;
        }
        let ports = ports(spec, rejected);
        Some(Object::Service(Arc::new(Service {
            name: service_name(&service.metadata),
            created: created(&service.metadata, rejected),
            has_selector: spec.has_selector,
            cluster_ips,
            external_ips: ip::addresses(external_ips(spec), rejected),
            load_balancer_ips: ip::addresses(load_balancer_ips(&service.status), rejected),
            internal_policy: policy(spec.internal_traffic_policy.as_deref()),
            external_policy: external_policy(spec),
            affinity: affinity(spec, rejected),
            source_ranges: source_ranges(spec, rejected),
            health_check_node_port: health_check_node_port(spec, &ports, rejected),
            ports,
        })))
    })
}

type Text<'a, F> = (F, &'a str);

fn cluster_ips(
    spec: &wire::WireServiceSpec,
) -> impl Iterator<Item = Text<'_, impl FnOnce() -> String>> {
    let plural = !spec.cluster_ips.is_empty();
    let texts = if plural {
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
                if plural {
                    format!("spec.clusterIPs[{index}]")
                } else {
                    "spec.clusterIP".to_owned()
                }
            };
            (field, text.as_str())
        })
}

fn external_ips(
    spec: &wire::WireServiceSpec,
) -> impl Iterator<Item = Text<'_, impl FnOnce() -> String>> {
    spec.external_ips.iter().enumerate().map(|(index, text)| {
        let field = move || format!("spec.externalIPs[{index}]");
        (field, text.as_str())
    })
}

/// An ingress with a host name only, or with `ipMode: Proxy` (KEP-1860), is reached past us.
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

fn policy(text: Option<&str>) -> TrafficPolicy {
    match text {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

/// The policy, where it counts: a Service of type `ClusterIP` has it for its external IPs only
/// (`ExternallyAccessible` and `ExternalPolicyLocal` of Kubernetes' `pkg/api/v1/service`).
fn external_policy(spec: &wire::WireServiceSpec) -> TrafficPolicy {
    let has_node_ports = matches!(spec.service_type.as_str(), "NodePort" | "LoadBalancer");
    if has_node_ports || !spec.external_ips.is_empty() {
        policy(spec.external_traffic_policy.as_deref())
    } else {
        TrafficPolicy::Cluster
    }
}

/// The port, where it counts (`NeedsHealthCheck` of Kubernetes' `pkg/api/v1/service`).
fn health_check_node_port(
    spec: &wire::WireServiceSpec,
    ports: &[ServicePort],
    rejected: &mut Vec<RejectReason>,
) -> Option<u16> {
    let counts = spec.service_type == "LoadBalancer"
        && policy(spec.external_traffic_policy.as_deref()) == TrafficPolicy::Local
        && spec.health_check_node_port != 0;
    let field = || "spec.healthCheckNodePort".to_owned();
    let number = counts.then(|| port_number(field, spec.health_check_node_port))?;
    let number = number.map_err(|fault| rejected.push(fault)).ok()?;
    let mut ports = ports.iter();
    let is_that =
        |port: &ServicePort| port.protocol == Protocol::Tcp && port.node_port == Some(number);
    if ports.any(is_that) {
        let text = format!("spec.healthCheckNodePort {number} is a node port of the Service too");
        rejected.push(RejectReason::Contradiction(text.into()));
        return None;
    }
    Some(number)
}

/// The API server's default and limits of `timeoutSeconds`.
const DEFAULT_AFFINITY: u32 = 10_800;
const LONGEST_AFFINITY: u32 = 86_400;

fn affinity(spec: &wire::WireServiceSpec, rejected: &mut Vec<RejectReason>) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let Some(seconds) = spec.session_affinity_config.client_ip.timeout_seconds else {
        return Some(DEFAULT_AFFINITY);
    };
    let valid = u32::try_from(seconds).ok();
    let valid = valid.filter(|seconds| (1..=LONGEST_AFFINITY).contains(seconds));
    if valid.is_none() {
        let text = format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds {seconds} is not 1 to \
             {LONGEST_AFFINITY}, {DEFAULT_AFFINITY} is used"
        );
        rejected.push(RejectReason::Contradiction(text.into()));
    }
    valid.or(Some(DEFAULT_AFFINITY))
}

/// A range that does not parse is left out, as kube-proxy has it; white space around one too.
fn source_ranges(spec: &wire::WireServiceSpec, rejected: &mut Vec<RejectReason>) -> Vec<IpNet> {
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
    ranges
}

/// What only one port of a Service may have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PortClaim {
    Name(Protocol, Arc<str>),
    Port(Protocol, u16),
    NodePort(Protocol, u16),
}

impl PortClaim {
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

fn ports(spec: &wire::WireServiceSpec, rejected: &mut Vec<RejectReason>) -> Vec<ServicePort> {
    let has_node_ports = matches!(spec.service_type.as_str(), "NodePort" | "LoadBalancer");
    let mut ports = Vec::with_capacity(spec.ports.len());
    let mut claimed = BTreeSet::new();
    for (index, wire) in spec.ports.iter().enumerate() {
        let mut port = match port(index, wire) {
            Ok(port) => port,
            Err(fault) => {
                rejected.push(fault);
                continue;
            }
        };
        if has_node_ports && wire.node_port != 0 {
            let field = || format!("spec.ports[{index}].nodePort");
            match port_number(field, wire.node_port) {
                Ok(number) => port.node_port = Some(number),
                Err(fault) => rejected.push(fault),
            }
        }
        if let Some(claim) = PortClaim::all(&port).find(|claim| claimed.contains(claim)) {
            rejected.push(claim.contested(index));
        } else {
            claimed.extend(PortClaim::all(&port));
            ports.push(port);
        }
    }
    ports
}

/// The port without its node port.
fn port(index: usize, wire: &wire::WireServicePort) -> Result<ServicePort, RejectReason> {
    // The name is a part of the ruleset's comments (see `misnamed`).
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
