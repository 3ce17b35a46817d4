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

use kube_dnat::model::addr::Family;
use kube_dnat::netlink::debug_rules;
use kube_dnat::ruleset::{Balance, Data, KeyField, Program, Set, SetName, program, set};

fn rules(family: Family) -> String {
    let balance = [Balance::Pick(3), Balance::Nodeport(3)].map(Balance::chain);
    let fixed = program(Program { knows_pods: true });
    debug_rules(family, &[&balance[..], &fixed[..]].concat())
}

#[test]
fn the_rules_are_encoded_as_nft_encodes_them() {
    assert_eq!(rules(Family::Ipv4), include_str!("rules-ip.txt"));
    assert_eq!(rules(Family::Ipv6), include_str!("rules-ip6.txt"));
}

/// The set without its user data, and that.
fn declaration(set: &Set, family: Family) -> (String, String) {
    let (data, len) = match set.data {
        Data::Nothing => (0, 0),
        Data::Verdict => (0xffff_ff00, 0),
        Data::Endpoint => (Set::endpoint_type(family), Set::endpoint_len(family)),
    };
    let flags = u32::from(set.interval) << 2 | u32::from(set.data != Data::Nothing) << 3;
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
        assert_eq!(lines.len(), SetName::ALL.len());
        for (name, line) in SetName::ALL.into_iter().zip(lines) {
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
