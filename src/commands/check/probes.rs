//! Whether the probes of kube-dnat's `DaemonSets` match the address of the health checks.
//!
//! The kubelet restarts a container whose probe requests another address for ever.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::CheckResult;
use crate::planner::ruleset::TABLE;

/// The name of the check.
pub(super) const CHECK: &str = "probes";

/// Checks the probes of the `DaemonSets` for a daemon that serves health checks at this address.
pub(super) fn check(daemon_sets: &[DaemonSet], health: Option<SocketAddr>) -> Vec<CheckResult> {
    let containers: Vec<_> = daemon_sets
        .iter()
        .filter_map(|set| Some((name(set), container(set)?)))
        .collect();
    if containers.is_empty() {
        let message = format!("the cluster has no DaemonSet of {TABLE} yet");
        return vec![CheckResult::ok(CHECK, message)];
    }
    let results = containers.iter().map(|(name, container)| {
        let mismatch = probes(container)
            .find_map(|(kind, probe)| Some(format!("its {kind} {}", mismatch(probe, health)?)));
        match mismatch {
            None => CheckResult::ok(CHECK, format!("DaemonSet {name}: they match the configuration")),
            Some(mismatch) => CheckResult::failure(
                CHECK,
                format!("DaemonSet {name}: {mismatch}"),
                "probe with exec: kube-dnat probe livez --config=FILE, or change healthzBindAddress",
            ),
        }
    });
    results.collect()
}

/// Returns the namespace and name of a DaemonSet.
fn name(set: &DaemonSet) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!(
        "{}/{}",
        part(&set.metadata.namespace),
        part(&set.metadata.name)
    )
}

/// Returns the container with kube-dnat.
fn container(set: &DaemonSet) -> Option<&Container> {
    let pod = set.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers
        .iter()
        .find(|container| container.name == TABLE)
}

/// Returns the probes of a container with their fields.
fn probes(container: &Container) -> impl Iterator<Item = (&'static str, &Probe)> {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ];
    probes
        .into_iter()
        .filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
}

/// Returns why a probe does not reach the health checks; `None` if it does, or is no HTTP request.
///
/// The Pod has the network of its node, so that a probe without a host requests an address of the node.
fn mismatch(probe: &Probe, health: Option<SocketAddr>) -> Option<String> {
    let HTTPGetAction { host, port, .. } = probe.http_get.as_ref()?;
    let IntOrString::Int(port) = port else {
        return None;
    };
    let Some(health) = health else {
        return Some(format!(
            "requests port {port}, but healthzBindAddress is empty"
        ));
    };
    if i32::from(health.port()) != *port {
        return Some(format!(
            "requests port {port}, but healthzBindAddress is {health}"
        ));
    }
    let loopback = |host: &str| {
        let ip = host.parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    };
    let requests_loopback = host.as_deref().is_some_and(loopback);
    let is_reached = health.ip().is_unspecified() || requests_loopback == health.ip().is_loopback();
    let requested = if requests_loopback {
        "loopback"
    } else {
        "an address of the node"
    };
    (!is_reached).then(|| format!("requests {requested}, but healthzBindAddress is {health}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::check::Level;

    /// Checks a DaemonSet whose liveness probe is this.
    fn checked(probe: &serde_json::Value, health: Option<&str>) -> CheckResult {
        let set = serde_json::from_value(json!({
            "metadata": {"namespace": "kube-system", "name": "kube-dnat"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [
                {"name": "another", "livenessProbe": {"httpGet": {"port": 1}}},
                {"name": "kube-dnat", "livenessProbe": probe},
            ]}}},
        }));
        let health = health.map(|address| address.parse().unwrap());
        let mut results = check(&[set.unwrap()], health);
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    #[test]
    fn a_probe_must_reach_the_health_checks() {
        let loopback = json!({"httpGet": {"host": "127.0.0.1", "port": 10256}});
        let node = json!({"httpGet": {"port": 10256}});
        let exec = json!({"exec": {"command": ["kube-dnat", "probe", "livez"]}});
        for (probe, health, expected) in [
            (&loopback, Some("0.0.0.0:10256"), None),
            (&loopback, Some("[::]:10256"), None),
            (&loopback, Some("127.0.0.1:10256"), None),
            (&node, Some("0.0.0.0:10256"), None),
            (&node, Some("192.0.2.1:10256"), None),
            (&exec, Some("192.0.2.1:9"), None),
            (&exec, None, None),
            (
                &loopback,
                Some("0.0.0.0:10299"),
                Some("port 10256, but healthzBindAddress is 0.0.0.0:10299"),
            ),
            (&loopback, None, Some("but healthzBindAddress is empty")),
            (
                &loopback,
                Some("192.0.2.1:10256"),
                Some("requests loopback"),
            ),
            (
                &node,
                Some("127.0.0.1:10256"),
                Some("requests an address of the node"),
            ),
        ] {
            let result = checked(probe, health);
            match expected {
                None => assert_eq!(result.level, Level::Ok, "{probe} {health:?}: {result:?}"),
                Some(text) => {
                    assert_eq!(result.level, Level::Failure, "{probe} {health:?}");
                    assert!(result.message.contains(text), "{}", result.message);
                    let start = "DaemonSet kube-system/kube-dnat: its livenessProbe requests ";
                    assert!(result.message.starts_with(start), "{}", result.message);
                }
            }
        }
    }

    #[test]
    fn a_cluster_without_a_daemon_set_needs_no_action() {
        let results = check(&[DaemonSet::default()], None);
        assert!(results.iter().all(|result| result.level == Level::Ok));
    }
}
