//! Flags with kube-proxy's syntax, and which of them were given.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use super::value;
use crate::config::Setting;

/// Flags, and the names of those that the command line has.
///
/// As with kube-proxy's (`pflag`): a flag that is given again takes the place of the first, a switch
/// is `--switch`, `--switch=true` or `--switch=false`, and a number may be below zero.
#[derive(Debug)]
pub(in crate::commands) struct GivenFlags<T> {
    /// The flags.
    pub(in crate::commands) flags: T,
    /// Without dashes.
    pub(in crate::commands) names: Vec<String>,
}

fn names(matches: &ArgMatches) -> Vec<String> {
    let ids = matches.ids().map(clap::Id::as_str);
    let given = ids.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
    let names = given.map(|id| id.replace('_', "-"));
    // The rest are clap's groups, and flags that are not kube-proxy's.
    names
        .filter(|name| Setting::of_flag(name).is_some())
        .collect()
}

impl<T: FromArgMatches> FromArgMatches for GivenFlags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        let names = names(matches);
        let flags = T::from_arg_matches_mut(matches)?;
        Ok(Self { flags, names })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.names.extend(names(matches));
        self.flags.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for GivenFlags<T> {
    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
            .args_override_self(true)
            .mut_args(as_kube_proxy)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
            .args_override_self(true)
            .mut_args(as_kube_proxy)
    }
}

fn as_kube_proxy(flag: Arg) -> Arg {
    let is_switch = flag
        .get_value_names()
        .is_some_and(|names| names.iter().any(|name| name == value::SWITCH));
    if is_switch {
        flag.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else if matches!(flag.get_action(), ArgAction::Set | ArgAction::Append) {
        flag.allow_negative_numbers(true)
    } else {
        flag
    }
}
