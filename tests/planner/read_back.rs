//! A table is read back in steps, and changes are committed between them.

use kube_dnat::per_family;
use kube_dnat::planner::model::{Address, ServiceName};
use kube_dnat::planner::ruleset::Table;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reading::{apply_events, read_back};
use crate::world::{Tables, commit, event, forgotten, ipv6, normalised, skip, state};

/// Deletes some elements of a table, as another program might.
fn damage<A: Address>(table: &mut Table<A>, every: usize) {
    let all: Vec<_> = table.elements().collect();
    for element in all.iter().step_by(every) {
        table.delete(element.set, &element.key).unwrap();
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
