//! A Service that the kernel refuses costs only itself.

use kube_dnat::model::{Event, ServiceName};
use kube_dnat::sync::{Basis, State};

use crate::cost::{service_named, slice_named};
use crate::world::{Tables, commit, normalised, state};

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
    assert!(state.ipv4.take_in_again());
    commit(&mut state, &mut kernel);
    assert!(state.ipv4.is_clean());
    let (fresh, _) = state.fresh().unwrap();
    assert_eq!(normalised(&kernel.ipv4), normalised(&fresh));
}
