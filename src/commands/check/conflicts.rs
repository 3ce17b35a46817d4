//! Who else is at the same work.

use super::CheckResult;
use crate::commands::processes::{self, PortListener};
use crate::kube_proxy::leftovers::{ForeignChain, Ruleset, removal};
use crate::kube_proxy::takeover::{IPVS_DEVICE, has_device, ip_sets, legacy_iptables};
use crate::kube_proxy::virtual_servers;
use crate::netlink::Kernel;
use crate::planner::ruleset::{DSTNAT, Hook, TABLE};

/// What the rules in the kernel show.
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
    let mut findings = vec![kube_proxy(&ruleset, kernel)];
    findings.extend(firewalld(&ruleset));
    findings.extend(drops(&ruleset));
    findings.extend(translates_before(&ruleset));
    findings
}

fn kube_proxy(ruleset: &Ruleset, kernel: &mut Kernel) -> CheckResult {
    const WHAT: &str = "kube-proxy rules";
    let found = removal(ruleset);
    let mut left = Vec::new();
    if !found.is_empty() {
        left.push(found.to_string());
    }
    match ip_sets(kernel) {
        Ok(sets) if sets.is_empty() => {}
        Ok(sets) => left.push(format!("IP sets ({})", sets.len())),
        Err(error) => left.push(error.to_string()),
    }
    if has_device(IPVS_DEVICE) {
        left.push(format!("device {IPVS_DEVICE} (IPVS)"));
    }
    let servers = virtual_servers();
    if left.is_empty() && servers > 0 {
        return CheckResult::warning(
            WHAT,
            format!(
                "IPVS has {servers} virtual servers, and nothing shows that kube-proxy made them"
            ),
            "`ipvsadm --list --numeric` shows them, and `ipvsadm --clear` deletes them all",
        );
    }
    if left.is_empty() {
        return CheckResult::ok(WHAT, "kube-proxy has left none");
    }
    if servers > 0 {
        left.push(format!("virtual servers of IPVS ({servers})"));
    }
    CheckResult::warning(
        WHAT,
        format!("found {}; kube-dnat's come first", left.join(", ")),
        "stop kube-proxy, then start kube-dnat with --takeover (docs/migration.md)",
    )
}

fn firewalld(ruleset: &Ruleset) -> Option<CheckResult> {
    let there = ruleset.tables.iter().any(|table| table.name == "firewalld");
    there.then(|| {
        CheckResult::warning(
            "firewalld",
            "firewalld is active: it rejects what its zones do not know, translated or not",
            "put the Pods' interfaces and ranges into a trusted zone: firewall-cmd --permanent \
             --zone=trusted --add-source=POD-CIDR; firewall-cmd --reload",
        )
    })
}

/// Chains of others that drop by policy what they do not know.
fn drops(ruleset: &Ruleset) -> Option<CheckResult> {
    let is_in_the_way = |chain: &&ForeignChain| {
        chain.drops
            && chain.id.table.name != "firewalld"
            && is_hooked(chain, [Hook::Input, Hook::Forward], i32::MAX)
    };
    let chains = named(ruleset, is_in_the_way)?;
    Some(CheckResult::warning(
        "host firewall",
        format!("what is not accepted is dropped by policy in {chains}"),
        "accept what was translated, for example: nft add rule TABLE CHAIN ct status dnat accept",
    ))
}

/// Chains of others that may translate a connection before ours.
fn translates_before(ruleset: &Ruleset) -> Option<CheckResult> {
    let is_before = |chain: &&ForeignChain| {
        let first = is_hooked(chain, [Hook::Prerouting, Hook::Output], DSTNAT);
        chain.translates && chain.id.table.name != TABLE && first
    };
    let chains = named(ruleset, is_before)?;
    Some(CheckResult::warning(
        "earlier chains",
        format!("what is translated before ours is not looked at again: {chains}"),
        "see that they translate no addresses of Services",
    ))
}

/// Whether a chain is called from one of these hooks before a priority.
fn is_hooked(chain: &ForeignChain, hooks: [Hook; 2], before: i32) -> bool {
    let numbers = hooks.map(Hook::number);
    chain
        .hook
        .is_some_and(|(hook, priority)| numbers.contains(&hook) && priority < before)
}

fn named(ruleset: &Ruleset, which: impl Fn(&&ForeignChain) -> bool) -> Option<String> {
    let chains = ruleset.chains.iter().filter(which);
    let names: Vec<_> = chains
        .map(|chain| format!("{} chain {}", chain.id.table, chain.id.name))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// What processes, devices and ports show.
pub(super) fn of_programs() -> Vec<CheckResult> {
    let mut findings = vec![kube_proxy_process()];
    let legacy = legacy_iptables();
    if !legacy.is_empty() {
        findings.push(CheckResult::warning(
            "iptables",
            format!(
                "the old variant of iptables has tables {}",
                legacy.join(", ")
            ),
            "iptables-legacy-save | grep KUBE- shows whether kube-proxy left something there; \
             kube-proxy --cleanup removes it",
        ));
    }
    findings.extend(other_proxies());
    findings.push(ports());
    findings
}

fn kube_proxy_process() -> CheckResult {
    const WHAT: &str = "kube-proxy";
    match processes::named("kube-proxy").as_slice() {
        [] => CheckResult::ok(
            WHAT,
            "no process of that name runs in this network namespace",
        ),
        [process, ..] => CheckResult::warning(
            WHAT,
            format!("{process} runs: it would program its rules again"),
            "park its DaemonSet once kube-dnat runs (docs/migration.md), unless this is kube-dnat under \
             its name",
        ),
    }
}

/// Other software that may stand in for kube-proxy, by the device that it makes.
fn other_proxies() -> Vec<CheckResult> {
    const DEVICES: [(&str, &str); 3] = [
        (
            "cilium_host",
            "Cilium is here: see that its kubeProxyReplacement is false",
        ),
        (
            "bpfin.cali",
            "Calico's eBPF mode is here: see that it does not serve Services (bpfEnabled: false)",
        ),
        (
            "kube-bridge",
            "kube-router is here: see that it runs without --run-service-proxy",
        ),
    ];
    DEVICES
        .iter()
        .filter(|(device, _)| has_device(device))
        .map(|(device, mend)| {
            let found = format!("device {device} is there");
            CheckResult::warning("other proxy", found, *mend)
        })
        .collect()
}

/// The default ports for health and metrics.
fn ports() -> CheckResult {
    const WHAT: &str = "ports";
    let mut taken = Vec::new();
    let mut by_others = false;
    for port in [10249, 10256] {
        match processes::listener(port) {
            PortListener::Nobody => {}
            PortListener::Hidden => {
                by_others = true;
                taken.push(format!(
                    "{port} is taken by a process that cannot be seen from here"
                ));
            }
            PortListener::Seen(process) => {
                by_others |= process.name != TABLE;
                taken.push(format!("{port} is taken by {process}"));
            }
        }
    }
    if taken.is_empty() {
        return CheckResult::ok(WHAT, "10249 (metrics) and 10256 (health) are free");
    }
    let found = taken.join(", ");
    if !by_others {
        return CheckResult::ok(WHAT, found);
    }
    CheckResult::warning(
        WHAT,
        found,
        "kube-proxy has them until it stops: kube-dnat tries again; or choose others \
         (--metrics-bind-address, --healthz-bind-address)",
    )
}
