//! A table is read back in steps, and changes are committed between them.

use std::net::IpAddr;

use kube_dnat::per_family;
use kube_dnat::planner::model::{
    Address, Event, Object, ObjectKind, Protocol, Service, ServiceName, ServicePort, TrafficPolicy,
};
use kube_dnat::planner::ruleset::{SetName, Table};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reading::{apply_events, read_back};
use crate::world::{Tables, commit, event, forgotten, ipv6, key, normalised, skip, state, update};

/// Deletes some elements of a table, as another program might.
fn damage<A: Address>(table: &mut Table<A>, every: usize) {
    let all: Vec<_> = table.elements().collect();
    for element in all.iter().step_by(every) {
        table.delete(element.set, &element.key).unwrap();
    }
}

/// Returns a report of a Service, whose load-balancer IP only these clients may use.
fn service(
    name: &str,
    number: u8,
    port: &str,
    load_balancer_ip: Option<[u8; 4]>,
    clients: &str,
) -> Event {
    let service = Service {
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
        ports: [ServicePort {
            name: port.into(),
            protocol: Protocol::Udp,
            port: 82,
            node_port: None,
        }]
        .into(),
        features: None,
    };
    let service = Object::Service(service.into());
    update(key(ObjectKind::Service, name), Some(service))
}

/// A Service lost a frontend while kube-dnat did not run, and gets it again after its elements were
/// read: the table still has the ranges of sources of the time before.
#[test]
fn a_frontend_that_comes_back_during_a_read_back_has_its_source_ranges() {
    const FRONTEND: Option<[u8; 4]> = Some([198, 51, 100, 1]);
    let cases = [
        ("", "192.0.2.0/24"),
        ("dns", "192.0.2.0/24"),
        ("", "192.0.2.0/25"),
    ];
    for (port, clients) in cases {
        let (mut state, mut kernel) = (state(), Tables::default());
        apply_events(
            &mut state,
            &[service("shop/cart", 1, "", FRONTEND, "192.0.2.0/24")],
        );
        commit(&mut state, &mut kernel);

        let mut state = crate::world::state();
        let without = service("shop/cart", 1, "", None, "192.0.2.0/24");
        let other = service("shop/web", 2, "", None, "192.0.2.0/24");
        apply_events(&mut state, &[without, other]);
        let again = service("shop/cart", 1, port, FRONTEND, clients);
        read_back(&mut state, &mut kernel, &[vec![again]]);
        let case = format!("port {port:?}, clients {clients}");
        let ranges = kernel.ipv4.elements_of(SetName::SourceRanges);
        assert_eq!(ranges.count(), 1, "{case}");
        assert_eq!(kernel.ipv4, state.families.ipv4.applied().table(), "{case}");
        let fresh = Tables::fresh(&state).ipv4;
        assert_eq!(normalised(&kernel.ipv4), normalised(&fresh), "{case}");
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
