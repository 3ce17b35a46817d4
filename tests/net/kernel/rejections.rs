//! If the kernel rejects a transaction, nothing is committed, and the error names the operation.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kube_dnat::netlink::{Commit, Error, Rejection};
use kube_dnat::planner::diff::{Op, Operation, Transaction};
use kube_dnat::planner::model::{Balance, Protocol, ServiceName};
use kube_dnat::planner::ruleset::{
    DynamicChain, Element, FrontendKind, Key, SetName, SlotRange, Value, Verdict,
};
use libtest_mimic::Trial;
use nix::errno::Errno;

use super::world::World;
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::rejections;
    trials![
        rejections: one_element_of_many_is_named_with_its_service,
        every_rejected_operation_is_named,
        every_service_of_a_rejected_hash_is_named,
        a_missing_table_is_reported_as_missing,
    ]
}

fn service(number: u16) -> ServiceName {
    ServiceName::new("shop", &format!("service-{number}"))
}

fn frontend(number: u16) -> Key<Ipv4Addr> {
    let [high, low] = number.to_be_bytes();
    Key::Frontend(Protocol::Tcp, Ipv4Addr::new(10, 96, high, low), 80)
}

fn add(number: u16, verdict: Verdict) -> Operation<Ipv4Addr> {
    Operation {
        op: Op::Add(Element {
            set: SetName::ServicesRestricted,
            key: frontend(number),
            value: Value::Verdict(verdict),
            comment: Some(service(number).as_str().into()),
        }),
        service: Some(service(number)),
    }
}

fn send(world: &mut World, operations: Vec<Operation<Ipv4Addr>>) -> Result<(), Vec<Rejection>> {
    let mut commit = Commit::default();
    commit.ipv4.transaction = Transaction { operations };
    match world.kernel.commit(&commit) {
        Ok(()) => Ok(()),
        Err(Error::Rejected(rejections)) => Err(rejections),
        Err(other) => panic!("{other}"),
    }
}

fn one_element_of_many_is_named_with_its_service() {
    let mut world = World::new();
    world.rebuild();
    let missing_chain = Verdict::Dynamic(DynamicChain::Pick(
        FrontendKind::Address,
        SlotRange::Own,
        17,
    ));
    let verdict = |number| {
        if number == 1234 {
            missing_chain
        } else {
            Verdict::Refuse
        }
    };
    let operations: Vec<_> = (0..2000)
        .map(|number| add(number, verdict(number)))
        .collect();
    let rejections =
        send(&mut world, operations.clone()).expect_err("chain pick-17 does not exist");
    assert_eq!(rejections.len(), 1, "{rejections:?}");
    assert_eq!(rejections[0].services, [service(1234)], "{rejections:?}");
    assert_eq!(rejections[0].errno, Errno::ENOENT);
    assert!(
        rejections[0].operation.contains("10.96.4.210 . 80"),
        "{rejections:?}"
    );
    assert_eq!(
        world
            .read::<Ipv4Addr>()
            .entries(SetName::ServicesRestricted)
            .count(),
        0
    );
    let others = operations
        .into_iter()
        .filter(|operation| operation.service != Some(service(1234)));
    send(&mut world, others.collect()).expect("the kernel accepts the others");
    assert_eq!(
        world
            .read::<Ipv4Addr>()
            .entries(SetName::ServicesRestricted)
            .count(),
        1999
    );
}

/// A kernel without `nft_hash` rejects each chain with a hash; every kernel rejects one of no slots.
fn every_service_of_a_rejected_hash_is_named() {
    let mut world = World::new();
    world.rebuild();
    let (kind, list) = (FrontendKind::Address, SlotRange::Own);
    let [maglev, source] = Balance::ALL.map(|balance| DynamicChain::Hashed(balance, kind, list, 0));
    let add_chain = |chain| Operation {
        op: Op::AddChain(chain),
        service: None,
    };
    let verdict = |number| match number % 3 {
        0 => Verdict::Dynamic(maglev),
        1 => Verdict::Dynamic(source),
        _ => Verdict::Refuse,
    };
    let elements = (0..300).map(|number| add(number, verdict(number)));
    let chains = [maglev, source].map(add_chain).into_iter();
    let rejections =
        send(&mut world, chains.chain(elements).collect()).expect_err("a hash needs slots");
    let named: BTreeSet<_> = rejections.iter().flat_map(|one| &one.services).collect();
    assert_eq!(named.len(), 200, "{rejections:?}");
    let others = (0..300).filter(|number| number % 3 == 2);
    let others = others.map(|number| add(number, verdict(number)));
    send(&mut world, others.collect()).expect("the kernel accepts the others");
}

fn every_rejected_operation_is_named() {
    let mut world = World::new();
    world.rebuild();
    let delete = |number| Operation {
        op: Op::Delete(SetName::ServicesRestricted, frontend(number)),
        service: Some(service(number)),
    };
    let missing = Operation {
        op: Op::DeleteChain(DynamicChain::Pick(
            FrontendKind::Nodeport,
            SlotRange::Own,
            19,
        )),
        service: None,
    };
    let rejections = send(
        &mut world,
        vec![missing, delete(5), add(6, Verdict::Refuse)],
    )
    .expect_err("neither exists");
    let named: Vec<_> = rejections
        .iter()
        .map(|rejection| rejection.operation.as_str())
        .collect();
    let delete = "delete element services-restricted { tcp . 10.96.0.5 . 80 }";
    assert_eq!(named, ["delete chain pick-nodeport-19", delete]);
    assert_eq!(rejections[1].services, [service(5)]);
}

fn a_missing_table_is_reported_as_missing() {
    let mut world = World::new();
    let rejections = send(&mut world, vec![add(1, Verdict::Refuse)]).expect_err("no table");
    assert_eq!(rejections[0].errno, Errno::ENOENT);
    assert_eq!(rejections[0].services, [service(1)]);
}
