//! What kube-proxy leaves in nftables, and how it is removed without touching what is another's.
//! Pure: the ruleset comes from [`crate::netlink`].
//!
//! In nftables mode: `table ip kube-proxy` and `ip6`. In the modes iptables and ipvs, with the nft
//! variant of iptables: chains `KUBE-*` in the tables `nat`, `filter` and `mangle`, and rules of the
//! built-in chains that jump there (`pkg/proxy/iptables/proxier.go`, `CleanupLeftovers`).

use std::collections::BTreeSet;
use std::fmt;

/// Which table: family (`NFPROTO_*`) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`, ...
    pub family: u8,
    /// Its name.
    pub name: String,
}

/// Which chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainId {
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
}

/// A chain of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    /// Which.
    pub id: ChainId,
    /// Where it is hooked: hook number and priority; `None`: others call it.
    pub hook: Option<(u32, i32)>,
    /// Whether it translates addresses (type nat).
    pub translates: bool,
    /// Whether it drops what its rules let pass.
    pub drops: bool,
}

/// A rule of any chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// Its chain.
    pub chain: ChainId,
    /// The kernel's number for it.
    pub handle: u64,
    /// The chain of the same table that it jumps or goes to.
    pub target: Option<String>,
}

/// Tables, chains and rules, whoever's they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables.
    pub tables: Vec<TableName>,
    /// Their chains.
    pub chains: Vec<ForeignChain>,
    /// The rules of their chains.
    pub rules: Vec<ForeignRule>,
}

/// What is to be deleted, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Whole tables.
    pub tables: Vec<TableName>,
    /// Single rules, by handle.
    pub rules: Vec<(ChainId, u64)>,
    /// Chains, with their rules.
    pub chains: Vec<ChainId>,
}

impl Removal {
    /// Whether there is nothing to delete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.rules.is_empty() && self.chains.is_empty()
    }

    /// Whether it has what kube-proxy makes first, in whichever mode. A kubelet before 1.27 makes some
    /// of the chains too, but not this one.
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

const IP: u8 = 2;
const IP6: u8 = 10;

/// The table of kube-proxy's nftables mode (`pkg/proxy/nftables/proxier.go`).
const KUBE_PROXY: &str = "kube-proxy";

/// The tables of iptables that kube-proxy has chains in.
const IPTABLES: [&str; 3] = ["nat", "filter", "mangle"];

/// kube-proxy's chains of every version (`pkg/proxy/iptables` and `pkg/proxy/ipvs`). Others have
/// names that begin with `KUBE-` too: the kubelet, and kube-router for its network policies.
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

const SERVICES: &str = "KUBE-SERVICES";

/// Its chains of single Services and endpoints: what follows is a hash.
const PREFIXES: [&str; 6] = [
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-SEP-",
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-XLB-",
];

/// The IP sets of its mode ipvs (`pkg/proxy/ipvs/ipset.go`); those of IPv6 begin with `KUBE-6-`.
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

/// Whether an IP set is kube-proxy's, and not kube-router's for instance.
#[must_use]
pub fn is_ip_set_of_kube_proxy(name: &str) -> bool {
    let own = name
        .strip_prefix("KUBE-6-")
        .or_else(|| name.strip_prefix("KUBE-"));
    // kube-proxy cuts a name of IPv6 to the 31 bytes that the kernel takes.
    let is = |known: &&str, own| *known == own || (name.len() == 31 && known.starts_with(own));
    own.is_some_and(|own| IP_SETS.iter().any(|known| is(known, own)))
}

fn is_ip(table: &TableName) -> bool {
    [IP, IP6].contains(&table.family)
}

/// Whether a table is that of kube-proxy's nftables mode.
#[must_use]
pub fn is_of_kube_proxy(table: &TableName) -> bool {
    is_ip(table) && table.name == KUBE_PROXY
}

