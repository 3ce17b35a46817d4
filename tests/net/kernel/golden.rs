//! Each golden ruleset loads with nft, and is what nft lists of it.

use std::fs;

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
        let path = folder.expect("a folder").path().join("table.nft");
        let text = fs::read_to_string(&path).expect("a golden");
        let namespace = Namespace::new("golden");
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
