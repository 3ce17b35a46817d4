//! After a commit the kernel has the elements of the commit, and nft lists them.

use std::fs;

use kube_dnat::netlink::Commit;
use kube_dnat::per_family;
use libtest_mimic::Trial;

use super::world::World;
use crate::lab::nft;
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::commit;
    trials![
        commit: the_kernel_has_what_was_committed_and_nft_lists_the_same,
        each_sync_from_one_golden_to_the_next_commits_the_difference,
        a_range_that_grows_over_another_is_replaced_in_one_transaction,
        tables_of_others_stay_as_they_are,
        unused_dynamic_chains_can_be_deleted_together,
    ]
}

/// Returns the objects of every golden that has no diagnostics, as YAML.
pub(super) fn golden_objects() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let folders = fs::read_dir(root).expect("the goldens");
    let mut folders: Vec<_> = folders
        .map(|folder| folder.expect("a folder").path())
        .collect();
    folders.sort();
    folders.retain(|folder| !folder.join("warnings").exists());
    let objects = folders.iter().map(|folder| folder.join("objects.yaml"));
    objects
        .map(|path| fs::read_to_string(path).expect("objects"))
        .collect()
}

fn the_kernel_has_what_was_committed_and_nft_lists_the_same() {
    for objects in golden_objects() {
        let mut world = World::new();
        world.apply_yaml(&objects);
        world.rebuild();
        world.check();
        assert_eq!(world.sync(), 0, "nothing is sent when nothing differs");
    }
}

fn each_sync_from_one_golden_to_the_next_commits_the_difference() {
    let mut world = World::new();
    world.rebuild();
    world.check();
    for objects in golden_objects() {
        world.apply_yaml(&objects);
        world.sync();
        world.check();
    }
}

fn service_cidr(cidrs: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: kubernetes}}\n\
         spec: {{cidrs: {cidrs}}}\n"
    )
}

fn a_range_that_grows_over_another_is_replaced_in_one_transaction() {
    let mut world = World::new();
    world.rebuild();
    for cidrs in [
        "[10.96.0.0/16]",
        "[10.96.0.0/12]",
        "[10.96.0.0/24, 10.96.1.0/25, 10.100.0.0/16]",
        "[10.0.0.0/8, \"fd00:10:96::/112\"]",
        "[0.0.0.0/0, \"::/0\"]",
        "[10.96.0.7/32, 255.255.255.255/32]",
        "[]",
    ] {
        world.apply_yaml(&service_cidr(cidrs));
        world.sync();
        world.check();
    }
}

fn tables_of_others_stay_as_they_are() {
    let mut world = World::new();
    let others = "table ip kube-dnat-not {\n\tset services {\n\t\ttype ipv4_addr\n\
                  \t\telements = { 10.96.0.1 }\n\t}\n}\n\
                  table inet kube-dnat {\n\tchain services {\n\t\taccept\n\t}\n}\n";
    nft::load(&world.namespace, others);
    let before = nft::list(&world.namespace);
    world.rebuild();
    for objects in golden_objects() {
        world.apply_yaml(&objects);
        world.sync();
    }
    world.rebuild();
    let with_ours = nft::list(&world.namespace);
    for line in before.lines() {
        assert!(with_ours.contains(line), "{line}");
    }
    let deleted = world.kernel.delete_tables().expect("both tables");
    assert_eq!(deleted.len(), 2);
    assert_eq!(nft::list(&world.namespace), before);
    let deleted = world
        .kernel
        .delete_tables()
        .expect("a missing table is no error");
    assert_eq!(deleted, []);
}

/// Returns a Service with session affinity and `count` endpoints, for which no chain exists yet.
fn many_sticky_endpoints(count: u8) -> String {
    let endpoints = (1..=count).map(|last| format!("- addresses: [10.244.2.{last}]\n"));
    let endpoints: String = endpoints.collect();
    format!(
        "kind: Service\napiVersion: v1\nmetadata:\n  namespace: shop\n  name: many\nspec:\n  \
         clusterIPs: [10.96.99.1]\n  sessionAffinity: ClientIP\n  ports:\n  - name: http\n    \
         port: 80\n---\nkind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata:\n  \
         namespace: shop\n  name: many\n  labels:\n    kubernetes.io/service-name: many\n\
         addressType: IPv4\nports:\n- name: http\n  port: 8080\nendpoints:\n{endpoints}"
    )
}

fn unused_dynamic_chains_can_be_deleted_together() {
    let mut world = World::new();
    world.rebuild();
    let many = [20, 19].map(many_sticky_endpoints);
    for objects in many.into_iter().chain(golden_objects()) {
        world.apply_yaml(&objects);
        world.sync();
    }
    world.unpin_clients();
    let fresh = world.state.desired_tables();
    let mut rounds = 0;
    loop {
        let families = world.state.families.as_mut();
        let commit: Commit = per_family!(families, |family| {
            let unused = family.applied().delete_unused_chains();
            family.applied_mut().unused_chains_deleted();
            unused.into()
        });
        if commit.is_empty() {
            break;
        }
        world
            .kernel
            .commit(&commit)
            .expect("no element goes to the chains");
        rounds += 1;
    }
    // The second round deletes the chains that only chains of the first went to.
    assert_eq!(rounds, 2, "the goldens add chains and stop using them");
    world.check();
    assert_eq!(
        world.read::<std::net::Ipv4Addr>().dynamic_chains(),
        fresh.ipv4.dynamic_chains()
    );
}
