//! Label and field selectors.

/// A comma separated list of requirements, which all must hold.
#[derive(Default)]
pub(crate) struct Selector(Vec<(String, Requirement)>);

enum Requirement {
    Exists,
    Missing,
    Is(String),
    IsNot(String),
}

impl Selector {
    /// Parses a selector; `None` if its form is not supported.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts.map(requirement).collect::<Option<_>>().map(Self)
    }

    /// Returns the labels or fields that the selector names.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Returns whether all requirements hold for the values of labels or fields.
    pub(crate) fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|(key, requirement)| {
            let value = value(key);
            match requirement {
                Requirement::Exists => value.is_some(),
                Requirement::Missing => value.is_none(),
                Requirement::Is(wanted) => value == Some(wanted),
                Requirement::IsNot(unwanted) => value != Some(unwanted),
            }
        })
    }
}

fn requirement(text: &str) -> Option<(String, Requirement)> {
    let (key, requirement) = if let Some((key, value)) = text.split_once("!=") {
        (key, Requirement::IsNot(value.to_owned()))
    } else if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        (key, Requirement::Is(value.to_owned()))
    } else if let Some(key) = text.strip_prefix('!') {
        (key, Requirement::Missing)
    } else {
        (text, Requirement::Exists)
    };
    let known = |c: char| c.is_ascii_alphanumeric() || "./-_".contains(c);
    key.chars()
        .all(known)
        .then(|| (key.to_owned(), requirement))
}
