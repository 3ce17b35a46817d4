//! Transactions of many elements.

use std::fmt::Write;
use std::net::Ipv4Addr;

use libtest_mimic::Trial;

use super::world::World;
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::scale;
    trials![scale: fifty_thousand_elements_are_committed_in_one_transaction]
}

/// Returns this number of Services with ten endpoints each, as YAML.
fn cluster(services: u32) -> String {
    let mut yaml = String::new();
    for number in 0..services {
        let ip = Ipv4Addr::from(0x0a60_0000 + number);
        let endpoint = |slot: u32| {
            let ip = Ipv4Addr::from(0x0af4_0000 + number * 10 + slot);
            format!("{{addresses: [{ip}]}}")
        };
        let endpoints: Vec<_> = (0..10).map(endpoint).collect();
        let endpoints = endpoints.join(", ");
        writeln!(
            yaml,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: n}}\n\
             spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s{number}, namespace: n, \
             labels: {{kubernetes.io/service-name: s{number}}}}}\naddressType: IPv4\n\
             ports: [{{port: 8080}}]\nendpoints: [{endpoints}]"
        )
        .expect("a String accepts every write");
    }
    yaml
}

fn fifty_thousand_elements_are_committed_in_one_transaction() {
    let mut world = World::new();
    world.apply_yaml(&cluster(5_000));
    world.rebuild();
    let table = world.read::<Ipv4Addr>();
    assert!(table.len() > 50_000, "{}", table.len());
    assert_eq!(table, world.state.families.ipv4.applied().table());
    assert_eq!(world.sync(), 0);
}
