//! The selection of kube-proxy's objects in a ruleset, without those of other programs.
//!
//! The module is pure: the ruleset comes from [`crate::netlink`]. kube-proxy's nftables mode leaves
//! `table ip kube-proxy` and `ip6`. Its iptables and ipvs modes leave, with the nft variant of
//! iptables, chains `KUBE-*` in the tables `nat`, `filter` and `mangle`, and rules of the built-in
//! chains that jump to them (`pkg/proxy/iptables/proxier.go`, `CleanupLeftovers`).

use std::collections::BTreeSet;
use std::fmt;

/// The family and name of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The family as `NFPROTO_*`.
    pub family: u8,
    /// The name.
    pub name: String,
}

/// The table and name of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainId {
    /// The table of the chain.
    pub table: TableName,
    /// The name.
    pub name: String,
}

/// A chain of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    /// The table and name.
    pub id: ChainId,
    /// The hook number and the priority of a base chain; `None` for other chains.
    pub hook: Option<(u32, i32)>,
    /// Whether the chain has type nat.
    pub is_nat: bool,
    /// Whether the policy of the base chain is drop.
    pub drops_by_policy: bool,
}

/// A rule of any chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// The chain of the rule.
    pub chain: ChainId,
    /// The handle that the kernel assigned.
    pub handle: u64,
    /// The chain of the same table that is the target of a jump or goto.
    pub target: Option<String>,
}

/// The tables, chains and rules of all programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables.
    pub tables: Vec<TableName>,
    /// The chains of the tables.
    pub chains: Vec<ForeignChain>,
    /// The rules of the chains.
    pub rules: Vec<ForeignRule>,
}

/// The objects to delete, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// The tables to delete with all their objects.
    pub tables: Vec<TableName>,
    /// The single rules to delete, by handle.
    pub rules: Vec<(ChainId, u64)>,
    /// The chains to delete with their rules.
    pub chains: Vec<ChainId>,
}

impl Removal {
    /// Returns whether there is nothing to delete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.rules.is_empty() && self.chains.is_empty()
    }

    /// Returns whether the removal has the table or chain that kube-proxy creates in each mode.
    ///
    /// A kubelet before 1.27 creates some of the chains too, but not this one.
    #[must_use]
    pub fn has_services(&self) -> bool {
        !self.tables.is_empty() || self.chains.iter().any(|chain| chain.name == SERVICES)
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<_> = self.tables.iter().map(TableName::to_string).collect();
        let mut parts = Vec::new();
        if !tables.is_empty() {
            parts.push(tables.join(", "));
        }
        if !self.chains.is_empty() || !self.rules.is_empty() {
            parts.push(format!(
                "iptables chains ({}) with the jumps to them ({})",
                self.chains.len(),
                self.rules.len()
            ));
        }
        if parts.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&parts.join(", and "))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            _ => "?",
        };
        write!(f, "table {family} {}", self.name)
    }
}

/// The family of IPv4 tables (`NFPROTO_IPV4`).
const IP: u8 = 2;
/// The family of IPv6 tables (`NFPROTO_IPV6`).
const IP6: u8 = 10;

/// The table of kube-proxy's nftables mode (`pkg/proxy/nftables/proxier.go`).
const KUBE_PROXY: &str = "kube-proxy";

/// The iptables tables in which kube-proxy has chains.
const IPTABLES: [&str; 3] = ["nat", "filter", "mangle"];

/// The chains of all versions of kube-proxy (`pkg/proxy/iptables` and `pkg/proxy/ipvs`).
///
/// The kubelet and kube-router have other chains whose names begin with `KUBE-`.
const CHAINS: [&str; 13] = [
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-LOAD-BALANCER",
    "KUBE-MARK-MASQ",
    "KUBE-NODE-PORT",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-PROXY-CANARY",
    "KUBE-PROXY-FIREWALL",
    SERVICES,
    "KUBE-SOURCE-RANGES-FIREWALL",
];

/// The chain that every version creates in iptables and ipvs mode.
const SERVICES: &str = "KUBE-SERVICES";

/// The prefixes of the chains of single Services and endpoints; a hash follows.
const PREFIXES: [&str; 6] = [
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-SEP-",
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-XLB-",
];

/// The IP sets of the ipvs mode without their prefix `KUBE-` or `KUBE-6-`
/// (`pkg/proxy/ipvs/ipset.go`).
const IP_SETS: [&str; 17] = [
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
    "LOAD-BALANCER",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-SOURCE-CIDR",
    "LOAD-BALANCER-SOURCE-IP",
    "LOOP-BACK",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-TCP",
    "NODE-PORT-UDP",
];