fn is_chain_of_kube_proxy(chain: &ChainId) -> bool {
    is_ip(&chain.table)
        && IPTABLES.contains(&chain.table.name.as_str())
        && (CHAINS.contains(&chain.name.as_str())
            || PREFIXES.iter().any(|prefix| chain.name.starts_with(prefix)))
}

/// Marks a connection, and masquerades what is marked.
const MARKS: &str = "KUBE-MARK-MASQ";
const MASQUERADES: &str = "KUBE-POSTROUTING";

/// What to delete so that nothing of kube-proxy's is left. A chain of its that some other program's
/// chain jumps to stays, with all that it needs: the mark of `KUBE-MARK-MASQ` (which CNI's portmap
/// can be told to use) needs the rule that masquerades.
#[must_use]
pub fn removal(ruleset: &Ruleset) -> Removal {
    let tables = ruleset
        .tables
        .iter()
        .filter(|table| is_of_kube_proxy(table));
    let ids = ruleset.chains.iter().map(|chain| &chain.id);
    let theirs: BTreeSet<_> = ids.filter(|id| is_chain_of_kube_proxy(id)).collect();
    let hooked: BTreeSet<_> = ruleset
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
    let others = |id: &ChainId| !theirs.contains(id) && !hooked.contains(id);
    let mut kept = needed(&jumps, others);
    let marks = kept.iter().filter(|id| id.name == MARKS);
    let masquerade: BTreeSet<_> = marks
        .map(|id| ChainId {
            table: id.table.clone(),
            name: MASQUERADES.to_owned(),
        })
        .collect();
    kept.extend(needed(&jumps, |id| masquerade.contains(id)));
    kept.extend(masquerade);
    let goes = |id: &ChainId| theirs.contains(id) && !kept.contains(id);
    let rules = jumps
        .iter()
        .filter(|(rule, target)| goes(target) && !goes(&rule.chain))
        .map(|(rule, _)| (rule.chain.clone(), rule.handle));
    Removal {
        tables: tables.cloned().collect(),
        rules: rules.collect(),
        chains: theirs
            .iter()
            .filter(|id| goes(id))
            .copied()
            .cloned()
            .collect(),
    }
}

