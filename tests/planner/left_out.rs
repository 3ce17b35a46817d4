//! A Service that the kernel refuses costs only itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use kube_dnat::events::EventReason;
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::{Event, ObjectKind, ServiceName};
use kube_dnat::planner::ruleset::{Key, SetName, Table, Value, service_and_port};
use kube_dnat::sync::{Skipped, State, SyncOutcome};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cost::{service_named, slice_named};
use crate::world::{
    Tables, commit, event, ipv6, key, normalised, read_and_commit, skip, state, update,
};

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
    assert_eq!(
        skip(&mut state, &refused),
        Dual::both(Skipped::Newly, Skipped::Newly)
    );
    let already = Dual::both(Skipped::Already, Skipped::Already);
    assert_eq!(skip(&mut state, &refused), already);
    commit(&mut state, &mut kernel);
    let after = normalised(&kernel.ipv4);
    let of = |lines: &[String], name: &str| {
        let lines = lines.iter().filter(|line| line.contains(name));
        lines.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of(&after, "shop/cart"), of(&before, "shop/cart"));
    assert_ne!(of(&after, "shop/web"), of(&before, "shop/web"));
    assert!(
        !state.families.ipv4.is_dirty(),
        "there is nothing to try now"
    );
    assert!(
        !state.families.ipv4.is_clean(),
        "but something to try again"
    );

    // The tables are read back meanwhile: its elements still stay.
    let plan = state.plan(kernel.views());
    assert_eq!(plan.ipv4.transaction.operations, []);

    // Tried again, it is taken.
    state.retry_skipped();
    commit(&mut state, &mut kernel);
    assert!(state.families.ipv4.is_clean());
    let fresh = Tables::fresh(&state).ipv4;
    assert_eq!(normalised(&kernel.ipv4), normalised(&fresh));
}

#[test]
fn what_is_left_out_is_said_once_and_is_not_what_others_wait_for() {
    let refused = ServiceName::new("shop", "cart");
    let (mut state, mut kernel) = (state(), Tables::default());
    apply(&mut state, clusters());
    assert_eq!(state.outcome(), SyncOutcome::Pending);
    commit(&mut state, &mut kernel);
    assert_eq!(state.outcome(), SyncOutcome::Complete);
    apply(
        &mut state,
        [
            slice_named("shop/cart", 0..2),
            slice_named("shop/web", 3..5),
        ],
    );
    let refuse = |state: &mut State, why: &str| {
        let (skipped, said) = state.skip(&refused, why);
        assert_eq!(skipped, Skipped::Newly);
        said
    };
    let said = refuse(&mut state, "add element endpoints { slot 1 }: ENFILE");
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].reason, EventReason::RejectedByKernel);
    assert_eq!(
        state.outcome(),
        SyncOutcome::Pending,
        "the other is not committed"
    );
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.outcome(), SyncOutcome::SomeSkipped);

    // Tried again and refused again, in other words.
    state.retry_skipped();
    assert!(
        state.needs_read_back(),
        "what its clients remember is not known"
    );
    assert_eq!(
        refuse(&mut state, "add element endpoints { slot 2 }: ENFILE"),
        []
    );
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.outcome(), SyncOutcome::SomeSkipped);

    // Once it is taken, it may be refused anew.
    state.retry_skipped();
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.outcome(), SyncOutcome::Complete);
    assert!(!state.needs_read_back());
    assert_eq!(refuse(&mut state, "ENFILE").len(), 1);
}

#[test]
fn a_service_that_goes_while_it_is_left_out_goes_at_once() {
    let refused = ServiceName::new("shop", "cart");
    let (mut state, mut kernel) = (state(), Tables::default());
    apply(&mut state, clusters());
    commit(&mut state, &mut kernel);
    apply(&mut state, [slice_named("shop/cart", 0..2)]);
    let _ = state.skip(&refused, "ENFILE");
    read_and_commit(&mut state, &mut kernel);
    apply(
        &mut state,
        [update(key(ObjectKind::Service, "shop/cart"), None)],
    );
    assert_eq!(state.outcome(), SyncOutcome::Pending);
    assert!(state.needs_read_back());
    read_and_commit(&mut state, &mut kernel);
    assert_eq!(state.outcome(), SyncOutcome::Complete);
    assert!(!state.is_rejected(&refused));
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
                    skip(&mut state, &service);
                    read_and_commit(&mut state, &mut kernel);
                }
                Step::Read => {
                    read_and_commit(&mut state, &mut kernel);
                }
                Step::Retried => {
                    state.retry_skipped();
                    commit(&mut state, &mut kernel);
                }
            }
            // What the kernel holds is known, whoever's it is.
            prop_assert_eq!(&kernel.ipv4, &state.families.ipv4.applied().table());
            prop_assert_eq!(&kernel.ipv6, &ipv6(&state).applied().table());
            // What is programmed of a Service has all that it needs.
            let left_out: BTreeSet<_> = state.families.ipv4.skipped().cloned().collect();
            needed.retain(|service, _| left_out.contains(service));
            for (service, had) in &needed {
                let still = needed_by(&kernel.ipv4, service);
                let still: BTreeSet<_> = still.intersection(had).copied().collect();
                prop_assert_eq!(&present(&kernel.ipv4, still.clone()), &still);
            }
        }
        state.retry_skipped();
        commit(&mut state, &mut kernel);
        let Tables { ipv4, ipv6 } = Tables::fresh(&state);
        prop_assert_eq!(normalised(&kernel.ipv4), normalised(&ipv4));
        prop_assert_eq!(normalised(&kernel.ipv6), normalised(&ipv6));
    }
}
