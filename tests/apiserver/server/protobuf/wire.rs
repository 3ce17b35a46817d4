//! The wire format of protobuf: tags, varints and fields with a length.

/// Wire types.
const VARINT: u32 = 0;
const LENGTH: u32 = 2;

pub(super) fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while let Some(rest) = (value >= 0x80).then_some(value >> 7) {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value = rest;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Writes a field of type int32, int64 or bool.
pub(super) fn number(bytes: &mut Vec<u8>, field: u32, value: i64) {
    varint(bytes, (field << 3 | VARINT).into());
    varint(bytes, value.cast_unsigned());
}

/// Writes a string, bytes or a message.
pub(super) fn data(bytes: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(bytes, (field << 3 | LENGTH).into());
    varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}
