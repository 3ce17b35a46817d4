//! A table is read back in steps, and changes are committed between them.

use std::net::IpAddr;

use kube_dnat::per_family;
use kube_dnat::planner::model::{
    Address, Event, Object, ObjectKind, Protocol, Service, ServiceFeatures, ServiceName,
    ServicePort, TrafficPolicy,
};
use kube_dnat::planner::ruleset::{SetName, Table};
use kube_dnat::sync::SERVICES_PER_STEP;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cost::{maglev, slice_named};
use crate::reading::{apply_events, begin, read_back};
use crate::world::{Tables, commit, event, forgotten, ipv6, key, normalised, skip, state, update};

/// Deletes some elements of a table, as another program might.
fn damage<A: Address>(table: &mut Table<A>, every: usize) {
    let all: Vec<_> = table.elements().collect();
    for element in all.iter().step_by(every) {
        table.delete(element.set, &element.key).unwrap();
    }
}

/// Returns a Service whose load-balancer IP only these clients may use.
fn service(name: &str, number: u8, load_balancer_ip: Option<[u8; 4]>, clients: &str) -> Service {
    Service {
        name: ServiceName::from_key(&name.into()),
        created: None,
        has_selector: true,
        cluster_ips: [IpAddr::from([10, 96, 0, number])].into(),
        external_ips: [].into(),
        load_balancer_ips: load_balancer_ip.into_iter().map(IpAddr::from).collect(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: [clients.parse().unwrap()].into(),
        health_check_node_port: None,
        ports: [port("http")].into(),
        features: None,
    }
}

fn port(name: &str) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    }
}

fn report(service: Service) -> Event {
    let key = key(ObjectKind::Service, service.name.as_str());
    update(key, Some(Object::Service(service.into())))
}

/// A Service lost a frontend while kube-dnat did not run, and gets it again after its elements were
/// read: the table still has the ranges of sources of the time before.
#[test]
fn a_frontend_that_comes_back_during_a_read_back_has_its_source_ranges() {
    const FRONTEND: Option<[u8; 4]> = Some([198, 51, 100, 1]);
    const CLIENTS: &str = "192.0.2.0/24";
    let cases = [
        ("http", CLIENTS),
        ("web", CLIENTS),
        ("http", "192.0.2.0/25"),
    ];
    for (name, clients) in cases {
        let (mut state, mut kernel) = (state(), Tables::default());
        let before = report(service("shop/cart", 1, FRONTEND, CLIENTS));
        apply_events(&mut state, &[before]);
        commit(&mut state, &mut kernel);

        let mut state = crate::world::state();
        let without = report(service("shop/cart", 1, None, CLIENTS));
        let other = report(service("shop/web", 2, None, CLIENTS));
        apply_events(&mut state, &[without, other]);
        let again = report(Service {
            ports: [port(name)].into(),
            ..service("shop/cart", 1, FRONTEND, clients)
        });
        read_back(&mut state, &mut kernel, &[vec![again]]);
        let case = format!("port {name}, clients {clients}");
        let ranges = kernel.ipv4.elements_of(SetName::SourceRanges);
        assert_eq!(ranges.count(), 1, "{case}");
        assert_eq!(kernel.ipv4, state.families.ipv4.applied().table(), "{case}");
        let fresh = Tables::fresh(&state).ipv4;
        assert_eq!(normalised(&kernel.ipv4), normalised(&fresh), "{case}");
    }
}

/// Returns the number of Services that the first step reads, all of which have these features and
/// this number of endpoints.
fn services_in_step(services: u8, endpoints: u32, features: Option<&ServiceFeatures>) -> usize {
    let mut state = state();
    for number in 0..services {
        let name = format!("shop/service-{number}");
        let service = Service {
            features: features.cloned().map(Box::new),
            ..service(&name, number, Some([198, 51, 100, number]), "0.0.0.0/0")
        };
        apply_events(
            &mut state,
            &[report(service), slice_named(&name, 0..endpoints)],
        );
    }
    begin(&mut state, &Tables::default());
    let steps = state.steps(&state.next_services(usize::MAX));
    let before = state.families.ipv4.unread_count();
    state.adopt(steps);
    before - state.families.ipv4.unread_count()
}

#[test]
fn services_with_many_slots_make_no_step_long() {
    // Two threads read a step.
    let part = SERVICES_PER_STEP / 2;
    assert_eq!(services_in_step(200, 1, None), 200);
    assert!(services_in_step(200, 20, None) >= part);
    assert_eq!(services_in_step(3, 400, Some(&maglev())), 1);
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
