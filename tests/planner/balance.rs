//! Endpoints that a hash of the connection selects: how evenly, and what a change moves.
//!
//! `UPDATE_GOLDEN=1 cargo test --test planner` rewrites `balance.txt`: review the diff.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use kube_dnat::planner::diff::Op;
use kube_dnat::planner::ruleset::{DynamicChain, Key, SetName, Value};

use crate::cost::{assert_golden, maglev, service_with, slice};
use crate::world::{Tables, commit, state};

/// The first frontend of the Service.
const FRONTEND: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);

/// The endpoint of each slot.
type SlotTable = BTreeMap<u32, Ipv4Addr>;

/// Returns the endpoint of each slot of the first frontend.
fn table_of(tables: &Tables) -> SlotTable {
    let slots = tables.ipv4.elements().filter_map(|element| {
        let Key::Slot(_, FRONTEND, 80, slot) = element.key else {
            return None;
        };
        match element.value {
            Value::Endpoint(address, _) => Some((slot, address)),
            Value::Nothing | Value::Verdict(_) | Value::Address(_) => None,
        }
    });
    slots.collect()
}

/// Returns the slots of the Service after these versions of its endpoints.
fn slots(versions: &[Vec<u32>]) -> SlotTable {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(service_with(None, Some(Box::new(maglev()))));
    for endpoints in versions {
        let _ = state.apply(slice(endpoints.iter().copied()));
        commit(&mut state, &mut tables);
    }
    table_of(&tables)
}

#[test]
fn the_slots_follow_from_the_endpoints_whatever_they_were_before() {
    let now = vec![3, 1, 4];
    let expected = slots(std::slice::from_ref(&now));
    let histories = [
        vec![vec![1], vec![1, 3], now.clone()],
        vec![(0..40).collect(), now.clone()],
        vec![now.clone(), vec![], vec![4, 3, 1]],
    ];
    for history in histories {
        assert_eq!(slots(&history), expected, "{history:?}");
    }
}

/// Prints for each number of endpoints the slots, the shares, and the share of flows that move.
#[test]
fn endpoints_have_equal_shares_and_few_flows_move() {
    let mut text = format!(
        "{:>9} {:>6} {:>14} {:>14} {:>12} {:>9}\n",
        "endpoints", "slots", "least of fair", "most of fair", "moved if one", "1/N"
    );
    for count in [3, 10, 12, 50, 100] {
        let all: Vec<_> = (0..count).collect();
        let before = slots(std::slice::from_ref(&all));
        let mut shares = BTreeMap::<_, u32>::new();
        for endpoint in before.values() {
            *shares.entry(*endpoint).or_default() += 1;
        }
        let total = u32::try_from(before.len()).unwrap();
        let fair = f64::from(total) / f64::from(count);
        let of_fair = |slots: Option<&u32>| f64::from(*slots.unwrap()) / fair;
        let (least, most) = (
            of_fair(shares.values().min()),
            of_fair(shares.values().max()),
        );
        // Ten different endpoints go, each alone.
        let gone: Vec<_> = (0..10).map(|part| part * count / 10).collect();
        let mut moved = 0;
        for gone in &gone {
            let rest = all.iter().copied().filter(|one| one != gone).collect();
            let after = slots(&[rest]);
            assert_eq!(after.len(), before.len());
            let differ = before.iter().zip(&after).filter(|(one, two)| one != two);
            moved += u32::try_from(differ.count()).unwrap();
        }
        let moved = f64::from(moved) / f64::from(total) / 10.0;
        writeln!(
            text,
            "{count:>9} {total:>6} {least:>14.3} {most:>14.3} {moved:>12.3} {:>9.3}",
            1.0 / f64::from(count)
        )
        .unwrap();
        assert!(most <= 1.05 && least >= 0.95, "{count}");
    }
    assert_golden("balance.txt", &text);
}

#[test]
fn a_change_sends_only_the_slots_that_differ() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(service_with(None, Some(Box::new(maglev()))));
    let _ = state.apply(slice(0..10));
    commit(&mut state, &mut tables);
    let before = table_of(&tables);
    let _ = state.apply(slice(1..10));
    let operations = commit(&mut state, &mut tables);
    let after = table_of(&tables);
    let differ = before.iter().zip(&after).filter(|(one, two)| one != two);
    // Each slot is deleted and added, at two frontends.
    assert_eq!(operations, differ.count() * 4);
}

/// A kernel without the module `nft_hash` rejects the chain: only these Services are skipped.
#[test]
fn the_elements_that_need_the_chain_of_a_hash_name_their_service() {
    let mut state = state();
    let _ = state.apply(service_with(None, Some(Box::new(maglev()))));
    let _ = state.apply(slice(0..3));
    let (transactions, _) = state.plan_changes().split();
    let hashed = transactions.ipv4.operations.iter().filter_map(|operation| {
        let chain @ DynamicChain::Hashed(..) = operation.op.chain_for_element()? else {
            return None;
        };
        let service = operation.service.as_ref()?;
        Some(format!("{chain} for {service}"))
    });
    let hashed: Vec<_> = hashed.collect();
    assert_eq!(hashed, ["maglev-251 for shop/cart"; 2]);
    let is_slot = |set| set == SetName::Endpoints;
    let added = transactions
        .ipv4
        .operations
        .iter()
        .filter(|operation| matches!(&operation.op, Op::Add(element) if is_slot(element.set)));
    assert_eq!(added.count(), 2 * 251);
}
