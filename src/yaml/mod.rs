//! A YAML or JSON value before its type is known. Objects keep the order of their fields, and
//! duplicate fields.
//!
//! In a manifest, `kind` can come last, and an invalid object must not affect the following
//! objects. In the configuration, the fields that kube-proxy's lenient decoder ignores are
//! reported.

mod decode;
mod read;

use std::borrow::Cow;

use serde::de::DeserializeOwned;

pub(crate) use decode::DecodeError;

/// A YAML value. It borrows texts from the input where possible.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Yaml<'a> {
    /// Null, or an empty document.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// A whole number that does not fit into `Whole`.
    Large(u64),
    /// Any other number.
    Real(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Yaml<'a>>),
    /// The fields of an object, in their order.
    Fields(Vec<(Cow<'a, str>, Yaml<'a>)>),
}

impl<'a> Yaml<'a> {
    /// Returns the fields of an object. Other values have none.
    pub(crate) fn fields(&self) -> &[(Cow<'a, str>, Self)] {
        if let Self::Fields(fields) = self {
            fields
        } else {
            &[]
        }
    }

    /// Returns the first value of a field.
    pub(crate) fn field(&self, key: &str) -> Option<&Self> {
        let (_, value) = self.fields().iter().find(|(name, _)| name == key)?;
        Some(value)
    }

    /// Returns the value if it is a text.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// Converts the value if it is a text.
    pub(crate) fn into_text(self) -> Option<Cow<'a, str>> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// Decodes the value into a type.
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
    fn a_value_decodes_like_its_text() {
        let yaml = "{a: [1, 2], b: [], 7: [9], c: !tag [-3]}";
        let decoded: BTreeMap<String, Vec<i64>> = parsed(yaml).decode().unwrap();
        let expected = [("a", vec![1, 2]), ("b", vec![]), ("c", vec![-3])];
        assert_eq!(
            decoded,
            expected.map(|(key, list)| (key.to_owned(), list)).into()
        );
    }

    #[test]
    fn plain_text_is_borrowed_from_the_input() {
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
    fn values_that_json_cannot_represent_are_rejected_or_ignored() {
        for (yaml, expected) in [
            ("a: !tag b", "a: invalid type: enum, "),
            (
                "a: .inf",
                "a: a number that is infinite or NaN at line 1 column 4",
            ),
            (
                "a: 99999999999999999999",
                "a: invalid type: integer `99999999999999999999` as u128, ",
            ),
            ("[a]: b", "invalid type: sequence, expected a string"),
        ] {
            let error = Yaml::strict(yaml_serde::Deserializer::from_str(yaml)).unwrap_err();
            let message = error.to_string();
            assert!(message.starts_with(expected), "{message}");
            parsed(yaml);
        }
        let large = parsed("18446744073709551615");
        assert_eq!(large, Yaml::Large(u64::MAX));
        assert_eq!(large.decode::<u64>().unwrap(), u64::MAX);
    }
}
