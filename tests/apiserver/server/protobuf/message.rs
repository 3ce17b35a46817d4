//! The form of the tables: a message and its fields.

/// A message, with the fields in the order of their numbers, as the real API server writes them.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

pub(super) struct Field {
    /// The name in JSON.
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) presence: Presence,
    pub(super) kind: Type,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// The field of a Go struct that is no pointer, which is also written when it is empty.
    Always,
    /// The field of a Go struct that is a pointer.
    Optional,
    Repeated,
}

#[derive(Clone, Copy)]
pub(super) enum Type {
    Text,
    Integer,
    Flag,
    /// `Time` of meta/v1.
    Time,
    /// `FieldsV1` of meta/v1: any JSON.
    FieldsV1,
    /// `IntOrString` of apimachinery/pkg/util/intstr.
    IntOrString,
    /// `map<string, string>`.
    TextMap,
    /// `map<string, Quantity>`, with `Quantity` of apimachinery/pkg/api/resource.
    QuantityMap,
    Inner(&'static Message),
}

pub(super) const fn always(name: &'static str, number: u32, kind: Type) -> Field {
    field(name, number, Presence::Always, kind)
}

pub(super) const fn optional(name: &'static str, number: u32, kind: Type) -> Field {
    field(name, number, Presence::Optional, kind)
}

pub(super) const fn repeated(name: &'static str, number: u32, kind: Type) -> Field {
    field(name, number, Presence::Repeated, kind)
}

const fn field(name: &'static str, number: u32, presence: Presence, kind: Type) -> Field {
    Field {
        name,
        number,
        presence,
        kind,
    }
}
