//! The completion scripts, each executed by its shell.

use std::path::Path;

use libtest_mimic::Trial;

use super::commands::manifests;
use super::shop::Shop;

pub(super) fn tests() -> Vec<Trial> {
    use super::completion;
    crate::trials!(completion:
        every_shell_completes_commands_flags_values_and_services,
        completion_without_permission_or_tables_offers_no_service,
    )
}

/// Prints the completions of the words in `$@`, of which the last is incomplete.
const BASH: &str = r#"
source <(kube-dnat completions bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
_clap_complete_kube_dnat kube-dnat "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Does the same. `_describe` of the completion system prints what it would offer.
const ZSH: &str = r#"
autoload -Uz compinit; compinit -u -D
source <(kube-dnat completions zsh)
_describe() { local list=$3; print -rl -- ${${(P)list}%%:*} }
words=("$@"); CURRENT=$#
_clap_dynamic_completer_kube_dnat
"#;

/// Does the same. fish has a command that prints the completions of a line, with descriptions.
const FISH: &str = r#"
kube-dnat completions fish | source
complete --do-complete "$argv" | string replace --regex '\t.*' ''
"#;

/// Returns what a shell offers for the last of these words.
#[track_caller]
fn completions(shop: &Shop, shell: &str, before: &[&str], words: &[&str]) -> Vec<String> {
    let words = [&["kube-dnat"], words].concat();
    let program = Path::new(env!("CARGO_BIN_EXE_kube-dnat"));
    let folder = program.parent().and_then(Path::to_str).expect("a folder");
    let path = format!("PATH={folder}:/usr/sbin:/usr/bin:/sbin:/bin");
    let home = tempfile::tempdir().expect("a folder");
    let home = format!("HOME={}", home.path().display());
    let (start, script) = match shell {
        "bash" => (&["bash", "--norc", "-c"][..], BASH),
        "zsh" => (&["zsh", "-f", "-c"][..], ZSH),
        _ => (&["fish", "--no-config", "-c"][..], FISH),
    };
    let line = words.join(" ");
    let arguments = match shell {
        "fish" => vec![&*line],
        // The first argument of a script is its name.
        _ => [&[shell], &words[..]].concat(),
    };
    let command = [&[&*path, &*home], before, start, &[script], &arguments].concat();
    let output = shop.cluster.node.namespace.output("env", &command, "");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let offered = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    let offered: Vec<_> = offered.map(str::to_owned).collect();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("not found"), "{shell} {words:?}: {error}");
    offered
}

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

fn every_shell_completes_commands_flags_values_and_services() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    for shell in SHELLS {
        let offered = |words: &[&str]| {
            let mut offered = completions(&shop, shell, &[], words);
            offered.sort();
            offered
        };
        let commands = offered(&[""]);
        for command in ["run", "services", "explain", "status", "top", "check"] {
            assert!(
                commands.iter().any(|one| one == command),
                "{shell}: {commands:?}"
            );
        }
        let flags = commands.iter().filter(|word| word.starts_with('-'));
        assert_eq!(flags.count(), 0, "{shell}: {commands:?}");
        assert_eq!(offered(&["exp"]), ["explain"], "{shell}");
        assert_eq!(offered(&["explain", "shop/"]), ["shop/cart"], "{shell}");
        assert_eq!(offered(&["services", "-n", "sh"]), ["shop"], "{shell}");
        assert_eq!(
            offered(&["services", "--no-e"]),
            ["--no-endpoints"],
            "{shell}"
        );
        assert_eq!(offered(&["explain", "-o", ""]), ["json", "text"], "{shell}");
        let modes = ["iptables", "ipvs", "nftables"];
        assert_eq!(offered(&["run", "--proxy-mode", ""]), modes, "{shell}");
        assert_eq!(
            offered(&["--logging-format", ""]),
            ["json", "text"],
            "{shell}"
        );
        let modes = offered(&["render", "--detect-local-mode", "N"]);
        assert_eq!(modes, ["NodeCIDR"], "{shell}");
        let flags = offered(&["--ipvs-"]);
        let without_effect = flags.iter().any(|flag| flag == "--ipvs-scheduler");
        assert!(!without_effect && flags.len() == 2, "{shell}: {flags:?}");
    }
}

fn completion_without_permission_or_tables_offers_no_service() {
    let shop = Shop::new();
    let service = ["explain", "shop/"];
    assert_eq!(completions(&shop, "bash", &[], &service), [""; 0]);
    let _daemon = shop.start(&manifests(&shop));
    let bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    assert_eq!(completions(&shop, "bash", &bare, &service), [""; 0]);
    assert_eq!(completions(&shop, "bash", &[], &service), ["shop/cart"]);
}