/// Returns whether an IP set belongs to kube-proxy, and not for example to kube-router.
#[must_use]
pub fn is_ip_set_of_kube_proxy(name: &str) -> bool {
    let own = name
        .strip_prefix("KUBE-6-")
        .or_else(|| name.strip_prefix("KUBE-"));
    // kube-proxy cuts an IPv6 name to the 31 bytes that the kernel accepts.
    let is = |known: &&str, own| *known == own || (name.len() == 31 && known.starts_with(own));
    own.is_some_and(|own| IP_SETS.iter().any(|known| is(known, own)))
}

/// Returns whether a table has family IPv4 or IPv6.
fn is_ip(table: &TableName) -> bool {
    [IP, IP6].contains(&table.family)
}

/// Returns whether a table belongs to kube-proxy's nftables mode.
#[must_use]
pub fn is_table_of_kube_proxy(table: &TableName) -> bool {
    is_ip(table) && table.name == KUBE_PROXY
}

/// Returns whether a chain belongs to kube-proxy.
fn is_chain_of_kube_proxy(chain: &ChainId) -> bool {
    is_ip(&chain.table)
        && IPTABLES.contains(&chain.table.name.as_str())
        && (CHAINS.contains(&chain.name.as_str())
            || PREFIXES.iter().any(|prefix| chain.name.starts_with(prefix)))
}

/// The chain that marks packets for masquerading.
const MARK_CHAIN: &str = "KUBE-MARK-MASQ";

/// The chain that masquerades marked packets.
const MASQUERADE_CHAIN: &str = "KUBE-POSTROUTING";

/// Selects the objects of kube-proxy for removal.
///
/// A chain to which a chain of another program jumps stays, with all chains that it needs. The mark
/// of `KUBE-MARK-MASQ`, which CNI's portmap plugin can use, needs the rule that masquerades.
#[must_use]
pub fn removal(ruleset: &Ruleset) -> Removal {
    let tables = ruleset
        .tables
        .iter()
        .filter(|table| is_table_of_kube_proxy(table));
    let kube_proxys: BTreeSet<_> = ruleset
        .chains
        .iter()
        .map(|chain| &chain.id)
        .filter(|id| is_chain_of_kube_proxy(id))
        .collect();
    let base_chains: BTreeSet<_> = ruleset
        .chains
        .iter()
        .filter(|chain| chain.hook.is_some())
        .map(|chain| &chain.id)
        .collect();
    let jumps: Vec<_> = ruleset
        .rules
        .iter()
        .filter_map(|rule| {
            let target = ChainId {
                table: rule.chain.table.clone(),
                name: rule.target.clone()?,
            };
            Some((rule, target))
        })
        .collect();
    let is_others = |id: &ChainId| !kube_proxys.contains(id) && !base_chains.contains(id);
    let mut kept = reachable(&jumps, is_others);
    let masquerade: BTreeSet<_> = kept
        .iter()
        .filter(|id| id.name == MARK_CHAIN)
        .map(|id| ChainId {
            table: id.table.clone(),
            name: MASQUERADE_CHAIN.to_owned(),
        })
        .collect();
    kept.extend(reachable(&jumps, |id| masquerade.contains(id)));
    kept.extend(masquerade);
    let is_removed = |id: &ChainId| kube_proxys.contains(id) && !kept.contains(id);
    let rules = jumps
        .iter()
        .filter(|(rule, target)| is_removed(target) && !is_removed(&rule.chain))
        .map(|(rule, _)| (rule.chain.clone(), rule.handle));
    Removal {
        tables: tables.cloned().collect(),
        rules: rules.collect(),
        chains: kube_proxys
            .iter()
            .filter(|id| is_removed(id))
            .copied()
            .cloned()
            .collect(),
    }
}

/// Returns the chains that are reachable from the chains that `is_others` selects.
fn reachable(
    jumps: &[(&ForeignRule, ChainId)],
    is_others: impl Fn(&ChainId) -> bool,
) -> BTreeSet<ChainId> {
    let mut reached = BTreeSet::new();
    loop {
        let more: Vec<_> = jumps
            .iter()
            .filter(|(rule, target)| {
                !reached.contains(target)
                    && (is_others(&rule.chain) || reached.contains(&rule.chain))
            })
            .map(|(_, target)| target.clone())
            .collect();
        if more.is_empty() {
            return reached;
        }
        reached.extend(more);
    }
}

#[cfg(test)]
mod tests;
