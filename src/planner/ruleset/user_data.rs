//! nft's user data of a set or map, which nft needs to print the declaration.

use super::{ElementType, KeyField, Set};
use crate::planner::model::addr::Family;

/// Returns a record of user data: kind, length in bytes, content.
#[expect(clippy::expect_used, reason = "the longest record has 98 bytes")]
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).expect("at most 255 bytes");
    [&[kind, len], content].concat()
}

/// Returns a record with a number.
fn number(kind: u8, value: u32) -> Vec<u8> {
    record(kind, &value.to_ne_bytes())
}

/// Returns an expression of a `typeof` (`enum expr_types`) with its parameters.
fn expression(kind: u32, parameters: &[Vec<u8>]) -> Vec<u8> {
    [number(0, kind), record(1, &parameters.concat())].concat()
}

/// Returns the expression that a `typeof` names the type of a field by.
fn typeof_field(field: KeyField, family: Family) -> Vec<u8> {
    const META: u32 = 9;
    const META_L4PROTO: u32 = 16;
    const PAYLOAD: u32 = 7;
    const NUMGEN: u32 = 23;
    let payload = |description: u32, field: u32| {
        expression(PAYLOAD, &[number(0, description), number(1, field)])
    };
    // The numbers of the protocol description and of the field in it (nftables' `src/proto.c`).
    match (field, family) {
        (KeyField::Protocol, _) => expression(META, &[number(0, META_L4PROTO)]),
        (KeyField::Address | KeyField::Net, Family::Ipv4) => payload(12, 12),
        (KeyField::Address | KeyField::Net, Family::Ipv6) => payload(13, 9),
        (KeyField::Port | KeyField::PortRange, _) => payload(11, 2),
        (KeyField::Slot, _) => {
            let parameters = [number(0, 1), number(1, 65536), number(2, 0)];
            expression(NUMGEN, &parameters)
        }
        // No map with a slot has it.
        (KeyField::Direction, _) => Vec::new(),
    }
}

/// Returns the `typeof` of a key or value with these fields, as nftables' `set_make_key` and the
/// `build_udata` of each expression write it.
fn typeof_fields(fields: &[KeyField], family: Family) -> Vec<u8> {
    const CONCAT: u32 = 13;
    match fields {
        [field] => typeof_field(*field, family),
        fields => {
            let parts = (0..).zip(fields);
            let parts: Vec<_> = parts
                .map(|(index, field)| record(index, &typeof_field(*field, family)))
                .collect();
            expression(CONCAT, &parts)
        }
    }
}

impl Set {
    /// Returns the `typeof` of a map with a slot in its key.
    fn typeof_records(&self, family: Family) -> Vec<u8> {
        const KEY_TYPEOF: u8 = 3;
        const DATA_TYPEOF: u8 = 4;
        const DATA_INTERVAL: u8 = 6;
        [
            record(KEY_TYPEOF, &typeof_fields(self.key, family)),
            record(DATA_TYPEOF, &typeof_fields(self.data.fields(), family)),
            number(DATA_INTERVAL, 0),
        ]
        .concat()
    }

    /// Returns nft's user data of the set (libnftnl's `udata`).
    ///
    /// A plain `type` has only its byte order, as nft 1.0.6 reads it. A map with a slot in its key
    /// also has the `typeof` of the declaration, without which nft cannot print an integer in a
    /// concatenation. The bytes equal those of nft 1.0.6 and 1.1.3.
    #[must_use]
    pub fn user_data(&self, family: Family) -> Vec<u8> {
        const KEY_BYTE_ORDER: u8 = 0;
        const DATA_BYTE_ORDER: u8 = 1;
        const BIG_ENDIAN: u32 = 2;
        const MIXED: u32 = 0;
        let mut bytes = Vec::new();
        let mut record = |kind: u8, order: u32| {
            bytes.extend_from_slice(&[kind, 4]);
            bytes.extend_from_slice(&order.to_ne_bytes());
        };
        record(
            KEY_BYTE_ORDER,
            match self.key {
                // A single byte has no byte order.
                [KeyField::Protocol | KeyField::Direction] => MIXED,
                [_] => BIG_ENDIAN,
                _ => MIXED,
            },
        );
        match self.data {
            ElementType::Nothing => {}
            ElementType::Address => record(DATA_BYTE_ORDER, BIG_ENDIAN),
            ElementType::Verdict | ElementType::Endpoint => record(DATA_BYTE_ORDER, MIXED),
        }
        if self.key.contains(&KeyField::Slot) {
            bytes.extend_from_slice(&self.typeof_records(family));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::ruleset::{SetName, set};

    fn hex(bytes: &[u8]) -> String {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<Vec<_>>().concat()
    }

    #[test]
    fn the_slot_maps_carry_the_typeof_that_nft_writes() {
        let written_by_nft = [
            (
                SetName::Endpoints,
                Family::Ipv4,
                "000400000000010400000000036000040d0000000158000e00040900000001060004100000000114000407000000010c00040c00000001040c0000000214000407000000010c00040b000000010402000000031a0004170000000112000401000000010400000100020400000000043400040d000000012c0014000407000000010c00040c00000001040c0000000114000407000000010c00040b000000010402000000060400000000",
            ),
            (
                SetName::Endpoints,
                Family::Ipv6,
                "000400000000010400000000036000040d0000000158000e00040900000001060004100000000114000407000000010c00040d0000000104090000000214000407000000010c00040b000000010402000000031a0004170000000112000401000000010400000100020400000000043400040d000000012c0014000407000000010c00040d0000000104090000000114000407000000010c00040b000000010402000000060400000000",
            ),
            (
                SetName::NodeportEndpoints,
                Family::Ipv4,
                "000400000000010400000000034a00040d0000000142000e00040900000001060004100000000114000407000000010c00040b000000010402000000021a0004170000000112000401000000010400000100020400000000043400040d000000012c0014000407000000010c00040c00000001040c0000000114000407000000010c00040b000000010402000000060400000000",
            ),
            (
                SetName::NodeportEndpoints,
                Family::Ipv6,
                "000400000000010400000000034a00040d0000000142000e00040900000001060004100000000114000407000000010c00040b000000010402000000021a0004170000000112000401000000010400000100020400000000043400040d000000012c0014000407000000010c00040d0000000104090000000114000407000000010c00040b000000010402000000060400000000",
            ),
            (
                SetName::RangeEndpoints,
                Family::Ipv4,
                "000400000000010402000000034a00040d0000000142000e00040900000001060004100000000114000407000000010c00040c00000001040c000000021a00041700000001120004010000000104000001000204000000000414000407000000010c00040c00000001040c000000060400000000",
            ),
            (
                SetName::RangeEndpoints,
                Family::Ipv6,
                "000400000000010402000000034a00040d0000000142000e00040900000001060004100000000114000407000000010c00040d000000010409000000021a00041700000001120004010000000104000001000204000000000414000407000000010c00040d000000010409000000060400000000",
            ),
        ];
        for (name, family, expected) in written_by_nft {
            assert_eq!(
                hex(&set(name).user_data(family)),
                expected,
                "{name} {family}"
            );
        }
    }

    #[test]
    fn a_plain_type_carries_only_its_byte_order() {
        let cases = [
            (SetName::NodeIps, "000402000000"),
            (SetName::Hairpin, "000400000000"),
            (SetName::Services, "000400000000010400000000"),
        ];
        for (name, expected) in cases {
            assert_eq!(hex(&set(name).user_data(Family::Ipv4)), expected, "{name}");
        }
    }
}
