//! Tables are read back in steps, between which changes are committed.

use std::net::Ipv4Addr;

use kube_dnat::planner::model::Protocol::Tcp;
use kube_dnat::planner::ruleset::{Key, SetName, Value};
use libtest_mimic::Trial;

use super::scale::cluster;
use super::world::World;
use crate::lab::nft;
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::read_back;
    trials![
        read_back: a_change_is_committed_before_the_read_back_is_complete,
        what_differs_is_corrected_step_by_step,
    ]
}

/// The number of Services.
const SERVICES: u32 = 300;

/// Returns a slice of a Service of [`cluster`] with this endpoint only.
fn replaced(number: u32, endpoint: Ipv4Addr) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: s{number}, namespace: n, \
         labels: {{kubernetes.io/service-name: s{number}}}}}\naddressType: IPv4\n\
         ports: [{{port: 8080}}]\nendpoints: [{{addresses: [{endpoint}]}}]\n"
    )
}

/// Returns the endpoint of a Service's slot in the kernel.
fn endpoint(world: &mut World, number: u32, slot: u32) -> Option<Value<Ipv4Addr>> {
    let key = Key::Slot(Tcp, Ipv4Addr::from(0x0a60_0000 + number), 80, slot);
    let element = world.kernel.element(SetName::Endpoints, &key);
    element.expect("an answer").map(|element| element.value)
}

fn a_change_is_committed_before_the_read_back_is_complete() {
    let mut world = World::new();
    world.apply_yaml(&cluster(SERVICES));
    world.rebuild();
    world.restart(&cluster(SERVICES));
    world.begin_read_back();
    assert_eq!(world.read_step(10), 0, "nothing differs");
    let unread = world.state.unread_count();
    assert!(unread > 0);
    // One Service is known already, the other is not.
    for number in [0, SERVICES - 1] {
        let new = Ipv4Addr::new(10, 244, 200, 1);
        world.apply_yaml(&replaced(number, new));
        assert!(world.read_step(1) > 0);
        assert!(world.state.unread_count() > 0, "the read-back goes on");
        let first = endpoint(&mut world, number, 0);
        assert_eq!(first, Some(Value::Endpoint(new, 8080)));
        assert_eq!(endpoint(&mut world, number, 1), None);
    }
    while world.state.unread_count() > 0 {
        assert_eq!(world.read_step(50), 0, "nothing else differs");
    }
    world.end_read_back();
    assert!(!world.state.is_reading());
    assert_eq!(world.sync(), 0);
    world.check();
}

fn what_differs_is_corrected_step_by_step() {
    let mut world = World::new();
    world.apply_yaml(&cluster(SERVICES));
    world.rebuild();
    let damage = "delete element ip kube-dnat endpoints { tcp . 10.96.0.7 . 80 . 3 }\n\
                  delete element ip kube-dnat services { tcp . 10.96.0.9 . 80 }\n\
                  add element ip kube-dnat services { tcp . 10.96.0.9 . 80 : goto refuse }\n\
                  delete element ip kube-dnat cluster-ips { 10.96.0.11 }\n\
                  add element ip kube-dnat service-cidrs { 172.16.0.0/12 }\n\
                  delete element ip6 kube-dnat denied { original }\n";
    nft::load(&world.namespace, damage);
    world.restart(&cluster(SERVICES));
    // A wrong element is deleted and added.
    assert_eq!(world.read_back(), 6);
    assert_eq!(world.sync(), 0);
    world.check();
}
