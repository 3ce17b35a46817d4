//! A value of YAML or JSON before its type is known: fields in their order, also those that are
//! written twice.
//!
//! In a manifest `kind` may come last, and an object of the wrong shape must not cost the ones after
//! it; of the configuration, what kube-proxy's lenient decoder passes over is named.

mod decode;
mod read;

use std::borrow::Cow;

use serde::de::DeserializeOwned;

pub(crate) use decode::DecodeError;

/// A value; it borrows its text from the input where it can.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Yaml<'a> {
    /// Null, and a document that is empty.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// A whole number that is too large for `Whole`.
    Large(u64),
    /// Any other number.
    Real(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Yaml<'a>>),
    /// An object: its fields in their order.
    Fields(Vec<(Cow<'a, str>, Yaml<'a>)>),
}

impl<'a> Yaml<'a> {
    /// The fields of an object; nothing else has any.
    pub(crate) fn fields(&self) -> &[(Cow<'a, str>, Self)] {
        if let Self::Fields(fields) = self {
            fields
        } else {
            &[]
        }
    }

    /// The first value of a field.
    pub(crate) fn field(&self, key: &str) -> Option<&Self> {
        let (_, value) = self.fields().iter().find(|(name, _)| name == key)?;
        Some(value)
    }

    /// The value, if it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The value, if it is text.
    pub(crate) fn into_text(self) -> Option<Cow<'a, str>> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The value as a type of its own.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        T::deserialize(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parsed(yaml: &str) -> Yaml<'_> {
        yaml_serde::from_str(yaml).unwrap()
    }

    #[test]
    fn a_value_decodes_as_its_text_would() {
        let yaml = "{a: [1, 2], b: [], 7: [9], c: !tag [-3]}";
        let decoded: BTreeMap<String, Vec<i64>> = parsed(yaml).decode().unwrap();
        let expected = [("a", vec![1, 2]), ("b", vec![]), ("c", vec![-3])];
        assert_eq!(
            decoded,
            expected.map(|(key, list)| (key.to_owned(), list)).into()
        );
    }

    #[test]
    fn plain_text_is_borrowed_from_the_file() {
        let value = parsed("name: cart");
        let name = value.field("name");
        assert!(
            matches!(name, Some(Yaml::Text(Cow::Borrowed("cart")))),
            "{name:?}"
        );
    }

    #[test]
    fn an_error_names_the_path_of_the_field() {
        type Nested = BTreeMap<String, Vec<BTreeMap<String, i64>>>;
        for (yaml, expected) in [
            (
                "{ports: [{port: 1}, {port: http}]}",
                "ports[1].port: invalid type: string \"http\", expected i64",
            ),
            (
                "{ports: 80}",
                "ports: invalid type: integer `80`, expected a sequence",
            ),
            ("80", "invalid type: integer `80`, expected a map"),
            (
                "{ports: [{port: 99999999999999999999}]}",
                "ports[0].port: invalid type: floating point `inf`, expected i64",
            ),
        ] {
            let error = parsed(yaml).decode::<Nested>().unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
    #[test]
    fn what_json_cannot_hold_is_rejected_or_ignored() {
        for (yaml, expected) in [
            ("a: !tag b", "a: invalid type: enum, "),
            (
                "a: .inf",
                "a: a number that is infinite or none at line 1 column 4",
            ),
            (
                "a: 99999999999999999999",
                "a: invalid type: integer `99999999999999999999` as u128, ",
            ),
            ("[a]: b", "invalid type: sequence, expected a string"),
        ] {
            let error = Yaml::strict(yaml_serde::Deserializer::from_str(yaml)).unwrap_err();
            let said = error.to_string();
            assert!(said.starts_with(expected), "{said}");
            parsed(yaml);
        }
        let large = parsed("18446744073709551615");
        assert_eq!(large, Yaml::Large(u64::MAX));
        assert_eq!(large.decode::<u64>().unwrap(), u64::MAX);
    }
}
