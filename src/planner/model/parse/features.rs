//! The conversion of the annotations `kube-dnat.io/*` of a Service, one function for each.
//!
//! A value that is invalid, or that contradicts the Service, has no effect and is reported.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::duration::{GoDuration, NotADuration};
use crate::planner::model::{
    Balance, NoLocalEndpoint, PortRange, PortRanges, Protocol, RejectReason, ServiceFeatures,
    TrafficPolicy, WeightTarget, Weights, wire,
};

use super::{ip, is_name};

/// The annotations, as objects name them.
pub mod name {
    /// How the endpoint of a connection is selected.
    pub const BALANCE: &str = "kube-dnat.io/balance";
    /// The shares of endpoints.
    pub const WEIGHTS: &str = "kube-dnat.io/weights";
    /// The growing share of new endpoints.
    pub const SLOW_START: &str = "kube-dnat.io/slow-start";
    /// The ranges of ports at the addresses of the Service.
    pub const PORT_RANGES: &str = "kube-dnat.io/port-ranges";
    /// Whether connections to removed endpoints are closed.
    pub const CLOSE_REMOVED: &str = "kube-dnat.io/close-removed";
    /// What external policy Local does without a local endpoint.
    pub const NO_LOCAL_ENDPOINT: &str = "kube-dnat.io/external-local-without-endpoints";
}

/// The valid times of a slow start.
const SLOW_START_WINDOWS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(1);

/// The fields of a Service that annotations may contradict.
pub(super) struct FeatureContext {
    /// The session affinity timeout.
    pub(super) affinity: Option<u32>,
    /// The external policy, if it has an effect.
    pub(super) external_policy: TrafficPolicy,
    /// Whether the Service has a TCP port.
    pub(super) has_tcp: bool,
}

/// Converts the annotations of a Service; `None` if no feature is in use.
pub(super) fn features(
    annotations: &wire::WireAnnotations,
    context: &FeatureContext,
    rejected: &mut Vec<RejectReason>,
) -> Option<Box<ServiceFeatures>> {
    let mut parse = Parse(rejected);
    let port_ranges = parse.annotation(
        name::PORT_RANGES,
        annotations.port_ranges.as_deref(),
        port_ranges,
    );
    let of_tcp = |ranges: &PortRanges| ranges.of(Protocol::Tcp).next().is_some();
    let has_tcp = context.has_tcp || port_ranges.as_ref().is_some_and(of_tcp);
    let features = ServiceFeatures {
        balance: parse.annotation(name::BALANCE, annotations.balance.as_deref(), |text| {
            balance(text, context.affinity)
        }),
        weights: parse.annotation(name::WEIGHTS, annotations.weights.as_deref(), weights),
        slow_start: parse.annotation(
            name::SLOW_START,
            annotations.slow_start.as_deref(),
            slow_start,
        ),
        close_removed: parse
            .annotation(
                name::CLOSE_REMOVED,
                annotations.close_removed.as_deref(),
                |text| close_removed(text, has_tcp),
            )
            .unwrap_or_default(),
        port_ranges,
        no_local_endpoint: parse.annotation(
            name::NO_LOCAL_ENDPOINT,
            annotations.external_local_without_endpoints.as_deref(),
            |text| no_local_endpoint(text, context.external_policy),
        ),
    };
    (features != ServiceFeatures::default()).then(|| Box::new(features))
}

/// Reports port ranges of a headless Service, which has no address to serve them at.
pub(super) fn reject_ranges_of_headless(
    annotations: &wire::WireAnnotations,
    rejected: &mut Vec<RejectReason>,
) {
    let headless = |_: &str| Err::<(), _>("a headless Service has no address".to_owned());
    let ranges = annotations.port_ranges.as_deref();
    let _rejected = Parse(rejected).annotation(name::PORT_RANGES, ranges, headless);
}

/// The list of what is rejected.
struct Parse<'a>(&'a mut Vec<RejectReason>);

impl Parse<'_> {
    /// Parses the value of an annotation, and reports why it has no effect.
    fn annotation<T>(
        &mut self,
        annotation: &'static str,
        value: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let report = |problem: String| {
            let problem = problem.into();
            self.0.push(RejectReason::Annotation {
                annotation,
                problem,
            });
        };
        parse(value?.trim()).map_err(report).ok()
    }
}

