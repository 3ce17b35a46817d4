//! Shell completion: `kube-dnat completions` prints a script that asks the program at each Tab.
//!
//! The program then knows the names of Services, and offers flags only after a dash.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, CompletionCandidate, Shell};

use super::{CommandLine, output};
use crate::netlink::Kernel;
use crate::planner::model::Address;
use crate::planner::ruleset::{SetName, service_and_port};

/// The environment variable with which the scripts ask for completions.
const VARIABLE: &str = "KUBE_DNAT_COMPLETE";

/// The environment variable that has the position of the word to complete. fish does not set it: there
/// the word is the last.
const POSITION: &str = "_CLAP_COMPLETE_INDEX";

/// The arguments of `kube-dnat completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "The script asks this program at each Tab, and offers the names of Services if it may read them.\n\n\
    Examples:\n  \
    kube-dnat completions bash > /usr/share/bash-completion/completions/kube-dnat\n  \
    kube-dnat completions zsh > \"${fpath[1]}/_kube-dnat\"\n  \
    kube-dnat completions fish > ~/.config/fish/completions/kube-dnat.fish"
)]
pub(super) struct Completions {
    /// Shell to generate the script for.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let name = CommandLine::command().get_name().to_owned();
        let shell = self.shell.to_string();
        let mut script = Vec::new();
        if let Some(completer) = Shells::builtins().completer(&shell) {
            completer.write_registration(VARIABLE, &name, &name, &name, &mut script)?;
        }
        output::print(&script)
    }
}

/// Answers a script that asks for completions. Returns `None` if none does.
pub(super) fn complete() -> Option<ExitCode> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let has_dash = completed_word(&arguments).is_some_and(starts_with_dash);
    let directory = std::env::current_dir().ok();
    let answer = CompleteEnv::with_factory(|| command(has_dash))
        .var(VARIABLE)
        .try_complete(arguments, directory.as_deref());
    match answer {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        // The shell shows no error of a completion.
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// Returns the word to complete. The words follow `--`, from the name of the program on.
fn completed_word(arguments: &[OsString]) -> Option<&OsStr> {
    let separator = arguments.iter().position(|argument| argument == "--")?;
    let words = arguments.get(separator + 1..)?;
    let position = std::env::var(POSITION).ok();
    let position = position.and_then(|position| position.parse::<usize>().ok());
    let word = match position {
        Some(position) => words.get(position),
        None => words.last(),
    };
    word.map(OsString::as_os_str)
}

/// Returns whether a word is the beginning of a flag.
fn starts_with_dash(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// Returns the command line to complete. Without a dash, its flags are hidden: the engine offers hidden
/// words only where there are no others.
fn command(has_dash: bool) -> Command {
    let mut command = CommandLine::command();
    // Adds --help and --version.
    command.build();
    if has_dash {
        return command;
    }
    let hide = |command: Command| {
        command.mut_args(|flag| {
            let is_positional = flag.is_positional();
            flag.hide(!is_positional)
        })
    };
    hide(command).mut_subcommands(hide)
}

/// Offers the Services in the kernel that begin with a word; none without permission.
pub(super) fn services(word: &OsStr) -> Vec<CompletionCandidate> {
    candidates(word, |service| service)
}

/// Offers the namespaces of Services in the kernel that begin with a word; none without permission.
pub(super) fn namespaces(word: &OsStr) -> Vec<CompletionCandidate> {
    candidates(word, |service| {
        service.split_once('/').unwrap_or_default().0
    })
}

/// Offers a part of the names of Services that begins with a word.
fn candidates(word: &OsStr, part: fn(&str) -> &str) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else {
        return Vec::new();
    };
    let mut names = BTreeSet::new();
    if let Ok(mut kernel) = Kernel::open() {
        collect::<Ipv4Addr>(&mut kernel, &mut names);
        collect::<Ipv6Addr>(&mut kernel, &mut names);
    }
    let parts: BTreeSet<_> = names.iter().map(|name| part(name)).collect();
    let matching = parts.into_iter().filter(|name| name.starts_with(word));
    matching.map(CompletionCandidate::new).collect()
}

/// Collects the names of Services in the table of family `A`.
fn collect<A: Address>(kernel: &mut Kernel, names: &mut BTreeSet<String>) {
    for set in SetName::OF_FRONTENDS {
        // Without permission or tables there are no names.
        let _unreadable = kernel.dump_elements::<A>(set, |element, _| {
            let name = element.comment.as_deref().unwrap_or_default();
            let (service, _) = service_and_port(name);
            if service.contains('/') {
                names.insert(service.to_owned());
            }
        });
    }
}

/// Returns the candidates for a flag with these values, which the flag does not enforce.
pub(super) fn values<const N: usize>(
    values: [&'static str; N],
) -> impl Fn() -> Vec<CompletionCandidate> + Clone {
    move || values.into_iter().map(CompletionCandidate::new).collect()
}
