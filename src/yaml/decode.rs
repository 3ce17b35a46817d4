//! Decodes a YAML value into a type. An error names the path of the field.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::Yaml;

/// The reason why a value cannot be decoded into a type.
#[derive(Debug, Default)]
pub(crate) struct DecodeError {
    /// The keys and indexes of the path, innermost first.
    path: Vec<String>,
    /// The problem at this path.
    message: String,
}

impl DecodeError {
    /// Adds the key or index that contains the value of the error.
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

impl<'de> Deserializer<'de> for &Yaml<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Yaml::Null => visitor.visit_unit(),
            Yaml::Bool(value) => visitor.visit_bool(*value),
            Yaml::Whole(value) => visitor.visit_i64(*value),
            Yaml::Large(value) => visitor.visit_u64(*value),
            Yaml::Real(value) => visitor.visit_f64(*value),
            Yaml::Text(text) => visitor.visit_str(text),
            Yaml::List(values) => visitor.visit_seq(Elements {
                values: values.iter().enumerate(),
            }),
            Yaml::Fields(fields) => visitor.visit_map(Fields {
                fields: fields.iter(),
                current: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Yaml::Null = self {
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

/// The elements of a list, as input of serde.
struct Elements<I> {
    /// The remaining elements with their indexes.
    values: I,
}

impl<'de, 't, 'a: 't, I> SeqAccess<'de> for Elements<I>
where
    I: Iterator<Item = (usize, &'t Yaml<'a>)>,
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

/// The fields of an object, as input of serde.
struct Fields<'t, 'a, I> {
    /// The remaining fields.
    fields: I,
    /// The field whose key was decoded last.
    current: Option<(&'t str, &'t Yaml<'a>)>,
}

impl<'de, 't, 'a: 't, I> MapAccess<'de> for Fields<'t, 'a, I>
where
    I: Iterator<Item = &'t (Cow<'a, str>, Yaml<'a>)>,
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
