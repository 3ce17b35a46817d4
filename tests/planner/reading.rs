//! The steps of a read-back of in-memory tables, as a sync does them with the kernel's.

use kube_dnat::netlink::ElementKey;
use kube_dnat::planner::diff::{Op, Operation, Transaction};
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::{Address, Event};
use kube_dnat::planner::ruleset::{Element, Table};
use kube_dnat::sync::{FamilyState, ReadBackStep, State};

use crate::world::Tables;

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

/// Commits a transaction as the kernel does, which accepts an element that exists; returns the
/// number of operations.
fn apply<A: Address>(transaction: Transaction<A>, table: &mut Table<A>) -> usize {
    let count = transaction.len();
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
    count
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

/// Reads the next Services, and commits what differs; returns the number of operations.
fn step(state: &mut State, tables: &mut Tables, others: usize) -> usize {
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
    let operations = apply(ipv4, &mut tables.ipv4) + apply(ipv6.unwrap(), &mut tables.ipv6);
    let _ = state.committed(effects);
    operations
}

/// Begins to read the tables back.
pub(crate) fn begin(state: &mut State, tables: &Tables) {
    state.begin_read_back(Dual::both(
        Some(part(&tables.ipv4, |element| {
            !element.set.has_service_keys()
        })),
        Some(part(&tables.ipv6, |element| {
            !element.set.has_service_keys()
        })),
    ));
}

/// Commits the end of a read-back, and deletes what only a dump shows; returns the number of
/// operations.
fn end(state: &mut State, tables: &mut Tables) -> usize {
    let Dual { ipv4, ipv6: end6 } = state.plan_end_of_read_back().unwrap();
    let mut operations = apply(ipv4, &mut tables.ipv4) + apply(end6.unwrap(), &mut tables.ipv6);
    let _known = state.end_read_back();
    operations += delete_foreign(&mut state.families.ipv4, &mut tables.ipv4);
    let family6 = state.families.ipv6.as_mut().unwrap();
    operations += delete_foreign(family6, &mut tables.ipv6);
    operations
}

/// Deletes the elements of Services that are not applied; returns their number.
fn delete_foreign<A: Address>(family: &mut FamilyState<A>, table: &mut Table<A>) -> usize {
    let elements = table.elements();
    let elements = elements.filter(|element| element.set.has_service_keys());
    let foreign = family.not_applied(elements.collect());
    let operations = foreign.iter().map(|element| Operation {
        op: Op::Delete(element.set, element.key),
        service: None,
    });
    let operations = operations.collect();
    family.mark_dirty_elements(foreign);
    apply(Transaction { operations }, table)
}

/// Reads the tables back and commits what differs, with events between the steps; returns the
/// number of operations.
pub(crate) fn read_back(state: &mut State, tables: &mut Tables, during: &[Vec<Event>]) -> usize {
    let mut operations = 0;
    begin(state, tables);
    let mut during = during.iter();
    while state.is_reading() {
        operations += step(state, tables, 1);
        if state.unread_count() == 0 {
            operations += end(state, tables);
        } else if let Some(events) = during.next() {
            apply_events(state, events);
        }
    }
    operations
}

pub(crate) fn apply_events(state: &mut State, events: &[Event]) {
    for event in events {
        let _ = state.apply(event.clone());
    }
}
