//! A Service whose elements the kernel rejects does not affect other Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use kube_dnat::events::EventReason;
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::{
    Event, Object, ObjectKind, Placement, Service, ServiceName, SliceEndpoints, Update,
};
use kube_dnat::planner::ruleset::{Key, SetName, Table, Value, service_and_port};
use kube_dnat::sync::{Skipped, State, SyncOutcome};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cost::{service_named, slice_named};
use crate::reading::read_back;
use crate::world::{Tables, commit, event, ipv6, key, normalised, skip, state, update};

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
fn other_services_are_synced_and_its_programmed_elements_stay() {
    let rejected = ServiceName::new("shop", "cart");
    let (mut state, mut kernel) = (state(), Tables::default());
    apply(&mut state, clusters());
    commit(&mut state, &mut kernel);
    let before = normalised(&kernel.ipv4);

    // Both change; the kernel rejects one.
    apply(
        &mut state,
        [
            slice_named("shop/cart", 0..2),
            slice_named("shop/web", 3..5),
        ],
    );
    assert_eq!(
        skip(&mut state, &rejected),
        Dual::both(Skipped::Newly, Skipped::Newly)
    );
    let already = Dual::both(Skipped::Already, Skipped::Already);
    assert_eq!(skip(&mut state, &rejected), already);
    commit(&mut state, &mut kernel);
    let after = normalised(&kernel.ipv4);
    let of = |lines: &[String], name: &str| {
        let lines = lines.iter().filter(|line| line.contains(name));
        lines.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of(&after, "shop/cart"), of(&before, "shop/cart"));
    assert_ne!(of(&after, "shop/web"), of(&before, "shop/web"));
    assert!(!state.families.ipv4.is_dirty(), "nothing is dirty");
    assert!(
        !state.families.ipv4.is_clean(),
        "but something needs a retry"
    );

    // Its elements also stay if the tables are read back.
    assert_eq!(read_back(&mut state, &mut kernel, &[]), 0);

    // The kernel accepts it at the retry.
    state.retry_skipped();
    commit(&mut state, &mut kernel);
    assert!(state.families.ipv4.is_clean());
    let fresh = Tables::fresh(&state).ipv4;
    assert_eq!(normalised(&kernel.ipv4), normalised(&fresh));
}

#[test]
fn a_skipped_service_is_reported_once_and_delays_no_other() {
    let rejected = ServiceName::new("shop", "cart");
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
    let reject = |state: &mut State, reason: &str| {
        let (skipped, diagnostics) = state.skip(&rejected, reason);
        assert_eq!(skipped, Skipped::Newly);
        diagnostics
    };
    let diagnostics = reject(&mut state, "add element endpoints { slot 1 }: ENFILE");
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].reason, EventReason::RejectedByKernel);
    assert_eq!(
        state.outcome(),
        SyncOutcome::Pending,
        "the other Service is not committed"
    );
    read_back(&mut state, &mut kernel, &[]);
    assert_eq!(state.outcome(), SyncOutcome::SomeSkipped);

    // The retry is rejected with another reason.
    state.retry_skipped();
    assert!(state.needs_read_back(), "its pinned clients are not known");
    assert_eq!(
        reject(&mut state, "add element endpoints { slot 2 }: ENFILE"),
        []
    );
    read_back(&mut state, &mut kernel, &[]);
    assert_eq!(state.outcome(), SyncOutcome::SomeSkipped);

    // After the kernel has accepted it, a rejection is reported again.
    state.retry_skipped();
    read_back(&mut state, &mut kernel, &[]);
    assert_eq!(state.outcome(), SyncOutcome::Complete);
    assert!(!state.needs_read_back());
    assert_eq!(reject(&mut state, "ENFILE").len(), 1);
}

#[test]
fn a_skipped_service_that_is_deleted_is_removed_at_once() {
    let rejected = ServiceName::new("shop", "cart");
    let (mut state, mut kernel) = (state(), Tables::default());
    apply(&mut state, clusters());
    commit(&mut state, &mut kernel);
    apply(&mut state, [slice_named("shop/cart", 0..2)]);
    let _ = state.skip(&rejected, "ENFILE");
    read_back(&mut state, &mut kernel, &[]);
    apply(
        &mut state,
        [update(key(ObjectKind::Service, "shop/cart"), None)],
    );
    assert_eq!(state.outcome(), SyncOutcome::Pending);
    assert!(state.needs_read_back());
    read_back(&mut state, &mut kernel, &[]);
    assert_eq!(state.outcome(), SyncOutcome::Complete);
    assert!(!state.is_rejected(&rejected));
    let left = normalised(&kernel.ipv4);
    assert!(
        !left.iter().any(|line| line.contains("shop/cart")),
        "{left:#?}"
    );
}

/// An event while the kernel rejects Services.
#[derive(Clone, Debug)]
enum Step {
    /// An object is reported.
    Reported(Event),
    /// The kernel rejects the operations of a Service.
    Rejected(ServiceName),
    /// The tables are read back.
    ReadBack,
    /// Skipped Services are retried.
    Retried,
}

fn step() -> impl Strategy<Value = Step> {
    let rejected = (0_u8..4)
        .prop_map(|number| Step::Rejected(ServiceName::new("shop", &format!("service-{number}"))));
    prop_oneof![
        6 => event().prop_map(Step::Reported),
        2 => rejected,
        1 => Just(Step::ReadBack),
        1 => Just(Step::Retried),
    ]
}

