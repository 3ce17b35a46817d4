//! An object of JSON as a protobuf message.

use serde_json::{Map, Value};

use super::message::{Field, Message, Presence, Type};
use super::time;
use super::wire::{data, number};

/// The content of a field whose value in JSON has another type: a varint without its end, in which
/// no decoder finds a message or a string.
const MALFORMED: &[u8] = &[0xff];

/// A value in JSON that has not the type of its field.
struct Mismatch;

/// Encodes an object; what does not fit its message becomes malformed.
pub(super) fn object(message: &Message, object: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    if encode(&mut bytes, message, object).is_err() {
        return MALFORMED.to_owned();
    }
    bytes
}

fn encode(bytes: &mut Vec<u8>, message: &Message, value: &Value) -> Result<(), Mismatch> {
    let empty = Map::new();
    let object = if value.is_null() {
        &empty
    } else {
        value.as_object().ok_or(Mismatch)?
    };
    for name in object.keys() {
        let known = message.fields.iter().any(|field| field.name == name);
        let in_envelope = ["apiVersion", "kind"].contains(&name.as_str());
        let name_of_message = message.name;
        assert!(
            known || in_envelope,
            "the table of {name_of_message} has no field {name}"
        );
    }
    for field in message.fields {
        let value = object.get(field.name).unwrap_or(&Value::Null);
        let start = bytes.len();
        if of_presence(bytes, field, value).is_err() {
            bytes.truncate(start);
            data(bytes, field.number, MALFORMED);
        }
    }
    Ok(())
}

fn of_presence(bytes: &mut Vec<u8>, field: &Field, value: &Value) -> Result<(), Mismatch> {
    match field.presence {
        Presence::Optional | Presence::Repeated if value.is_null() => Ok(()),
        Presence::Always | Presence::Optional => of_type(bytes, field, value),
        Presence::Repeated => {
            let mut values = value.as_array().ok_or(Mismatch)?.iter();
            values.try_for_each(|value| of_type(bytes, field, value))
        }
    }
}

fn of_type(bytes: &mut Vec<u8>, field: &Field, value: &Value) -> Result<(), Mismatch> {
    match field.kind {
        Type::Integer => number(bytes, field.number, integer(value)?),
        Type::Flag => number(bytes, field.number, flag(value)?.into()),
        Type::Text => data(bytes, field.number, text(value)?.as_bytes()),
        Type::Time => data(bytes, field.number, &time(value)?),
        Type::FieldsV1 => {
            let mut fields = Vec::new();
            data(&mut fields, 1, value.to_string().as_bytes());
            data(bytes, field.number, &fields);
        }
        Type::IntOrString => data(bytes, field.number, &int_or_string(value)?),
        Type::TextMap => entries(bytes, field, value, |value| Ok(text(value)?.into()))?,
        Type::QuantityMap => entries(bytes, field, value, quantity)?,
        Type::Inner(message) => {
            let mut inner = Vec::new();
            encode(&mut inner, message, value)?;
            data(bytes, field.number, &inner);
        }
    }
    Ok(())
}

fn integer(value: &Value) -> Result<i64, Mismatch> {
    if value.is_null() {
        return Ok(0);
    }
    value.as_i64().ok_or(Mismatch)
}

fn flag(value: &Value) -> Result<bool, Mismatch> {
    if value.is_null() {
        return Ok(false);
    }
    value.as_bool().ok_or(Mismatch)
}

fn text(value: &Value) -> Result<&str, Mismatch> {
    if value.is_null() {
        return Ok("");
    }
    value.as_str().ok_or(Mismatch)
}

/// Encodes a time; one that is not set is an empty message.
fn time(value: &Value) -> Result<Vec<u8>, Mismatch> {
    let mut bytes = Vec::new();
    if !value.is_null() {
        let seconds = time::seconds(text(value)?).ok_or(Mismatch)?;
        number(&mut bytes, 1, seconds);
        number(&mut bytes, 2, 0);
    }
    Ok(bytes)
}

fn int_or_string(value: &Value) -> Result<Vec<u8>, Mismatch> {
    let (kind, integer, text) = match value.as_str() {
        Some(text) => (1, 0, text),
        None => (0, integer(value)?, ""),
    };
    let mut bytes = Vec::new();
    number(&mut bytes, 1, kind);
    number(&mut bytes, 2, integer);
    data(&mut bytes, 3, text.as_bytes());
    Ok(bytes)
}

fn quantity(value: &Value) -> Result<Vec<u8>, Mismatch> {
    let mut bytes = Vec::new();
    data(&mut bytes, 1, text(value)?.as_bytes());
    Ok(bytes)
}

/// Encodes the entries of a map in the order of their keys.
fn entries(
    bytes: &mut Vec<u8>,
    field: &Field,
    map: &Value,
    encoded: impl Fn(&Value) -> Result<Vec<u8>, Mismatch>,
) -> Result<(), Mismatch> {
    for (key, value) in map.as_object().ok_or(Mismatch)? {
        let mut entry = Vec::new();
        data(&mut entry, 1, key.as_bytes());
        data(&mut entry, 2, &encoded(value)?);
        data(bytes, field.number, &entry);
    }
    Ok(())
}
