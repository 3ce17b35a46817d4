//! The syntax of flags and their values, as in kube-proxy (`pflag`).

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{Setting, Support};

/// Parsed flags, and the names of those that the command line contains.
///
/// As in kube-proxy (`pflag`), the last of repeated flags wins, a switch is `--switch`,
/// `--switch=true` or `--switch=false`, and a number can be negative.
#[derive(Debug)]
pub(in crate::commands) struct GivenFlags<T> {
    /// The parsed flags.
    pub(in crate::commands) flags: T,
    /// The names of the given flags, without dashes. Only kube-proxy's flags are listed.
    pub(in crate::commands) names: Vec<String>,
}

/// Returns the names of kube-proxy's flags that the command line contains.
fn given_names(matches: &ArgMatches) -> Vec<String> {
    matches
        .ids()
        .map(clap::Id::as_str)
        .filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine))
        .map(|id| id.replace('_', "-"))
        // Drops the groups of clap and kube-dnat's own flags.
        .filter(|name| Setting::of_flag(name).is_some())
        .collect()
}

impl<T: FromArgMatches> FromArgMatches for GivenFlags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        let names = given_names(matches);
        let flags = T::from_arg_matches_mut(matches)?;
        Ok(Self { flags, names })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.names.extend(given_names(matches));
        self.flags.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for GivenFlags<T> {
    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
            .args_override_self(true)
            .mut_args(with_pflag_syntax)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
            .args_override_self(true)
            .mut_args(with_pflag_syntax)
    }
}

/// Gives a flag the syntax that it has in kube-proxy, and hides it from the help if it has no
/// effect. docs/configuration.md lists all of them.
fn with_pflag_syntax(flag: Arg) -> Arg {
    let setting = flag.get_long().and_then(Setting::of_flag);
    let has_no_effect = setting.is_some_and(|setting| setting.support == Support::NoEffect);
    let flag = flag.hide(has_no_effect);
    let is_switch = flag
        .get_value_names()
        .is_some_and(|names| names.iter().any(|name| name == SWITCH));
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

/// The value name that marks a flag as a switch.
pub(in crate::commands) const SWITCH: &str = "true|false";

/// Parses a boolean like Go's `strconv.ParseBool`.
pub(in crate::commands) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// Parses a feature gate and whether it is enabled: `Name=true`.
pub(super) fn gate(text: &str) -> Result<(String, bool), String> {
    let (name, enabled) = pair(text).ok_or("not of the form Name=true or Name=false")?;
    Ok((name.to_owned(), switch(enabled)?))
}

/// Parses an element of `--vmodule`, a file pattern and a verbosity: `pattern=2`.
pub(super) fn module(text: &str) -> Result<(String, u32), String> {
    let expected = "not of the form pattern=N";
    let (pattern, verbosity) = pair(text).ok_or(expected)?;
    let verbosity = verbosity.parse().map_err(|_error| expected)?;
    Ok((pattern.to_owned(), verbosity))
}

/// Splits `name=value` into two texts that are not empty.
fn pair(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}
