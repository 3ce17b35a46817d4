//! Transactions of many elements.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

use kube_dnat::netlink::FamilyCommit;
use kube_dnat::per_family;
use kube_dnat::planner::diff::{Op, Operation, Transaction};
use kube_dnat::planner::model::{Address, Protocol::Tcp};
use kube_dnat::planner::ruleset::{
    DynamicChain, Element, FrontendKind, Key, SetName, SlotRange, Value, Verdict,
};
use libtest_mimic::Trial;

use super::world::{PROGRAM, World};
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::scale;
    trials![
        scale: fifty_thousand_elements_are_committed_in_one_transaction,
        three_million_elements_of_both_families_are_committed_in_one_transaction,
    ]
}

/// Returns this number of Services with ten endpoints each, as YAML.
pub(super) fn cluster(services: u32) -> String {
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

/// The Services of each family whose elements exceed 1,024 pages of messages many times.
const MANY_SERVICES: u32 = 125_000;

/// The elements of each of these Services: a frontend, its address and ten slots.
const ELEMENTS: u32 = 12;

/// Adds the elements of many Services with ten endpoints each to a transaction.
fn push_many<A: Address>(transaction: &mut Transaction<A>, address: impl Fn(u32) -> A) {
    let comment = Some("n/many:http".into());
    let mut push = |set, key, value| {
        let element = Element {
            set,
            key,
            value,
            comment: comment.clone(),
        };
        transaction.operations.push(Operation {
            op: Op::Add(element),
            service: None,
        });
    };
    let pick_10 = DynamicChain::Pick(FrontendKind::Address, SlotRange::Own, 10);
    let pick_10 = Value::Verdict(Verdict::Dynamic(pick_10));
    for ip in (0..MANY_SERVICES).map(&address) {
        push(SetName::Services, Key::Frontend(Tcp, ip, 80), pick_10);
        push(SetName::ClusterIps, Key::Address(ip), Value::Nothing);
    }
    for ip in (0..MANY_SERVICES).map(&address) {
        for slot in 0..10 {
            let endpoint = Value::Endpoint(address(1 << 20 | slot), 8080);
            push(SetName::Endpoints, Key::Slot(Tcp, ip, 80, slot), endpoint);
        }
    }
}

fn three_million_elements_of_both_families_are_committed_in_one_transaction() {
    let mut world = World::new();
    world.apply_yaml(&cluster(1));
    let (mut transactions, _) = world.state.plan_everything().split();
    let before = per_family!(transactions.as_ref(), |transaction| transaction.len());
    push_many(&mut transactions.ipv4, |number| {
        Ipv4Addr::from(0x0a80_0000 + number)
    });
    push_many(transactions.ipv6.as_mut().expect("IPv6"), |number| {
        Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(number))
    });
    let commit = per_family!(transactions, |transaction| FamilyCommit {
        rebuild: Some(PROGRAM),
        transaction,
    });
    world.kernel.commit(&commit).expect("the kernel accepts it");
    let total = |counts: std::collections::BTreeMap<_, usize>| counts.into_values().sum::<usize>();
    let ipv4 = world.kernel.element_counts::<Ipv4Addr>();
    let ipv6 = world.kernel.element_counts::<Ipv6Addr>();
    let many = usize::try_from(MANY_SERVICES * ELEMENTS).expect("64 bits");
    assert_eq!(total(ipv4.expect("counts")), before.ipv4 + many);
    assert_eq!(
        total(ipv6.expect("counts")),
        before.ipv6.expect("IPv6") + many
    );
    assert!(
        world.kernel.sent_bytes() > 1_024 * 128 * 1_024,
        "more than 1,024 pages of 128 KiB"
    );
    // The Service of the YAML is reachable from the node itself, whose endpoints are here.
    world.namespace.ip(
        "link set lo up\naddr add 192.168.77.2/32 dev lo\nroute add local 10.244.0.0/24 dev lo\n\
         route add 10.96.0.0/16 dev lo src 192.168.77.2\n",
    );
    world.namespace.run(|| {
        let _endpoints = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).expect("a listener");
        let connected = TcpStream::connect((Ipv4Addr::new(10, 96, 0, 0), 80));
        let peer = connected.and_then(|stream| stream.peer_addr());
        assert_eq!(peer.expect("a connection").port(), 80);
    });
}
