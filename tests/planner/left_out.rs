//! A Service that the kernel refuses costs only itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use kube_dnat::events::EventReason;
use kube_dnat::planner::model::{Event, ObjectKind, ServiceName};
use kube_dnat::planner::ruleset::{Key, SetName, Table, Value, service_and_port};
use kube_dnat::sync::{Basis, State, SyncOutcome};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cost::{service_named, slice_named};
use crate::world::{Tables, commit, event, key, normalised, state, update};

fn apply(state: &mut State, events: impl IntoIterator<Item = Event>) {
    for event in events {
        assert_eq!(state.apply(event), []);
    }
}

fn clusters() -> [Event; 4] {
    [
        service_named("shop/cart", 1),
        slice_named("shop/cart", 0..3),
        service_named("shop/web", 2),
        slice_named("shop/web", 3..6),
    ]
}

#[test]
fn the_others_go_on_and_what_is_programmed_of_it_stays() {
    let refused = ServiceName::new("shop", "cart");
    let (mut state, mut kernel) = (state(), Tables::default());
    apply(&mut state, clusters());
    commit(&mut state, &mut kernel);
    let before = normalised(&kernel.ipv4);

    // Both change; one is refused.
    apply(
        &mut state,
        [
            slice_named("shop/cart", 0..2),
            slice_named("shop/web", 3..5),
        ],
    );
    assert!(state.ipv4.leave_out(&refused));
    assert!(!state.ipv4.leave_out(&refused), "it is left out already");
    commit(&mut state, &mut kernel);
    let after = normalised(&kernel.ipv4);
    let of = |lines: &[String], name: &str| {
        let lines = lines.iter().filter(|line| line.contains(name));
        lines.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of(&after, "shop/cart"), of(&before, "shop/cart"));
    assert_ne!(of(&after, "shop/web"), of(&before, "shop/web"));
    assert!(!state.ipv4.is_dirty(), "there is nothing to try now");
    assert!(!state.ipv4.is_clean(), "but something to try again");

    // The tables are read back meanwhile: its elements still stay.
    let found = Basis::Found(Box::new(kernel.ipv4.clone()));
    let plans = state.prepare(found, Basis::Picture).unwrap();
    assert!(
        plans.ipv4.transaction.is_empty(),
        "{:#?}",
        plans.ipv4.transaction
    );

    // Tried again, it is taken.
    assert!(state.ipv4.retry_skipped());
    commit(&mut state, &mut kernel);
    assert!(state.ipv4.is_clean());
    let (fresh, _) = state.fresh().unwrap();
    assert_eq!(normalised(&kernel.ipv4), normalised(&fresh));
}

#[test]
fn what_is_left_out_is_said_once_and_is_not_what_others_wait_for() {
    let refused = ServiceName::new("shop", "cart");
    let (mut state, mut kernel) = (state(), Tables::default());
    apply(&mut state, clusters());
    assert_eq!(state.progress(true), SyncOutcome::Waiting);
    commit(&mut state, &mut kernel);
    assert_eq!(state.progress(true), SyncOutcome::Complete);
    apply(
        &mut state,
        [
            slice_named("shop/cart", 0..2),
            slice_named("shop/web", 3..5),
        ],
    );
    let refuse = |state: &mut State, why: &str| {
        for leave_out in [
            state.ipv4.leave_out(&refused),
            state.ipv6.leave_out(&refused),
        ] {
            assert!(leave_out);
        }
        state.refused(&refused, why)
    };
    let said = refuse(&mut state, "add element endpoints { slot 1 }: ENFILE");
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].sort, EventReason::RejectedByKernel);
    assert_eq!(
        state.progress(true),
        SyncOutcome::Waiting,
        "the other is not committed"
    );
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.progress(true), SyncOutcome::LeftOut);

    // Tried again and refused again, in other words.
    state.ipv4.retry_skipped();
    state.ipv6.retry_skipped();
    assert!(state.must_read(), "what its clients remember is not known");
    assert_eq!(
        refuse(&mut state, "add element endpoints { slot 2 }: ENFILE"),
        []
    );
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.progress(true), SyncOutcome::LeftOut);

    // Once it is taken, it may be refused anew.
    state.ipv4.retry_skipped();
    state.ipv6.retry_skipped();
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.progress(true), SyncOutcome::Complete);
    assert!(!state.must_read());
    assert_eq!(refuse(&mut state, "ENFILE").len(), 1);
}

#[test]
fn a_service_that_goes_while_it_is_left_out_goes_at_once() {
    let refused = ServiceName::new("shop", "cart");
    let (mut state, mut kernel) = (state(), Tables::default());
    apply(&mut state, clusters());
    commit(&mut state, &mut kernel);
    apply(&mut state, [slice_named("shop/cart", 0..2)]);
    state.ipv4.leave_out(&refused);
    state.ipv6.leave_out(&refused);
    let _ = state.refused(&refused, "ENFILE");
    read_and_commit(&mut state, &mut kernel);
    apply(
        &mut state,
        [update(key(ObjectKind::Service, "shop/cart"), None)],
    );
    assert_eq!(state.progress(true), SyncOutcome::Waiting);
    assert!(state.must_read());
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.progress(true), SyncOutcome::Complete);
    assert!(!state.is_refused(&refused));
    let left = normalised(&kernel.ipv4);
    assert!(
        !left.iter().any(|line| line.contains("shop/cart")),
        "{left:#?}"
    );
}