/// Parses `kube-dnat.io/balance`.
fn balance(text: &str, affinity: Option<u32>) -> Result<Balance, String> {
    let balance = Balance::ALL
        .into_iter()
        .find(|balance| balance.to_string() == text)
        .ok_or_else(|| format!("{text:?} is neither maglev nor source"))?;
    if affinity.is_some() {
        let text = "the Service has sessionAffinity ClientIP, which selects the endpoint, too";
        return Err(text.to_owned());
    }
    Ok(balance)
}

/// Parses `kube-dnat.io/weights`: `zone-a=3,node:worker-1=2,10.244.1.9=0`.
fn weights(text: &str) -> Result<Weights, String> {
    let mut weights = BTreeMap::new();
    for entry in text.split(',').map(str::trim) {
        let (target, weight) = entry
            .rsplit_once('=')
            .ok_or_else(|| format!("{entry:?} is not of the form TARGET=WEIGHT"))?;
        let weight = (weight.parse().ok())
            .filter(|weight| *weight <= Weights::MAX)
            .ok_or_else(|| format!("{weight:?} is not a weight from 0 to {}", Weights::MAX))?;
        if weights.insert(weight_target(target)?, weight).is_some() {
            return Err(format!("{target:?} has two weights"));
        }
    }
    Ok(Weights::new(weights))
}

/// Parses `kube-dnat.io/slow-start`, a duration as Go reads it.
fn slow_start(text: &str) -> Result<Duration, String> {
    let window: GoDuration = text
        .parse()
        .map_err(|error: NotADuration| error.to_string())?;
    let window = window.to_std();
    if SLOW_START_WINDOWS.contains(&window) {
        Ok(window)
    } else {
        Err(format!("{text:?} is not from 1s to 1h"))
    }
}

/// Parses `kube-dnat.io/close-removed`.
fn close_removed(text: &str, has_tcp: bool) -> Result<bool, String> {
    let closes = text
        .parse()
        .map_err(|_error| format!("{text:?} is neither true nor false"))?;
    if closes && !has_tcp {
        return Err("the Service has no TCP port".to_owned());
    }
    Ok(closes)
}

/// Parses `kube-dnat.io/port-ranges`: `30000-30999/udp,5060/tcp`.
fn port_ranges(text: &str) -> Result<PortRanges, String> {
    let entries: Vec<_> = text.split(',').map(str::trim).collect();
    if entries.len() > PortRanges::MAX {
        return Err(format!("there are more than {} ranges", PortRanges::MAX));
    }
    let ranges: Result<Vec<_>, _> = entries.into_iter().map(port_range).collect();
    PortRanges::new(ranges?).map_err(|error| error.to_string())
}

/// Parses a port number, which has no sign.
fn port(text: &str) -> Option<u16> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

/// Parses a range of ports, or a single port, with its protocol.
fn port_range(text: &str) -> Result<(Protocol, PortRange), String> {
    let of_protocol = |name: &str| {
        let mut all = Protocol::ALL.into_iter();
        all.find(|protocol| protocol.to_string() == name)
    };
    let parse = |text: &str| {
        let (ports, protocol) = text.rsplit_once('/')?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let range = PortRange::new(port(first)?, port(last)?)?;
        Some((of_protocol(protocol)?, range))
    };
    let expected = "FIRST-LAST/PROTOCOL with ports from 1 to 65535 and tcp, udp or sctp";
    parse(text).ok_or_else(|| format!("{text:?} is not of the form {expected}"))
}

/// Parses `kube-dnat.io/external-local-without-endpoints`.
fn no_local_endpoint(text: &str, policy: TrafficPolicy) -> Result<NoLocalEndpoint, String> {
    let answer = NoLocalEndpoint::from_name(text)
        .ok_or_else(|| format!("{text:?} is neither drop nor reject"))?;
    match policy {
        TrafficPolicy::Local => Ok(answer),
        TrafficPolicy::Cluster => {
            Err("externalTrafficPolicy Local does not apply to the Service".to_owned())
        }
    }
}

/// Parses the target of a weight: an address, `node:NAME`, or a zone.
fn weight_target(text: &str) -> Result<WeightTarget, String> {
    if let Some(node) = text.strip_prefix("node:") {
        let valid = is_name(node, 253).then(|| WeightTarget::Node(node.into()));
        return valid.ok_or_else(|| format!("{node:?} is not the name of a node"));
    }
    if let Some(address) = ip::address(text) {
        return Ok(WeightTarget::Address(address));
    }
    let valid = is_label_value(text).then(|| WeightTarget::Zone(text.into()));
    valid.ok_or_else(|| format!("{text:?} is not an IP address, node:NAME or the name of a zone"))
}

/// Returns whether a text is the value of a label, which the name of a zone is, and not empty.
fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
