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
        assert_eq!(listed, nft::normalise(&text), "{}", path.display());
    }
}
