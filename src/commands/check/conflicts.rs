//! Checks for other programs and rules that conflict with kube-dnat.

use super::CheckResult;
use crate::commands::processes::{self, PortListener};
use crate::kube_proxy::leftovers::{ForeignChain, Ruleset, removal};
use crate::kube_proxy::takeover::{IPVS_DEVICE, has_device, ip_sets, legacy_iptables};
use crate::kube_proxy::virtual_servers;
use crate::netlink::Kernel;
use crate::planner::ruleset::{DSTNAT, Hook, TABLE};

/// Checks the rules of other programs in the kernel.
pub(super) fn of_rules(kernel: &mut Kernel) -> Vec<CheckResult> {
    let ruleset = match kernel.full_ruleset() {
        Ok(ruleset) => ruleset,
        Err(error) => {
            return vec![CheckResult::failure(
                "other rules",
                error.to_string(),
                "run this check as root",
            )];
        }
    };
    let mut results = vec![kube_proxy_rules(&ruleset, kernel)];
    results.extend(firewalld(&ruleset));
    results.extend(host_firewall(&ruleset));
    results.extend(earlier_chains(&ruleset));
    results
}

/// Checks for rules, IP sets and IPVS virtual servers of kube-proxy.
fn kube_proxy_rules(ruleset: &Ruleset, kernel: &mut Kernel) -> CheckResult {
    const CHECK: &str = "kube-proxy rules";
    let removal = removal(ruleset);
    let mut leftovers = Vec::new();
    if !removal.is_empty() {
        leftovers.push(removal.to_string());
    }
    match ip_sets(kernel) {
        Ok(sets) if sets.is_empty() => {}
        Ok(sets) => leftovers.push(format!("IP sets ({})", sets.len())),
        Err(error) => leftovers.push(error.to_string()),
    }
    if has_device(IPVS_DEVICE) {
        leftovers.push(format!("device {IPVS_DEVICE} (IPVS)"));
    }
    let servers = virtual_servers();
    if leftovers.is_empty() && servers > 0 {
        return CheckResult::warning(
            CHECK,
            format!("IPVS has {servers} virtual servers that cannot be attributed to kube-proxy"),
            "list them with `ipvsadm --list --numeric`; `ipvsadm --clear` deletes all of them",
        );
    }
    if leftovers.is_empty() {
        return CheckResult::ok(CHECK, "no rules of kube-proxy found");
    }
    if servers > 0 {
        leftovers.push(format!("IPVS virtual servers ({servers})"));
    }
    CheckResult::warning(
        CHECK,
        format!(
            "found {}; kube-dnat's chains run first",
            leftovers.join(", ")
        ),
        "stop kube-proxy, then start kube-dnat with --takeover (docs/migration.md)",
    )
}

/// Checks for firewalld, whose zones reject connections to Pods.
fn firewalld(ruleset: &Ruleset) -> Option<CheckResult> {
    let is_active = ruleset.tables.iter().any(|table| table.name == "firewalld");
    is_active.then(|| {
        CheckResult::warning(
            "firewalld",
            "firewalld is active: it rejects connections that its zones do not allow, even translated ones",
            "add the Pods' interfaces and address ranges to a trusted zone: firewall-cmd --permanent \
             --zone=trusted --add-source=POD-CIDR; firewall-cmd --reload",
        )
    })
}

/// Checks for chains of other programs with policy drop.
fn host_firewall(ruleset: &Ruleset) -> Option<CheckResult> {
    let drops_traffic = |chain: &&ForeignChain| {
        chain.drops_by_policy
            && chain.id.table.name != "firewalld"
            && is_hooked(chain, [Hook::Input, Hook::Forward], i32::MAX)
    };
    let chains = chain_names(ruleset, drops_traffic)?;
    Some(CheckResult::warning(
        "host firewall",
        format!("policy drop in {chains}: connections that no rule accepts are dropped"),
        "accept translated connections, for example: nft add rule TABLE CHAIN ct status dnat accept",
    ))
}

