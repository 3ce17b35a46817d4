use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::planner::model::{Balance, Object, Protocol, ServicePort, parse};

type Endpoint = EndpointAddr<Ipv4Addr>;

fn pod(last: u8) -> Endpoint {
    (Ipv4Addr::new(10, 244, 1, last), 8080)
}

fn service(balance: Option<Balance>) -> Service {
    let annotation = balance.map(|balance| format!("kube-dnat.io/balance: {balance}"));
    let yaml = format!(
        "metadata: {{name: cart, namespace: shop, annotations: {{{}}}}}\n\
         spec: {{clusterIP: 10.96.0.7, ports: [{{port: 80}}]}}",
        annotation.unwrap_or_default()
    );
    let update = parse::service(&yaml_serde::from_str(&yaml).unwrap());
    let Some(Object::Service(service)) = update.object else {
        panic!("a Service");
    };
    Arc::unwrap_or_clone(service)
}

/// Spreads the endpoints 10.244.1.0 and so on with these weights.
fn spread_by(balance: Option<Balance>, weights: &[u16]) -> Spread<Ipv4Addr> {
    spread_growing(balance, weights, None)
}

/// Spreads these endpoints while new ones among them have other weights.
fn spread_growing(
    balance: Option<Balance>,
    weights: &[u16],
    growing: Option<&[u16]>,
) -> Spread<Ipv4Addr> {
    let each = |weights: &[u16]| (0..).map(pod).zip(weights.iter().copied()).collect();
    let whole: Vec<_> = each(weights);
    let lists = Lists {
        cluster: whole.iter().map(|(endpoint, _)| *endpoint).collect(),
        local: Vec::new(),
    };
    let weights = PortWeights {
        whole: Some(whole),
        growing: growing.map(each),
    };
    spread(&service(balance), &lists, &weights)
}

/// No weights and no new endpoints.
const EQUAL: PortWeights<Ipv4Addr> = PortWeights {
    whole: None,
    growing: None,
};

/// Returns the numbers of slots of these endpoints.
fn slots_of(spread: &Spread<Ipv4Addr>) -> Vec<usize> {
    let shares = spread.lists.cluster.shares();
    shares.map(|(_, slots)| slots).collect()
}

fn problems(spread: &Spread<Ipv4Addr>) -> Vec<String> {
    spread.unserved.iter().map(ToString::to_string).collect()
}

#[test]
fn weights_are_slots_in_lowest_terms() {
    for (weights, slots) in [
        (&[3, 1][..], &[3, 1][..]),
        (&[6, 2], &[3, 1]),
        (&[50, 50, 100], &[1, 1, 2]),
        (&[7], &[1]),
        (&[0, 4, 2], &[2, 1]),
        (&[], &[]),
    ] {
        let spread = spread_by(None, weights);
        assert_eq!(slots_of(&spread), slots, "{weights:?}");
        assert_eq!(problems(&spread), [""; 0], "{weights:?}");
    }
}

#[test]
fn an_endpoint_of_weight_0_is_left_out() {
    let spread = spread_by(None, &[0, 1]);
    assert!(spread.lists.cluster.endpoints().eq([pod(1)]));
}

#[test]
fn weights_without_a_sum_or_with_too_many_slots_have_no_effect() {
    let spread = spread_by(None, &[0, 0]);
    assert_eq!(slots_of(&spread), [1, 1]);
    let problem = "annotation kube-dnat.io/weights has no effect: ";
    assert_eq!(
        problems(&spread),
        [format!("{problem}all endpoints of a port have weight 0")]
    );

    let weights: Vec<u16> = (0..84).map(|number| 50 - number % 2).collect();
    let spread = spread_by(None, &weights);
    assert_eq!(slots_of(&spread), [1; 84]);
    assert_eq!(
        problems(&spread),
        [format!(
            "{problem}a port needs too many slots for these weights"
        )]
    );

    let spread = spread_by(
        Some(Balance::Source),
        &[[1].as_slice(), &[100; 40]].concat(),
    );
    assert_eq!(spread.lists.cluster.len(), 1021);
    assert_eq!(
        problems(&spread),
        [format!(
            "{problem}a port needs too many slots for these weights"
        )]
    );
}

