//! A start adopts the tables that it finds, or recreates a table that kube-dnat does not make.

use std::net::{Ipv4Addr, Ipv6Addr};

use kube_dnat::per_family;
use kube_dnat::planner::diff::TableStatus;
use kube_dnat::planner::model::{Address, Protocol::Tcp};
use kube_dnat::planner::ruleset::{Key, Program, SetName, render};
use libtest_mimic::Trial;

use super::world::{PROGRAM, World};
use crate::lab::nft;
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::adopt;
    trials![
        adopt: no_table_is_found_before_there_is_one,
        a_table_that_nft_loaded_from_our_text_is_adopted,
        elements_are_read_by_their_keys_whether_others_are_missing_or_not,
        a_table_with_other_chains_rules_or_sets_is_foreign,
    ]
}

/// Returns a world whose tables have elements of both families.
fn full() -> World {
    let mut world = World::new();
    world.apply_yaml(include_str!("../../golden/dual-stack/objects.yaml"));
    world.rebuild();
    world
}

fn no_table_is_found_before_there_is_one() {
    let mut world = World::new();
    assert!(matches!(
        world.kernel.read::<Ipv4Addr>(&PROGRAM),
        Ok(TableStatus::Missing)
    ));
    nft::load(&world.namespace, "table ip kube-dnat {\n}\n");
    assert!(matches!(
        world.kernel.read::<Ipv4Addr>(&PROGRAM),
        Ok(TableStatus::Foreign(_))
    ));
    assert!(matches!(
        world.kernel.read::<Ipv6Addr>(&PROGRAM),
        Ok(TableStatus::Missing)
    ));
    world.rebuild();
    world.check();
}

fn a_table_that_nft_loaded_from_our_text_is_adopted() {
    let mut world = full();
    let texts = per_family!(world.state.desired_tables(), |table| render(
        &table, &PROGRAM
    ));
    let text: String = texts.into_iter().collect();
    let other = World::new();
    nft::load(&other.namespace, &text);
    assert_eq!(
        nft::normalise(&nft::list(&other.namespace)),
        nft::normalise(&nft::list(&world.namespace)),
        "nft lists the same whether it or kube-dnat committed the tables",
    );
    world.check();
}

fn elements_are_read_by_their_keys_whether_others_are_missing_or_not() {
    fn check<A: Address>(world: &mut World, absent: A) {
        let whole = world.read::<A>();
        let present = whole.elements().map(|element| (element.set, element.key));
        let present: Vec<_> = present.filter(|(set, _)| set.has_service_keys()).collect();
        let missing = |number| (SetName::Endpoints, Key::Slot(Tcp, absent, 80, number));
        // Every key alone, then each after a missing one, then many missing ones in a row.
        let mixed = present.iter().copied().zip(0..);
        let mixed = mixed.flat_map(|(key, number)| [missing(number), key]);
        let in_a_row = (0..2_000).map(missing).chain(present.iter().copied());
        let shape = match world.kernel.read_without_keyed::<A>(&PROGRAM) {
            Ok(TableStatus::Ours(shape)) => shape,
            other => panic!("{other:?}"),
        };
        for keys in [present.clone(), mixed.collect(), in_a_row.collect()] {
            match world.kernel.read_keys(&keys) {
                Ok(TableStatus::Ours(read)) => {
                    let mut table = shape.clone();
                    let mut add = |element| table.add(element).expect("a new element");
                    read.into_iter().for_each(&mut add);
                    assert_eq!(table, whole);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let mut world = full();
    check(&mut world, Ipv4Addr::new(192, 0, 2, 1));
    check(&mut world, Ipv6Addr::LOCALHOST);
}

fn a_table_with_other_chains_rules_or_sets_is_foreign() {
    let foreign = |change: &str, part: &str| {
        let mut world = full();
        nft::load(&world.namespace, change);
        match world.kernel.read::<Ipv4Addr>(&PROGRAM) {
            Ok(TableStatus::Foreign(why)) => assert!(why.contains(part), "{change}: {why}"),
            other => panic!("{change}: {other:?}"),
        }
    };
    foreign(
        "add rule ip kube-dnat services accept",
        "rules of chain services",
    );
    foreign(
        "insert rule ip kube-dnat pick-2 counter",
        "rules of chain pick-2",
    );
    foreign("add chain ip kube-dnat other", "chain other");
    foreign(
        "add set ip kube-dnat other { type ipv4_addr; }",
        "set other",
    );
    foreign(
        "add element ip kube-dnat services { tcp . 10.9.9.9 . 9 : accept }",
        "element of services",
    );
    let mut world = full();
    let other = Program::default();
    assert!(
        matches!(
            world.kernel.read::<Ipv4Addr>(&other),
            Ok(TableStatus::Foreign(_))
        ),
        "a table of another configuration is foreign",
    );
}