/// What may happen while the kernel refuses Services.
#[derive(Clone, Debug)]
enum Step {
    Reported(Event),
    /// The kernel refuses what is to be done for a Service.
    Refused(ServiceName),
    /// The tables are read back.
    Read,
    /// What was refused is tried again.
    Retried,
}

fn step() -> impl Strategy<Value = Step> {
    let refused = (0_u8..4)
        .prop_map(|number| Step::Refused(ServiceName::new("shop", &format!("service-{number}"))));
    prop_oneof![
        6 => event().prop_map(Step::Reported),
        2 => refused,
        1 => Just(Step::Read),
        1 => Just(Step::Retried),
    ]
}

/// Commits after a look at what the kernel holds.
fn read_and_commit(state: &mut State, kernel: &mut Tables) {
    let plans = state
        .prepare(
            Basis::Found(Box::new(kernel.ipv4.clone())),
            Basis::Found(Box::new(kernel.ipv6.clone())),
        )
        .unwrap();
    plans.ipv4.transaction.apply(&mut kernel.ipv4).unwrap();
    plans.ipv6.transaction.apply(&mut kernel.ipv6).unwrap();
    let _ = state.committed(plans);
}

/// The elements without a name that those of a Service need: of its `ClusterIPs`, and of its endpoints
/// that may be sent back to themselves.
fn needed_by(table: &Table<Ipv4Addr>, service: &ServiceName) -> BTreeSet<(SetName, Key<Ipv4Addr>)> {
    let own = table.elements().filter(|element| {
        let comment = element.comment.as_deref().unwrap_or_default();
        service_and_port(comment).0 == service.as_str()
    });
    let needed = own.flat_map(|element| match (element.key, element.value) {
        (_, Value::Endpoint(address, _)) => {
            vec![(SetName::Hairpin, Key::Pair(address, address))]
        }
        (Key::Frontend(_, address, _), _) => vec![
            (SetName::ClusterIps, Key::Address(address)),
            (SetName::ClusterIpsSticky, Key::Address(address)),
        ],
        _ => Vec::new(),
    });
    needed.collect()
}

/// What of that a table has.
fn present(
    table: &Table<Ipv4Addr>,
    keys: BTreeSet<(SetName, Key<Ipv4Addr>)>,
) -> BTreeSet<(SetName, Key<Ipv4Addr>)> {
    let present = keys.into_iter();
    present
        .filter(|(set, key)| table.get(*set, key).is_some())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_refused_stays_as_it_was_and_goes_when_it_goes(steps in vec(step(), 1..30)) {
        let (mut state, mut kernel) = (state(), Tables::default());
        let mut needed = BTreeMap::new();
        for step in steps {
            match step {
                Step::Reported(event) => {
                    let _ = state.apply(event);
                    commit(&mut state, &mut kernel);
                }
                Step::Refused(service) => {
                    needed.insert(service.clone(), present(&kernel.ipv4, needed_by(&kernel.ipv4, &service)));
                    state.ipv4.leave_out(&service);
                    state.ipv6.leave_out(&service);
                    read_and_commit(&mut state, &mut kernel);
                }
                Step::Read => read_and_commit(&mut state, &mut kernel),
                Step::Retried => {
                    state.ipv4.retry_skipped();
                    state.ipv6.retry_skipped();
                    commit(&mut state, &mut kernel);
                }
            }
            // What the kernel holds is known, whoever's it is.
            prop_assert_eq!(&kernel.ipv4, &state.ipv4.applied().table().unwrap());
            prop_assert_eq!(&kernel.ipv6, &state.ipv6.applied().table().unwrap());
            // What is programmed of a Service has all that it needs.
            let left_out: BTreeSet<_> = state.ipv4.left_out().cloned().collect();
            needed.retain(|service, _| left_out.contains(service));
            for (service, had) in &needed {
                let still = needed_by(&kernel.ipv4, service);
                let still: BTreeSet<_> = still.intersection(had).copied().collect();
                prop_assert_eq!(&present(&kernel.ipv4, still.clone()), &still);
            }
        }
        state.ipv4.retry_skipped();
        state.ipv6.retry_skipped();
        commit(&mut state, &mut kernel);
        let (ipv4, ipv6) = state.fresh().unwrap();
        prop_assert_eq!(normalised(&kernel.ipv4), normalised(&ipv4));
        prop_assert_eq!(normalised(&kernel.ipv6), normalised(&ipv6));
    }
}
