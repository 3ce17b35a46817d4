//! Each golden ruleset loads with nft, and is what nft lists of it.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::lab::{Namespace, nft};
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::golden;
    trials![golden: each_loads_and_is_listed_as_it_is_written]
}

fn each_loads_and_is_listed_as_it_is_written() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    for folder in fs::read_dir(root).expect("the goldens") {
        let path = folder.expect("a folder").path();
        let namespace = Namespace::new("golden");
        let text = render(&namespace, &path);
        namespace.command_with_input("nft", &["--check", "--file", "-"], &text);
        nft::load(&namespace, &text);
        let listed = nft::normalise(&nft::list(&namespace));
        // The count of a counter is state; nft lists the counter itself with each element.
        let listed = listed.replace(" counter comment", " comment");
        let listed = listed.replace(" counter\n", "\n");
        let text = as_listed(&nft::normalise(&text));
        assert_eq!(listed, text, "{}", path.display());
    }
}

/// What the program renders of the objects: the goldens are parts of it.
fn render(namespace: &Namespace, folder: &Path) -> String {
    let flags = fs::read_to_string(folder.join("flags"));
    let flags =
        flags.unwrap_or_else(|_| "--cluster-cidr 10.244.0.0/16,fd00:10:244::/56".to_owned());
    let folder = folder.to_str().expect("a path in UTF-8");
    let arguments = [
        "render",
        "--hostname-override",
        "node-1",
        "--manifests",
        folder,
    ];
    let arguments: Vec<_> = arguments
        .into_iter()
        .chain(flags.split_whitespace())
        .collect();
    let output = namespace.output(env!("CARGO_BIN_EXE_kube-dnat"), &arguments, "");
    assert!(output.status.success(), "{folder}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Where a rule matches a protocol and loads a port, nft 1.0.6 lists the port as that protocol's
/// and leaves out the match. (It cannot load a rule that learns as it lists it.)
fn as_listed(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let rule = line.trim_start().strip_prefix("meta l4proto ");
        match rule.and_then(|rule| rule.split_once(' ')) {
            Some((protocol, rest)) if protocol != "." && rest.contains("th dport") => {
                format!(
                    "\t\t{}",
                    rest.replace("th dport", &format!("{protocol} dport"))
                )
            }
            _ => line.to_owned(),
        }
    });
    lines.map(|line| line + "\n").collect()
}