/// The set that has the `ClusterIPs` of a Service, and the `ClusterIPs`.
type ClusterIps = (SetName, BTreeSet<IpAddr>);

fn cluster_ips(service: &Service) -> ClusterIps {
    let set = if service.affinity.is_some() {
        SetName::ClusterIpsSticky
    } else {
        SetName::ClusterIps
    };
    (set, service.cluster_ips.iter().copied().collect())
}

/// The addresses that slices of each Service place on another node.
///
/// Such an endpoint needs no hairpin element: one that exists is that of another Service, whose slices
/// place the address on this node.
#[derive(Default)]
struct RemoteAddresses(BTreeSet<(ServiceName, Ipv4Addr)>);

impl RemoteAddresses {
    fn report(&mut self, event: &Event) {
        let Event::Update(Update {
            object: Some(Object::Slices(slices)),
            ..
        }) = event
        else {
            return;
        };
        for slice in slices {
            let SliceEndpoints::Ipv4(endpoints) = &slice.addresses else {
                continue;
            };
            let remote = endpoints
                .iter()
                .filter(|endpoint| endpoint.placement == Placement::Remote);
            let remote = remote.map(|endpoint| (slice.service.clone(), endpoint.address));
            self.0.extend(remote);
        }
    }

    fn has(&self, service: &ServiceName, address: Ipv4Addr) -> bool {
        self.0.contains(&(service.clone(), address))
    }
}

/// Returns the elements without a comment that those of a Service need.
///
/// These are the elements of its `ClusterIPs` and the hairpin elements of its endpoints.
fn needed_by(
    table: &Table<Ipv4Addr>,
    (service, cluster_ips): (&ServiceName, &ClusterIps),
    remote: &RemoteAddresses,
) -> BTreeSet<(SetName, Key<Ipv4Addr>)> {
    let own = table.elements().filter(|element| {
        let comment = element.comment.as_deref().unwrap_or_default();
        service_and_port(comment).0 == service.as_str()
    });
    let needed = own.flat_map(|element| match (element.key, element.value) {
        (_, Value::Endpoint(address, _)) if !remote.has(service, address) => {
            vec![(SetName::Hairpin, Key::Pair(address, address))]
        }
        (Key::Frontend(_, address, _), _) if cluster_ips.1.contains(&address.into()) => {
            vec![(cluster_ips.0, Key::Address(address))]
        }
        _ => Vec::new(),
    });
    needed.collect()
}

/// Returns those of these keys that a table has.
fn present(
    table: &Table<Ipv4Addr>,
    keys: BTreeSet<(SetName, Key<Ipv4Addr>)>,
) -> BTreeSet<(SetName, Key<Ipv4Addr>)> {
    keys.into_iter()
        .filter(|(set, key)| table.get(*set, key).is_some())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn elements_of_a_skipped_service_stay_until_it_is_deleted(steps in vec(step(), 1..30)) {
        let (mut state, mut kernel) = (state(), Tables::default());
        let mut needed = BTreeMap::new();
        // The ClusterIPs of each Service, as reported last and as committed last.
        let (mut reported, mut committed) = (BTreeMap::new(), BTreeMap::new());
        let mut remote = RemoteAddresses::default();
        for step in steps {
            match step {
                Step::Reported(event) => {
                    remote.report(&event);
                    if let Event::Update(Update { object: Some(Object::Service(service)), .. }) = &event {
                        reported.insert(service.name.clone(), cluster_ips(service));
                    }
                    let _ = state.apply(event);
                    commit(&mut state, &mut kernel);
                }
                Step::Rejected(service) => {
                    let ips = committed.get(&service).cloned().unwrap_or((SetName::ClusterIps, BTreeSet::new()));
                    let before = needed_by(&kernel.ipv4, (&service, &ips), &remote);
                    needed.insert(service.clone(), (ips, present(&kernel.ipv4, before)));
                    skip(&mut state, &service);
                    read_back(&mut state, &mut kernel, &[]);
                }
                Step::ReadBack => {
                    read_back(&mut state, &mut kernel, &[]);
                }
                Step::Retried => {
                    state.retry_skipped();
                    commit(&mut state, &mut kernel);
                }
            }
            // The applied state equals the kernel's tables, also for skipped Services.
            prop_assert_eq!(&kernel.ipv4, &state.families.ipv4.applied().table());
            prop_assert_eq!(&kernel.ipv6, &ipv6(&state).applied().table());
            // The elements of a skipped Service still have all elements that they need.
            let skipped: BTreeSet<_> = state.families.ipv4.skipped().cloned().collect();
            needed.retain(|service, _| skipped.contains(service));
            let unskipped = reported.iter().filter(|(service, _)| !skipped.contains(*service));
            committed.extend(unskipped.map(|(service, ips)| (service.clone(), ips.clone())));
            for (service, (ips, before)) in &needed {
                let now = needed_by(&kernel.ipv4, (service, ips), &remote);
                let still_needed: BTreeSet<_> = now.intersection(before).copied().collect();
                prop_assert_eq!(&present(&kernel.ipv4, still_needed.clone()), &still_needed);
            }
        }
        state.retry_skipped();
        commit(&mut state, &mut kernel);
        let Tables { ipv4, ipv6 } = Tables::fresh(&state);
        prop_assert_eq!(normalised(&kernel.ipv4), normalised(&ipv4));
        prop_assert_eq!(normalised(&kernel.ipv6), normalised(&ipv6));
    }
}
