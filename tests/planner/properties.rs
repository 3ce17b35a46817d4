//! Properties of any cluster and any order of events.

use std::collections::BTreeMap;
use std::time::Duration;

use kube_dnat::planner::desired::HealthCheckChange;
use kube_dnat::planner::model::Event;
use kube_dnat::sync::DebugView;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reading::read_back;
use crate::world::{
    SLOW_START, Tables, commit, event, forgotten, ipv6, last_words, node_port_addresses,
    normalised, state, state_serving,
};

/// Returns the event with the slice renamed: `names` maps the number in its name to another.
fn with_slice_renamed(event: Event, names: &[usize]) -> Event {
    let Event::Update(mut update) = event else {
        return event;
    };
    if let Some(number) = update.key.name.strip_prefix("shop/slice-") {
        let number = names[number.parse::<usize>().unwrap()];
        update.key.name = format!("shop/slice-{number}").into();
    }
    Event::Update(update)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_equals_the_applied_state_after_each_commit(
        batches in vec(vec(event(), 1..6), 1..10),
        served in node_port_addresses(),
    ) {
        let (mut state, mut kernel) = (state_serving(served), Tables::default());
        for (second, batch) in (0..).step_by(20).zip(batches) {
            state.advance_slow_starts(Duration::from_secs(second));
            for event in batch {
                let _ = state.apply(event);
            }
            // Each operation is checked as it is applied.
            commit(&mut state, &mut kernel);
            prop_assert_eq!(&kernel.ipv4, &state.families.ipv4.applied().table());
            prop_assert_eq!(&kernel.ipv6, &ipv6(&state).applied().table());
            // Nothing is sent when nothing differs.
            prop_assert_eq!(commit(&mut state, &mut kernel), 0);
        }
    }

    #[test]
    fn any_sequence_ends_in_the_ruleset_of_a_fresh_start(
        events in vec(event(), 1..30),
        every in 1_usize..5,
        served in node_port_addresses(),
    ) {
        let (mut state, mut kernel) = (state_serving(served.clone()), Tables::default());
        for (number, event) in events.iter().enumerate() {
            let _ = state.apply(event.clone());
            if number % every == 0 {
                state.advance_slow_starts(SLOW_START * u32::try_from(number).unwrap() / 9);
                commit(&mut state, &mut kernel);
            }
        }
        let end = SLOW_START * 100;
        state.advance_slow_starts(end);
        state.advance_slow_starts(end + SLOW_START);
        commit(&mut state, &mut kernel);
        let mut fresh = state_serving(served);
        for event in last_words(&events) {
            let _ = fresh.apply(event);
        }
        let Tables { ipv4, ipv6 } = Tables::fresh(&fresh);
        prop_assert_eq!(normalised(&kernel.ipv4), normalised(&ipv4));
        prop_assert_eq!(normalised(&kernel.ipv6), normalised(&ipv6));
    }

    #[test]
    fn any_order_of_events_and_any_names_of_slices_end_in_the_same_ruleset(
        (events, shuffled) in vec(event(), 1..20)
            .prop_map(|events| last_words(&events))
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        names in Just((0..6).collect::<Vec<_>>()).prop_shuffle(),
        served in node_port_addresses(),
    ) {
        let renamed = shuffled.into_iter().map(|event| with_slice_renamed(event, &names));
        let ended = [events, renamed.collect()].map(|events| {
            let (mut state, mut kernel) = (state_serving(served.clone()), Tables::default());
            let mut health = BTreeMap::new();
            for event in events {
                let _ = state.apply(event);
                commit(&mut state, &mut kernel);
                for change in state.take_health_changes() {
                    match change {
                        HealthCheckChange::Service(family, name, check) => {
                            health.insert((family, Some(name)), (check, Vec::new()));
                        }
                        HealthCheckChange::Addresses(family, ips) => {
                            health.insert((family, None), (None, ips));
                        }
                    }
                }
            }
            let nothing = (None, Vec::new());
            health.retain(|_, reported| *reported != nothing);
            let problems = state.debug(DebugView::Problems);
            (normalised(&kernel.ipv4), normalised(&kernel.ipv6), health, problems)
        });
        prop_assert_eq!(&ended[0], &ended[1]);
    }

    #[test]
    fn an_existing_table_becomes_the_desired_one(
        found in vec(event(), 1..20),
        wanted in vec(event(), 1..20),
    ) {
        let (mut before, mut kernel) = (state(), Tables::default());
        for event in found {
            let _ = before.apply(event);
        }
        commit(&mut before, &mut kernel);
        let mut state = state();
        for event in wanted {
            let _ = state.apply(event);
        }
        read_back(&mut state, &mut kernel, &[]);
        prop_assert_eq!(&kernel.ipv4, &state.families.ipv4.applied().table());
        prop_assert_eq!(&kernel.ipv6, &ipv6(&state).applied().table());
        // A table that already is the desired one needs no operation.
        forgotten(&mut state, &mut kernel);
        prop_assert_eq!(read_back(&mut state, &mut kernel, &[]), 0);
    }
}
