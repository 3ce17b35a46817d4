//! `kube-dnat render`: prints the ruleset that `run` programs.

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Family, everywhere, names, servers};
use crate::lab::{Namespace, Service, Slices, nft};

pub(super) fn tests() -> Vec<Trial> {
    use super::render;
    crate::trials!(render:
        the_output_loads_and_equals_what_run_programs,
        the_output_serves_without_a_daemon,
        the_output_can_be_checked_on_a_node_that_has_the_tables,
    )
}

/// Runs `kube-dnat render` for the manifests in a namespace without a ruleset. Returns its output.
pub(super) fn render(shop: &Shop, elsewhere: &Namespace) -> String {
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--hostname-override", "node-1", "--cluster-cidr", &cidrs];
    let arguments = [
        ["render", "--manifests", shop.manifests.path()].as_slice(),
        &flags,
    ]
    .concat();
    elsewhere.command(env!("CARGO_BIN_EXE_kube-dnat"), &arguments)
}

fn the_output_loads_and_equals_what_run_programs() {
    let shop = Shop::new();
    let [first, second, third] = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let empty = Service::new("shop/empty", 2)
        .both("http", 80)
        .node_port(30081)
        .external_ip(2);
    let diameter = Service::new("core/diameter", 3)
        .port("", "SCTP", 3868)
        .load_balancer_ip(3);
    let diameter_slices = Slices::of("core/diameter")
        .port("", "SCTP", 3868)
        .ready([second, third]);
    let _daemon = shop.start(
        &(cart_on_every_frontend().yaml()
            + &cart_slices([first, third])
                .with([second], &json!({ "ready": false }))
                .yaml()
            + &empty.yaml()
            + &diameter.yaml()
            + &diameter_slices.yaml()),
    );
    let elsewhere = Namespace::new("elsewhere");
    nft::load(&elsewhere, &render(&shop, &elsewhere));
    let programmed = nft::normalise(&nft::list(&shop.cluster.node.namespace));
    assert_eq!(nft::normalise(&nft::list(&elsewhere)), programmed);
}

fn the_output_serves_without_a_daemon() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    shop.manifests.write(
        "shop.yaml",
        &(cart_on_every_frontend().yaml() + &cart_slices(endpoints).yaml()),
    );
    let rules = render(&shop, &Namespace::new("elsewhere"));
    nft::load(&shop.cluster.node.namespace, &rules);
    for (family, protocol) in everywhere() {
        for (frontend, to) in frontends(family) {
            let probe = shop.cluster.client.probe(protocol, to);
            assert_eq!(
                servers(&probe),
                names(["pod-1:8080", "remote-1:8080"]),
                "{frontend}: {probe}"
            );
        }
    }
}

/// The command line of `kube-dnat render --help`.
fn the_output_can_be_checked_on_a_node_that_has_the_tables() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = shop.start(&(cart_on_every_frontend().yaml() + &slices));
    let node = &shop.cluster.node.namespace;
    let (program, manifests) = (env!("CARGO_BIN_EXE_kube-dnat"), shop.manifests.path());
    let help = node.command(program, &["render", "--help"]);
    let example = "kube-dnat render --manifests DIR | unshare --net nft --check --file -";
    assert!(help.contains(example), "{help}");
    let command = example
        .replace("kube-dnat", program)
        .replace("DIR", manifests);
    node.command("bash", &["-o", "pipefail", "-c", &command]);
}
