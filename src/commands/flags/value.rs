//! Values of flags, as Go reads them.

/// The name of a switch's value.
pub(in crate::commands) const SWITCH: &str = "true|false";

/// `strconv.ParseBool`.
pub(in crate::commands) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// A gate and whether it is open: `Name=true`.
pub(super) fn gate(text: &str) -> Result<(String, bool), String> {
    let (name, open) = pair(text).ok_or("not of the form Name=true or Name=false")?;
    Ok((name.to_owned(), switch(open)?))
}

/// A pattern and a verbosity: `pattern=2`.
pub(super) fn module(text: &str) -> Result<(String, u32), String> {
    let expected = "not of the form pattern=N";
    let (pattern, verbosity) = pair(text).ok_or(expected)?;
    let verbosity = verbosity.parse().map_err(|_error| expected)?;
    Ok((pattern.to_owned(), verbosity))
}

fn pair(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}
