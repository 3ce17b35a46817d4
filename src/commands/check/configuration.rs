//! Checks of a configuration file, before a daemon starts with it.

use ipnet::IpNet;

use super::CheckResult;
use crate::commands::flags::{NodeFlags, load};
use crate::config::{Config, Mode};
use crate::planner::desired::PodSource;

/// Checks the file that the flags name. Returns the configuration if it is valid.
pub(super) fn check(flags: NodeFlags, results: &mut Vec<CheckResult>) -> Option<Config> {
    const CHECK: &str = "configuration";
    const FIX: &str = "docs/configuration.md lists the fields and their values";
    let file = flags.config.as_ref().map(|file| file.display().to_string());
    let (config, notices) = match load(flags, None, &[]) {
        Ok(loaded) => loaded,
        Err(error) => {
            results.push(CheckResult::failure(CHECK, format!("{error:#}"), FIX));
            return None;
        }
    };
    let source = file.unwrap_or_else(|| "the default configuration".to_owned());
    let mode = match config.mode {
        Mode::Unset => "no mode".to_owned(),
        mode @ (Mode::Nftables | Mode::Iptables | Mode::Ipvs) => format!("mode {mode}"),
    };
    let message = format!("{source} is valid ({mode}), node {}", config.node);
    results.push(CheckResult::ok(CHECK, message));
    for notice in notices {
        results.push(if notice.is_warning() {
            CheckResult::warning(CHECK, notice.to_string(), FIX)
        } else {
            CheckResult::ok(CHECK, notice.to_string())
        });
    }
    results.push(health(&config));
    Some(config)
}

/// Checks whether probes and load balancers can reach the health checks.
fn health(config: &Config) -> CheckResult {
    const CHECK: &str = "health";
    match config.healthz_bind_address {
        None => CheckResult::warning(
            CHECK,
            "healthzBindAddress is empty: nothing serves health checks",
            "probe with: kube-dnat probe; load balancers with externalTrafficPolicy Cluster need an address",
        ),
        Some(address) if address.ip().is_loopback() => CheckResult::warning(
            CHECK,
            format!(
                "healthzBindAddress {address} is loopback: load balancers outside the node get no answer"
            ),
            "no action is required if no load balancer asks; probes must use 127.0.0.1 or kube-dnat probe",
        ),
        Some(address) => CheckResult::ok(CHECK, format!("served on {address}")),
    }
}

/// Checks whether the configured ranges of Pods cover those of the Node object.
pub(super) fn cluster_cidr(config: &Config, pod_cidrs: Option<&[IpNet]>) -> CheckResult {
    const CHECK: &str = "cluster CIDR";
    let configured = match &config.facts.pods {
        PodSource::ClusterCidr(cidrs) => cidrs,
        PodSource::NodeCidr => {
            return match pod_cidrs {
                Some([]) => CheckResult::failure(
                    CHECK,
                    "detectLocalMode is NodeCIDR, and the Node object has no podCIDRs: kube-dnat waits for them",
                    "use another detectLocalMode, or let the controller manager allocate node CIDRs",
                ),
                Some(cidrs) => CheckResult::ok(CHECK, format!("Pods are in {}", list(cidrs))),
                None => CheckResult::ok(CHECK, "Pods are in the podCIDRs of the Node object"),
            };
        }
        PodSource::Interface(_) => {
            return CheckResult::ok(CHECK, "Pods are recognised by their interface");
        }
    };
    if configured.is_empty() {
        return CheckResult::warning(
            CHECK,
            "clusterCIDR is empty: connections to ClusterIPs are not masqueraded, so those of external \
             clients get no reply",
            "set clusterCIDR to the ranges of the cluster's Pods, or use another detectLocalMode",
        );
    }
    let uncovered = |pods: &&IpNet| !configured.iter().any(|cidr| cidr.contains(*pods));
    match pod_cidrs.unwrap_or_default().iter().find(uncovered) {
        Some(pods) => CheckResult::failure(
            CHECK,
            format!(
                "clusterCIDR {} does not cover {pods}, the Pods of this node: they count as external \
                 clients, and their source address is hidden",
                list(configured)
            ),
            "set clusterCIDR to the ranges of the cluster's Pods",
        ),
        None => CheckResult::ok(CHECK, list(configured)),
    }
}

/// Lists ranges.
fn list(cidrs: &[IpNet]) -> String {
    let texts: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
