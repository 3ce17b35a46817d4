//! Parsers for the values of flags, with Go's syntax.

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