#[test]
fn the_slots_of_a_table_follow_the_weights() {
    let spread = spread_by(Some(Balance::Maglev), &[3, 1, 0]);
    assert_eq!(spread.selection, Selection::Hashed(Balance::Maglev));
    let slots = slots_of(&spread);
    assert_eq!(slots.iter().sum::<usize>(), 251);
    assert!(
        slots[0].abs_diff(188) <= 1 && slots[1].abs_diff(63) <= 1,
        "{slots:?}"
    );
}

#[test]
fn a_new_endpoint_has_fewer_slots() {
    let spread = spread_growing(None, &[1, 1, 1], Some(&[5, 5, 1]));
    assert_eq!(slots_of(&spread), [5, 5, 1]);
    let spread = spread_growing(None, &[3, 1, 0], Some(&[15, 1, 0]));
    assert_eq!(slots_of(&spread), [15, 1]);
    // New endpoints only.
    let spread = spread_growing(None, &[1, 1], Some(&[2, 2]));
    assert_eq!(slots_of(&spread), [1, 1]);
    assert_eq!(problems(&spread), [""; 0]);
}

#[test]
fn a_table_keeps_its_size_while_shares_grow() {
    let whole = spread_by(Some(Balance::Maglev), &[1; 3]);
    let spread = spread_growing(Some(Balance::Maglev), &[1; 3], Some(&[5, 5, 1]));
    assert_eq!(spread.lists.cluster.len(), whole.lists.cluster.len());
    let slots = slots_of(&spread);
    assert!(slots[2].abs_diff(251 / 11) <= 1, "{slots:?}");
}

#[test]
fn too_many_slots_for_growing_shares_leave_the_weights() {
    let mut growing = [25; 250];
    growing[0] = 1;
    let spread = spread_growing(None, &[[1].as_slice(), &[5; 249]].concat(), Some(&growing));
    assert_eq!(slots_of(&spread)[..2], [1, 5]);
    assert_eq!(
        problems(&spread),
        [
            "annotation kube-dnat.io/slow-start has no effect: a port needs too many slots for the \
          growing shares"
        ]
    );
}

#[test]
fn too_many_endpoints_for_a_table_are_drawn_at_random() {
    let endpoints: Vec<Endpoint> = (0..3277)
        .map(|number| (Ipv4Addr::from_bits(number), 80))
        .collect();
    let lists = Lists {
        cluster: endpoints,
        local: Vec::new(),
    };
    let spread = spread(&service(Some(Balance::Maglev)), &lists, &EQUAL);
    assert_eq!(spread.selection, Selection::Random);
    assert_eq!(spread.lists.cluster.len(), 3277);
    assert_eq!(spread.unserved.len(), 1);
}

#[test]
fn the_slots_of_all_frontends_of_a_service_are_bounded() {
    let mut service = service(Some(Balance::Maglev));
    let port = |port: u16| ServicePort {
        name: Arc::from(port.to_string()),
        protocol: Protocol::Tcp,
        port,
        node_port: Some(30_000 + port),
    };
    service.ports = (0..100).map(port).collect();
    // A ClusterIP and a node port for each port: 131,072 / 200 = 655 slots.
    service.cluster_ips = ["10.96.0.1", "fd00::1"]
        .map(|ip| ip.parse().unwrap())
        .into();
    for (count, selection) in [
        (12, Selection::Hashed(Balance::Maglev)),
        (13, Selection::Random),
    ] {
        let lists = Lists {
            cluster: (0..count).map(pod).collect(),
            local: Vec::new(),
        };
        let spread = spread(&service, &lists, &EQUAL);
        assert_eq!(spread.selection, selection, "{count}");
        let is_hashed = selection != Selection::Random;
        assert_eq!(problems(&spread).is_empty(), is_hashed, "{count}");
    }
}
