//! kube-dnat's netlink messages compared with nft's, without root and without a kernel.
//!
//! `rules-*.txt` is the output of `nft --debug=netlink list ruleset` (nft 1.0.6, libnftnl 1.2.4)
//! after nft loaded the rendered ruleset; `sets-*.txt` is from nft's NEWSET messages
//! (`nft --debug=mnl --file`): key type and length, data type and length, flags, user data.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

use kube_dnat::netlink::debug_rules;
use kube_dnat::planner::model::addr::Family;
use kube_dnat::planner::ruleset::{
    DynamicChain, ElementType, KeyField, PodMatch, Program, Set, SetName, program, set,
};

/// Prints the rules of these chains and of the fixed program, in the order of the listing.
fn rules(family: Family, dynamic_chain: &[&str]) -> String {
    let dynamic_chain: Vec<_> = dynamic_chain
        .iter()
        .map(|name| name.parse::<DynamicChain>().unwrap().chain())
        .collect();
    let fixed = program(&Program {
        pods: PodMatch::Cidrs,
        masquerade_all: false,
        refuse_load_balancer_ports: true,
        counters: true,
    });
    debug_rules(family, &[&dynamic_chain[..], &fixed[..]].concat())
}

#[test]
fn the_rules_are_encoded_as_nft_encodes_them() {
    let picks = [
        "pick-20",
        "maglev-251",
        "source-cluster-1021",
        "maglev-nodeport-cluster-65521",
        "source-nodeport-4093",
        "nat-output-closed",
        "filter-prerouting-closed",
        "source-range-251",
        "source-range-cluster-1021",
        "nat-output-ranges",
        "nat-postrouting-ranges",
    ];
    // nft 1.0.6 cannot parse session affinity for IPv6: `tests/net` compares its listing.
    let sticky = [
        "sticky-2",
        "sticky-cluster-4",
        "sticky-nodeport-2",
        "sticky-nodeport-cluster-4",
        "learn-10800s",
        "gone",
    ];
    let ipv4 = [&picks[..], &sticky[..]].concat();
    assert_eq!(
        rules(Family::Ipv4, &ipv4),
        nft_rules(include_str!("rules-ip.txt"))
    );
    assert_eq!(
        rules(Family::Ipv6, &picks),
        nft_rules(include_str!("rules-ip6.txt"))
    );
}

/// Returns nft's rules without the expression that kube-dnat does not use.
///
/// In a key with a range, nft swaps the bytes of the protocol, which is a single byte
/// (`nft_byteorder_eval` swaps pairs).
fn nft_rules(text: &str) -> String {
    let (swaps, others): (Vec<_>, Vec<_>) = text
        .split_inclusive('\n')
        .partition(|line| line.starts_with("[ byteorder "));
    assert_eq!(swaps.len(), 5, "{swaps:?}");
    assert!(
        swaps.iter().all(|line| line.contains(", 2, 1)")),
        "{swaps:?}"
    );
    others.concat()
}

/// Prints the declaration of a set, and its user data.
fn declaration(set: &Set, family: Family) -> (String, String) {
    let (data, len) = match set.data {
        ElementType::Verdict => (0xffff_ff00, 0),
        ElementType::Nothing | ElementType::Endpoint | ElementType::Address => {
            (set.data_type(family), set.data_len(family))
        }
    };
    let flags = [
        (set.is_interval(), 0x4),
        (set.data != ElementType::Nothing, 0x8),
        (set.dynamic.is_some(), 0x30),
        (set.is_interval() && !set.is_ranges(), 0x80),
    ];
    let flags: u32 = flags
        .iter()
        .filter(|(has, _)| *has)
        .map(|(_, flag)| flag)
        .sum();
    let (name, key, key_len) = (set.name, set.key_type(family), set.key_len(family));
    let user_data = set.user_data(family);
    let digits = user_data.iter().map(|byte| format!("{byte:02x}"));
    (
        format!("{name} key {key:#x} {key_len} data {data:#x} {len} flags {flags:#x}"),
        digits.collect::<Vec<_>>().concat(),
    )
}

#[test]
fn the_sets_are_declared_as_nft_declares_them() {
    let families = [
        (Family::Ipv4, include_str!("sets-ip.txt")),
        (Family::Ipv6, include_str!("sets-ip6.txt")),
    ];
    for (family, text) in families {
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), SetName::all().count());
        for (name, line) in SetName::all().zip(lines) {
            let set = set(name);
            let (expected, nft_data) = line.split_once(" user data ").unwrap();
            let (declared, user_data) = declaration(&set, family);
            assert_eq!(declared, expected);
            // For a plain type kube-dnat writes the byte order only: nft 1.0.6 crashes on the
            // additions of 1.1.3.
            let has_typeof = set.key.contains(&KeyField::Slot);
            if has_typeof {
                assert_eq!(user_data, nft_data, "{name}");
            } else {
                assert!(
                    nft_data.starts_with(&user_data),
                    "{name}: {user_data} {nft_data}"
                );
            }
        }
    }
}