/// The chains that are reached from those of others.
fn needed(
    jumps: &[(&ForeignRule, ChainId)],
    others: impl Fn(&ChainId) -> bool,
) -> BTreeSet<ChainId> {
    let mut reached = BTreeSet::new();
    loop {
        let more: Vec<_> = jumps
            .iter()
            .filter(|(rule, target)| {
                !reached.contains(target) && (others(&rule.chain) || reached.contains(&rule.chain))
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
mod tests {
    use super::*;

    fn table(family: u8, name: &str) -> TableName {
        TableName {
            family,
            name: name.to_owned(),
        }
    }

    fn ruleset(chains: &[(&str, bool)], jumps: &[(&str, &str)]) -> Ruleset {
        let id = |name: &str| ChainId {
            table: table(IP, "nat"),
            name: name.to_owned(),
        };
        Ruleset {
            tables: vec![
                table(IP, "nat"),
                table(IP6, KUBE_PROXY),
                table(1, KUBE_PROXY),
            ],
            chains: chains
                .iter()
                .map(|(name, hooked)| ForeignChain {
                    id: id(name),
                    hook: hooked.then_some((0, -100)),
                    translates: *hooked,
                    drops: false,
                })
                .collect(),
            rules: (1..)
                .zip(jumps)
                .map(|(handle, (from, to))| ForeignRule {
                    chain: id(from),
                    handle,
                    target: Some((*to).to_owned()),
                })
                .collect(),
        }
    }

    fn names(removal: &Removal) -> Vec<&str> {
        let chains = removal.chains.iter();
        chains.map(|chain| chain.name.as_str()).collect()
    }

    #[test]
    fn chains_go_with_what_jumps_to_them_and_nothing_else_does() {
        let ruleset = ruleset(
            &[
                ("PREROUTING", true),
                ("KUBE-SERVICES", false),
                ("KUBE-SVC-X", false),
                ("KUBE-FIREWALL", false),
                ("KUBE-ROUTER-INPUT", false),
                ("KUBE-POD-FW-X", false),
                ("CNI-HOSTPORT", false),
            ],
            &[
                ("PREROUTING", "KUBE-ROUTER-INPUT"),
                ("KUBE-ROUTER-INPUT", "KUBE-POD-FW-X"),
                ("PREROUTING", "KUBE-SERVICES"),
                ("PREROUTING", "CNI-HOSTPORT"),
                ("KUBE-SERVICES", "KUBE-SVC-X"),
                ("PREROUTING", "KUBE-FIREWALL"),
            ],
        );
        let removal = removal(&ruleset);
        assert_eq!(names(&removal), ["KUBE-SERVICES", "KUBE-SVC-X"]);
        let handles: Vec<_> = removal.rules.iter().map(|(_, handle)| *handle).collect();
        assert_eq!(handles, [3]);
        assert_eq!(removal.tables, [table(IP6, KUBE_PROXY)]);
        assert_eq!(
            removal.to_string(),
            "table ip6 kube-proxy, and iptables chains (2) with the jumps to them (1)"
        );
    }

    #[test]
    fn a_chain_that_others_need_stays_with_what_it_needs() {
        let ruleset = ruleset(
            &[
                ("PREROUTING", true),
                ("KUBE-MARK-MASQ", false),
                ("KUBE-FORWARD", false),
                ("KUBE-SERVICES", false),
                ("CNI-X", false),
            ],
            &[
                ("CNI-X", "KUBE-MARK-MASQ"),
                ("KUBE-MARK-MASQ", "KUBE-FORWARD"),
                ("KUBE-SERVICES", "KUBE-MARK-MASQ"),
                ("PREROUTING", "KUBE-SERVICES"),
            ],
        );
        assert_eq!(names(&removal(&ruleset)), ["KUBE-SERVICES"]);
    }

    #[test]
    fn a_mark_that_others_set_is_still_masqueraded() {
        let ruleset = ruleset(
            &[
                ("POSTROUTING", true),
                ("KUBE-MARK-MASQ", false),
                ("KUBE-POSTROUTING", false),
                ("KUBE-SERVICES", false),
                ("CNI-DN-X", false),
            ],
            &[
                ("CNI-DN-X", "KUBE-MARK-MASQ"),
                ("POSTROUTING", "KUBE-POSTROUTING"),
                ("POSTROUTING", "KUBE-SERVICES"),
            ],
        );
        let removal = removal(&ruleset);
        assert_eq!(names(&removal), ["KUBE-SERVICES"]);
        let handles: Vec<_> = removal.rules.iter().map(|(_, handle)| *handle).collect();
        assert_eq!(handles, [3]);
    }

    #[test]
    fn ip_sets_of_others_are_told_by_their_names() {
        for name in [
            "KUBE-CLUSTER-IP",
            "KUBE-6-CLUSTER-IP",
            "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS",
        ] {
            assert!(is_ip_set_of_kube_proxy(name), "{name}");
        }
        for name in [
            "KUBE-SRC-ABCDEF",
            "KUBE-DST-ABCDEF",
            "KUBE-6-",
            "CLUSTER-IP",
            "cali40all",
        ] {
            assert!(!is_ip_set_of_kube_proxy(name), "{name}");
        }
    }

    #[test]
    fn nothing_is_nothing() {
        let removal = removal(&ruleset(&[("PREROUTING", true)], &[]));
        assert!(removal.rules.is_empty() && removal.chains.is_empty());
        assert_eq!(super::removal(&Ruleset::default()).to_string(), "nothing");
        assert!(super::removal(&Ruleset::default()).is_empty());
    }
}
