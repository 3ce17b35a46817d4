//! A table is read back in steps, and changes are committed between them.

use kube_dnat::netlink::ElementKey;
use kube_dnat::per_family;
use kube_dnat::planner::diff::{Op, Operation, Transaction};
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::{Address, Event, ServiceName};
use kube_dnat::planner::ruleset::{Element, Table};
use kube_dnat::sync::{ReadBackStep, State};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{Tables, commit, event, forgotten, ipv6, normalised, skip, state};

/// Returns a table with the elements that `wanted` selects.
fn part<A: Address>(table: &Table<A>, wanted: impl Fn(&Element<A>) -> bool) -> Table<A> {
    let mut part = Table::default();
    for chain in table.dynamic_chains() {
        part.add_chain(*chain).unwrap();
    }
    for element in table.elements().filter(wanted) {
        part.add(element).unwrap();
    }
    part
}

/// Commits a transaction as the kernel does, which accepts an element that exists.
fn apply<A: Address>(transaction: Transaction<A>, table: &mut Table<A>) {
    for operation in transaction.operations {
        let exists = |element: &Element<A>| {
            let found = table.get(element.set, &element.key);
            found.is_some_and(|found| found.value == element.value)
        };
        if !matches!(&operation.op, Op::Add(element) if exists(element)) {
            let operations = vec![operation];
            Transaction { operations }.apply(table).unwrap();
        }
    }
}

/// Looks up the elements of a step.
fn read<A: Address>(step: &mut ReadBackStep<A>, table: &Table<A>) {
    loop {
        let keys: Vec<ElementKey<A>> = step.keys();
        if keys.is_empty() {
            return;
        }
        let elements = table.elements();
        let is_asked = |element: &Element<A>| keys.contains(&(element.set, element.key));
        step.add(elements.filter(is_asked).collect());
    }
}

/// Deletes elements first that a transaction adds although the table has their keys.
fn replace_unknown<A: Address>(transaction: &mut Transaction<A>, table: &Table<A>) {
    let keys = transaction.added_keys();
    let elements = table.elements();
    let found = elements.filter(|element| keys.contains(&(element.set, element.key)));
    let found: Vec<_> = found.collect();
    transaction.delete_first(&found);
}

/// Reads the next Services, and commits what differs.
fn step(state: &mut State, tables: &mut Tables, others: usize) {
    let mut steps = state.steps(&state.next_services(others));
    if let Some(step) = &mut steps.ipv4 {
        read(step, &tables.ipv4);
    }
    if let Some(Some(step)) = &mut steps.ipv6 {
        read(step, &tables.ipv6);
    }
    state.adopt(steps);
    let (mut transactions, effects) = state.plan_changes().split();
    replace_unknown(&mut transactions.ipv4, &tables.ipv4);
    replace_unknown(transactions.ipv6.as_mut().unwrap(), &tables.ipv6);
    let Dual { ipv4, ipv6 } = transactions;
    apply(ipv4, &mut tables.ipv4);
    apply(ipv6.unwrap(), &mut tables.ipv6);
    let _ = state.committed(effects);
}

fn begin(state: &mut State, tables: &Tables) {
    state.begin_read_back(Dual::both(
        Some(part(&tables.ipv4, |element| {
            !element.set.has_service_keys()
        })),
        Some(part(&tables.ipv6, |element| {
            !element.set.has_service_keys()
        })),
    ));
}

/// Commits the end of a read-back, and deletes what only a dump shows.
fn end(state: &mut State, tables: &mut Tables) {
    let Dual { ipv4, ipv6 } = state.plan_end_of_read_back().unwrap();
    apply(ipv4, &mut tables.ipv4);
    apply(ipv6.unwrap(), &mut tables.ipv6);
    let _known = state.end_read_back();
    let foreign4 = foreign(&tables.ipv4, |element| {
        state.families.ipv4.has_element(element.set, &element.key)
    });
    let foreign6 = foreign(&tables.ipv6, |element| {
        crate::world::ipv6(state).has_element(element.set, &element.key)
    });
    apply(foreign4, &mut tables.ipv4);
    apply(foreign6, &mut tables.ipv6);
}

fn foreign<A: Address>(
    table: &Table<A>,
    is_applied: impl Fn(&Element<A>) -> bool,
) -> Transaction<A> {
    let elements = table
        .elements()
        .filter(|element| element.set.has_service_keys());
    let foreign = elements.filter(|element| !is_applied(element));
    Transaction {
        operations: foreign
            .map(|element| Operation {
                op: Op::Delete(element.set, element.key),
                service: None,
            })
            .collect(),
    }
}

/// Deletes some elements of a table, as another program might.
fn damage<A: Address>(table: &mut Table<A>, every: usize) {
    let all: Vec<_> = table.elements().collect();
    for element in all.iter().step_by(every) {
        table.delete(element.set, &element.key).unwrap();
    }
}

/// Reads the tables back, with events between the steps.
fn read_back(state: &mut State, tables: &mut Tables, during: &[Vec<Event>]) {
    begin(state, tables);
    let mut during = during.iter();
    while state.is_reading() {
        step(state, tables, 1);
        if state.unread_count() == 0 {
            end(state, tables);
        } else if let Some(events) = during.next() {
            apply_events(state, events);
        }
    }
}

fn apply_events(state: &mut State, events: &[Event]) {
    for event in events {
        let _ = state.apply(event.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_that_is_read_in_steps_ends_as_a_fresh_start_whatever_changes_meanwhile(
        before in vec(event(), 1..20),
        missed in vec(event(), 0..10),
        during in vec(vec(event(), 0..4), 1..8),
        damaged in prop::option::of(2_usize..7),
        is_restart in any::<bool>(),
        is_rejected in prop::bool::weighted(0.2),
    ) {
        let (mut state, mut kernel) = (state(), Tables::default());
        apply_events(&mut state, &before);
        commit(&mut state, &mut kernel);
        if is_restart {
            state = crate::world::state();
            apply_events(&mut state, &before);
        }
        apply_events(&mut state, &missed);
        if let Some(every) = damaged {
            damage(&mut kernel.ipv4, every);
            damage(&mut kernel.ipv6, every);
        }
        let rejected = ServiceName::new("shop", "service-1");
        if is_rejected {
            skip(&mut state, &rejected);
        }
        read_back(&mut state, &mut kernel, &during);
        commit(&mut state, &mut kernel);
        prop_assert_eq!(&kernel.ipv4, &state.families.ipv4.applied().table());
        prop_assert_eq!(&kernel.ipv6, &ipv6(&state).applied().table());
        if is_rejected {
            state.retry_skipped();
            if state.needs_read_back() {
                read_back(&mut state, &mut kernel, &[]);
            }
            commit(&mut state, &mut kernel);
        }
        prop_assert_eq!(&kernel.ipv4, &state.families.ipv4.applied().table());
        prop_assert_eq!(&kernel.ipv6, &ipv6(&state).applied().table());
        forgotten(&mut state, &mut kernel);
        let fresh = Tables::fresh(&state);
        prop_assert_eq!(normalised(&kernel.ipv4), normalised(&fresh.ipv4));
        prop_assert_eq!(normalised(&kernel.ipv6), normalised(&fresh.ipv6));
        prop_assert_eq!(commit(&mut state, &mut kernel), 0);
        let counts = |tables: &Tables| (tables.ipv4.len(), tables.ipv6.len());
        let counted = per_family!(state.families.as_ref(), |family| {
            let counts = family.applied().element_counts().values();
            counts.sum::<usize>()
        });
        prop_assert_eq!((counted.ipv4, counted.ipv6.unwrap()), counts(&kernel));
    }
}
