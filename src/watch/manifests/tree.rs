//! One object of a manifest as it stands there, before its type is known: `kind` may come last, and
//! an object of the wrong shape must not cost the ones after it. It lives for one object only and
//! borrows its text from the file.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny,
    IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// A value of JSON, which is what Kubernetes takes YAML for.
#[derive(Debug)]
pub(super) enum Tree<'a> {
    Null,
    Bool(bool),
    Whole(i64),
    Real(f64),
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    Map(Vec<(Cow<'a, str>, Tree<'a>)>),
}

impl<'a> Tree<'a> {
    /// The value of field `key`.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        let Self::Map(fields) = self else {
            return None;
        };
        let (_, value) = fields.iter().find(|(name, _)| name == key)?;
        Some(value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    pub(super) fn into_text(self) -> Option<Cow<'a, str>> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        T::deserialize(self)
    }
}

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree<'de>, E> {
        Ok(Tree::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree<'de>, E> {
        Ok(i64::try_from(value).map_or(Tree::Real(f64::INFINITY), Tree::Whole))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree<'de>, E> {
        Ok(Tree::Real(f64::INFINITY))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree<'de>, E> {
        Ok(Tree::Real(f64::INFINITY))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree<'de>, E> {
        Ok(Tree::Real(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text)))
    }

    /// A value with a YAML tag of its own, which means nothing here.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Tree<'de>, A::Error> {
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    /// A key that is no text belongs to none of our fields.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<Tree, Tree>()? {
            fields.extend(key.into_text().map(|key| (key, value)));
        }
        Ok(Tree::Map(fields))
    }
}

/// Why a tree is not of the shape that its kind asks for.
#[derive(Debug, Default)]
pub(super) struct DecodeError {
    /// Keys and indexes from the innermost outwards.
    path: Vec<String>,
    message: String,
}

impl DecodeError {
    fn within(mut self, step: String) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        match path.strip_prefix('.') {
            Some(path) => write!(f, "{path}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            ..Self::default()
        }
    }
}

impl<'de> Deserializer<'de> for &Tree<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::Whole(value) => visitor.visit_i64(*value),
            Tree::Real(value) => visitor.visit_f64(*value),
            Tree::Text(text) => visitor.visit_str(text),
            Tree::List(values) => visitor.visit_seq(Elements {
                values: values.iter().enumerate(),
            }),
            Tree::Map(fields) => visitor.visit_map(Fields {
                fields: fields.iter(),
                current: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Tree::Null = self {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

struct Elements<I> {
    values: I,
}

impl<'de, 't, 'a: 't, I> SeqAccess<'de> for Elements<I>
where
    I: Iterator<Item = (usize, &'t Tree<'a>)>,
{
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some((index, value)) = self.values.next() else {
            return Ok(None);
        };
        seed.deserialize(value)
            .map(Some)
            .map_err(|error| error.within(format!("[{index}]")))
    }
}

struct Fields<'t, 'a, I> {
    fields: I,
    current: Option<(&'t str, &'t Tree<'a>)>,
}

impl<'de, 't, 'a: 't, I> MapAccess<'de> for Fields<'t, 'a, I>
where
    I: Iterator<Item = &'t (Cow<'a, str>, Tree<'a>)>,
{
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some((key, value)) = self.fields.next() else {
            return Ok(None);
        };
        self.current = Some((key, value));
        let key: StrDeserializer<'_, DecodeError> = (&**key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let (key, value) = self
            .current
            .take()
            .ok_or_else(|| de::Error::custom("a value without a key"))?;
        seed.deserialize(value)
            .map_err(|error| error.within(format!(".{key}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tree(yaml: &str) -> Tree<'_> {
        yaml_serde::from_str(yaml).unwrap()
    }

    #[test]
    fn a_tree_decodes_as_its_text_would() {
        let yaml = "{a: [1, 2], b: [], 7: [9], c: !tag [-3]}";
        let decoded: BTreeMap<String, Vec<i64>> = tree(yaml).decode().unwrap();
        let expected = [("a", vec![1, 2]), ("b", vec![]), ("c", vec![-3])];
        assert_eq!(
            decoded,
            expected.map(|(key, list)| (key.to_owned(), list)).into()
        );
    }

    #[test]
    fn plain_text_is_borrowed_from_the_file() {
        let tree = tree("name: cart");
        let name = tree.field("name");
        assert!(
            matches!(name, Some(Tree::Text(Cow::Borrowed("cart")))),
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
            let error = tree(yaml).decode::<Nested>().unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
