//! Reads a YAML value from the input of serde.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::Yaml;

/// How to read values that YAML can represent and JSON cannot: numbers beyond 64 bits, tags, and
/// keys that are not texts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BeyondJson {
    /// They are errors, with line and column.
    Rejected,
    /// Such a number is infinite, a tag is ignored, and a field with such a key is dropped.
    Ignored,
}

impl<'de> Yaml<'de> {
    /// Reads a value that JSON can represent.
    pub(crate) fn strict<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BeyondJson::Rejected.deserialize(deserializer)
    }
}

/// Reads any YAML value.
impl<'de> Deserialize<'de> for Yaml<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BeyondJson::Ignored.deserialize(deserializer)
    }
}

impl<'de> DeserializeSeed<'de> for BeyondJson {
    type Value = Yaml<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl BeyondJson {
    /// Reads a whole number of more than 64 bits.
    fn huge<'de, E: Error>(self, what: &str) -> Result<Yaml<'de>, E> {
        match self {
            Self::Rejected => Err(E::invalid_type(Unexpected::Other(what), &self)),
            Self::Ignored => Ok(Yaml::Real(f64::INFINITY)),
        }
    }
}

impl<'de> Visitor<'de> for BeyondJson {
    type Value = Yaml<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML or JSON document")
    }

    fn visit_unit<E>(self) -> Result<Yaml<'de>, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml<'de>, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml<'de>, E> {
        Ok(Yaml::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml<'de>, E> {
        Ok(Yaml::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml<'de>, E> {
        Ok(i64::try_from(value).map_or(Yaml::Large(value), Yaml::Whole))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Yaml<'de>, E> {
        self.huge(&format!("integer `{value}` as i128"))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Yaml<'de>, E> {
        self.huge(&format!("integer `{value}` as u128"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Yaml<'de>, E> {
        if self == Self::Rejected && !value.is_finite() {
            return Err(E::custom("a number that is infinite or NaN"));
        }
        Ok(Yaml::Real(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Yaml<'de>, E> {
        Ok(Yaml::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Yaml<'de>, E> {
        Ok(Yaml::Text(Cow::Borrowed(text)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Yaml<'de>, A::Error> {
        if self == Self::Rejected {
            return Err(A::Error::invalid_type(Unexpected::Enum, &self));
        }
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant_seed(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Yaml<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Yaml::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml<'de>, A::Error> {
        let mut fields = Vec::new();
        match self {
            Self::Rejected => {
                while let Some(key) = map.next_key::<String>()? {
                    fields.push((Cow::Owned(key), map.next_value_seed(self)?));
                }
            }
            Self::Ignored => {
                while let Some((key, value)) = map.next_entry::<Yaml, Yaml>()? {
                    fields.extend(key.into_text().map(|key| (key, value)));
                }
            }
        }
        Ok(Yaml::Fields(fields))
    }
}
