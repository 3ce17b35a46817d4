//! Syncs with tables in memory, and what must hold after each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kube_dnat::per_family;
use kube_dnat::planner::desired::{NodeFacts, NodePortAddresses, PodSource};
use kube_dnat::planner::diff::Plan;
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::{Event, OwnAddresses};
use kube_dnat::planner::ruleset::Table;
use kube_dnat::sync::{FamilyState, State, SyncPlan};

use crate::reading::read_back;

/// The facts of a node with both families.
pub fn facts() -> NodeFacts {
    NodeFacts {
        node_port_addresses: NodePortAddresses::Primary,
        pods: PodSource::ClusterCidr(
            ["10.244.0.0/16", "fd00:10:244::/56"]
                .map(|range| range.parse().expect("a range"))
                .into(),
        ),
        own_addresses: Some(OwnAddresses {
            of_default_route: vec![IpAddr::from([192, 168, 77, 2])],
            ..OwnAddresses::default()
        }),
        ..NodeFacts::default()
    }
}

/// The tables of a kernel.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) ipv4: Table<Ipv4Addr>,
    pub(crate) ipv6: Table<Ipv6Addr>,
}

impl Tables {
    fn as_mut(&mut self) -> Dual<&mut Table<Ipv4Addr>, &mut Table<Ipv6Addr>> {
        Dual::both(&mut self.ipv4, &mut self.ipv6)
    }

    /// Applies a plan and commits it; returns the number of operations.
    ///
    /// # Panics
    /// If the tables do not accept an operation of the plan.
    fn commit(&mut self, state: &mut State, plan: SyncPlan) -> usize {
        let (transactions, effects) = plan.split();
        let counts = per_family!(transactions.zip(self.as_mut()), |(transaction, table)| {
            transaction
                .apply(table)
                .expect("the table accepts each operation of a plan");
            transaction.len()
        });
        let _diagnostics = state.committed(effects);
        self.forget(state);
        counts.into_iter().sum()
    }

    /// Reports that all clients that must not stay have been forgotten.
    ///
    /// # Panics
    /// If the tables do not accept the plan that this permits.
    fn forget(&mut self, state: &mut State) {
        let families = state.families.as_mut().zip(self.as_mut());
        per_family!(families, |(family, table)| {
            if let Some(Plan { transaction, delta }) = family.plan_all_unpinned() {
                transaction
                    .apply(table)
                    .expect("the table forgets each client of a plan");
                family.applied_mut().committed(delta);
            }
        });
    }

    /// # Panics
    /// If the tables are not those of the applied state, or another plan has an operation.
    fn check(&mut self, state: &mut State) {
        assert_eq!(self.ipv4, state.families.ipv4.applied().table());
        assert_eq!(self.ipv6, ipv6(state).applied().table());
        let plan = state.plan_changes();
        assert_eq!(self.commit(state, plan), 0, "the second plan is empty");
    }
}

/// The state of IPv6, which the node has.
pub(crate) fn ipv6(state: &State) -> &FamilyState<Ipv6Addr> {
    state.families.ipv6.as_ref().expect("a node with IPv6")
}

/// Syncs after every `every` events and at the end, and then once more from the tables that were
/// read back, by a state that never saw the changes in between.
///
/// # Panics
/// If the tables do not accept a plan, differ from the applied state, or a second plan is not empty.
pub fn sync(facts: NodeFacts, events: &[Event], every: usize) {
    let mut tables = Tables::default();
    let mut state = State::new(facts.clone());
    for batch in events.chunks(every.max(1)) {
        for event in batch {
            let _diagnostics = state.apply(event.clone());
        }
        let plan = state.plan_changes();
        tables.commit(&mut state, plan);
        tables.check(&mut state);
    }

    // The desired state of another sequence: every second event never came.
    let mut other = State::new(facts);
    for event in events.iter().step_by(2) {
        let _diagnostics = other.apply(event.clone());
    }
    read_back(&mut other, &mut tables, &[]);
    tables.forget(&mut other);
    tables.check(&mut other);
    assert_eq!(
        read_back(&mut other, &mut tables, &[]),
        0,
        "the second read-back finds nothing to change"
    );
}
