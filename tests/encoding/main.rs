//! Our encodings against nft's own, without root and without a kernel.
//!
//! `rules-*.txt` is what `nft --debug=netlink list ruleset` printed (nft 1.0.6, libnftnl 1.2.4)
//! after it had loaded our rendered ruleset; `sets-*.txt` is taken from its NEWSET messages
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

/// The on-demand chains of the listing, in its order, and the fixed program.
fn rules(family: Family, on_demand: &[&str]) -> String {
    let on_demand = on_demand
        .iter()
        .map(|name| name.parse::<DynamicChain>().unwrap());
    let on_demand: Vec<_> = on_demand.map(DynamicChain::chain).collect();
    let fixed = program(&Program {
        pods: PodMatch::Cidrs,
        masquerade_all: false,
        counters: true,
    });
    debug_rules(family, &[&on_demand[..], &fixed[..]].concat())
}

#[test]
fn the_rules_are_encoded_as_nft_encodes_them() {
    let picks = ["pick-20"];
    // nft 1.0.6 cannot parse session affinity for IPv6: `tests/net` compares what it lists of it.
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
        nfts(include_str!("rules-ip.txt"))
    );
    assert_eq!(
        rules(Family::Ipv6, &picks),
        nfts(include_str!("rules-ip6.txt"))
    );
}

/// What nft wrote without the one expression we do without: in a key with a range it swaps the
/// bytes of the protocol, of which there is one (`nft_byteorder_eval` takes two at a time).
fn nfts(text: &str) -> String {
    let (swaps, others): (Vec<_>, Vec<_>) = text
        .split_inclusive('\n')
        .partition(|line| line.starts_with("[ byteorder "));
    assert_eq!(swaps.len(), 1, "{swaps:?}");
    assert!(swaps.concat().contains(", 2, 1)"), "{swaps:?}");
    others.concat()
}

/// The set without its user data, and that.
fn declaration(set: &Set, family: Family) -> (String, String) {
    let (data, len) = match set.data {
        ElementType::Nothing => (0, 0),
        ElementType::Verdict => (0xffff_ff00, 0),
        ElementType::Endpoint => (Set::endpoint_type(family), Set::endpoint_len(family)),
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
            let (ours, our_data) = declaration(&set, family);
            assert_eq!(ours, expected);
            // Of a plain type we write the byte order only: nft 1.0.6 crashes on what 1.1.3 adds.
            let whole = set.key.contains(&KeyField::Slot);
            if whole {
                assert_eq!(our_data, nft_data, "{name}");
            } else {
                assert!(
                    nft_data.starts_with(&our_data),
                    "{name}: {our_data} {nft_data}"
                );
            }
        }
    }
}
