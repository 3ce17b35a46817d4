//! nft loads each golden ruleset, whole and as program and difference, and lists the same.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::lab::{Namespace, nft};
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::golden;
    trials![golden: nft_loads_each_golden_and_lists_the_same]
}

fn nft_loads_each_golden_and_lists_the_same() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let program = fs::read_to_string(root.join("nothing/table.nft")).expect("the program");
    for folder in fs::read_dir(root).expect("the goldens") {
        let path = folder.expect("a folder").path();
        let namespace = Namespace::new("golden");
        let text = render(&namespace, &path);
        namespace.command_with_input("nft", &["--check", "--file", "-"], &text);
        let expected = as_listed(&nft::normalise(&text));
        assert_eq!(loaded(&namespace, &[&text]), expected, "{}", path.display());

        let Ok(difference) = fs::read_to_string(path.join("difference.nft")) else {
            assert!(path.ends_with("nothing"), "{}", path.display());
            assert_eq!(text, program);
            continue;
        };
        namespace.command("nft", &["flush", "ruleset"]);
        let reviewed = if difference.contains("jhash") {
            // nft 1.0.6 loads no such rule for a map that exists ("conflicting protocols").
            loaded(&namespace, &[&(program.clone() + &difference)])
        } else {
            loaded(&namespace, &[&program, &difference])
        };
        assert_eq!(reviewed, expected, "{}", path.display());
    }
}

/// Returns what nft lists after it loaded these texts.
fn loaded(namespace: &Namespace, texts: &[&str]) -> String {
    for text in texts {
        nft::load(namespace, text);
    }
    let listed = nft::normalise(&nft::list(namespace));
    // The count of a counter is state; nft lists the counter itself with each element.
    listed
        .replace(" counter comment", " comment")
        .replace(" counter\n", "\n")
}

/// Returns the whole ruleset of a folder's objects.
fn render(namespace: &Namespace, folder: &Path) -> String {
    let flags = fs::read_to_string(folder.join("flags"))
        .unwrap_or_else(|_| "--cluster-cidr 10.244.0.0/16,fd00:10:244::/56".to_owned());
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

/// Returns a ruleset as nft 1.0.6 lists it.
///
/// If a rule matches a protocol and loads a port, nft lists the port as that protocol's and omits
/// the match. (nft cannot load the listed form of a rule that updates an affinity map.)
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