/// Checks for chains of other programs that translate connections before kube-dnat does.
fn earlier_chains(ruleset: &Ruleset) -> Option<CheckResult> {
    let is_before = |chain: &&ForeignChain| {
        let first = is_hooked(chain, [Hook::Prerouting, Hook::Output], DSTNAT);
        chain.is_nat && chain.id.table.name != TABLE && first
    };
    let chains = chain_names(ruleset, is_before)?;
    Some(CheckResult::warning(
        "earlier chains",
        format!("kube-dnat never sees the connections that these chains translate: {chains}"),
        "make sure that they do not translate addresses of Services",
    ))
}

/// Whether a chain is attached to one of these hooks with a priority below `before`.
fn is_hooked(chain: &ForeignChain, hooks: [Hook; 2], before: i32) -> bool {
    let numbers = hooks.map(Hook::number);
    chain
        .hook
        .is_some_and(|(hook, priority)| numbers.contains(&hook) && priority < before)
}

/// Returns the tables and names of the matching chains. Returns `None` if there are none.
fn chain_names(ruleset: &Ruleset, is_match: impl Fn(&&ForeignChain) -> bool) -> Option<String> {
    let chains = ruleset.chains.iter().filter(is_match);
    let names: Vec<_> = chains
        .map(|chain| format!("{} chain {}", chain.id.table, chain.id.name))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Checks for other programs by their processes, devices and ports.
pub(super) fn of_programs() -> Vec<CheckResult> {
    let mut results = vec![kube_proxy_process()];
    let legacy = legacy_iptables();
    if !legacy.is_empty() {
        results.push(CheckResult::warning(
            "iptables",
            format!(
                "the legacy variant of iptables has the tables {}",
                legacy.join(", ")
            ),
            "`iptables-legacy-save | grep KUBE-` shows whether kube-proxy has rules there; \
             `kube-proxy --cleanup` removes them",
        ));
    }
    results.extend(other_proxies());
    results.push(ports());
    results
}

/// Checks whether kube-proxy is running in this network namespace.
fn kube_proxy_process() -> CheckResult {
    const CHECK: &str = "kube-proxy";
    match processes::named("kube-proxy").as_slice() {
        [] => CheckResult::ok(CHECK, "not running in this network namespace"),
        [process, ..] => CheckResult::warning(
            CHECK,
            format!("{process} is running and reprograms its rules"),
            "park its DaemonSet once kube-dnat is running (docs/migration.md), unless this process is \
             kube-dnat under the name of kube-proxy",
        ),
    }
}

/// Checks for other kube-proxy replacements, by the devices that they create.
fn other_proxies() -> Vec<CheckResult> {
    const DEVICES: [(&str, &str); 3] = [
        (
            "cilium_host",
            "Cilium is installed: make sure that its kubeProxyReplacement is false",
        ),
        (
            "bpfin.cali",
            "Calico's eBPF mode is active: turn it off, because it serves Services (bpfEnabled: false)",
        ),
        (
            "kube-bridge",
            "kube-router is installed: make sure that it runs without --run-service-proxy",
        ),
    ];
    DEVICES
        .iter()
        .filter(|(device, _)| has_device(device))
        .map(|(device, fix)| {
            let message = format!("device {device} exists");
            CheckResult::warning("other proxy", message, *fix)
        })
        .collect()
}

/// Checks whether the default ports for health and metrics are free.
fn ports() -> CheckResult {
    const CHECK: &str = "ports";
    let mut in_use = Vec::new();
    let mut by_others = false;
    for port in [10249, 10256] {
        match processes::listener(port) {
            PortListener::Nobody => {}
            PortListener::Hidden => {
                by_others = true;
                in_use.push(format!(
                    "{port} is in use by a process that is not visible from here"
                ));
            }
            PortListener::Seen(process) => {
                by_others |= process.name != TABLE;
                in_use.push(format!("{port} is in use by {process}"));
            }
        }
    }
    if in_use.is_empty() {
        return CheckResult::ok(CHECK, "10249 (metrics) and 10256 (health) are free");
    }
    let message = in_use.join(", ");
    if !by_others {
        return CheckResult::ok(CHECK, message);
    }
    CheckResult::warning(
        CHECK,
        message,
        "kube-proxy uses them until it stops, and kube-dnat retries until then; or choose other \
         ports (--metrics-bind-address, --healthz-bind-address)",
    )
}
