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
                is_nat: *hooked,
                drops_by_policy: false,
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
fn chains_are_removed_with_the_jumps_to_them_and_nothing_else() {
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
fn a_chain_that_another_program_needs_stays_with_its_targets() {
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
fn a_mark_of_another_program_is_still_masqueraded() {
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
fn ip_sets_of_other_programs_are_excluded() {
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
fn a_ruleset_without_kube_proxy_has_no_removal() {
    let removal = removal(&ruleset(&[("PREROUTING", true)], &[]));
    assert!(removal.rules.is_empty() && removal.chains.is_empty());
    assert_eq!(super::removal(&Ruleset::default()).to_string(), "nothing");
    assert!(super::removal(&Ruleset::default()).is_empty());
}
