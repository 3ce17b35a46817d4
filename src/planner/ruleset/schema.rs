//! What nft and the kernel must know of a set or map, derived from its row in [`SETS`].

use super::typeof_data::typeof_records;
use super::{SETS, SetName, SetRow};
use crate::planner::model::addr::Family;

/// One field of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyField {
    /// `inet_proto`: a protocol number.
    Protocol,
    /// `ipv4_addr` or `ipv6_addr`.
    Address,
    /// A range of addresses; the last field of an interval set.
    Net,
    /// `inet_service`: a port number.
    Port,
    /// `numgen random mod 65536`: a slot.
    Slot,
    /// `ct_dir`: the direction of a connection.
    Direction,
}

/// What an element carries besides its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// Nothing: it is a set.
    Nothing,
    /// What to do with the packet.
    Verdict,
    /// An endpoint: address and port.
    Endpoint,
}

/// A set or map as it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// The fields of its key, concatenated if there are several.
    pub key: &'static [KeyField],
    /// What its elements carry.
    pub data: ElementType,
    /// How many elements packets can add to it.
    pub dynamic: Option<u32>,
    /// Whether each element counts the packets that match it.
    pub counter: bool,
}

/// The declaration of a set or map.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "a test holds that each set has a row"
)]
#[expect(clippy::expect_used, reason = "a test holds that each set has a row")]
pub fn set(name: SetName) -> Set {
    let named = |row: &&SetRow| row.names.iter().any(|(own, _)| *own == name);
    let row = SETS.iter().find(named).expect("a row for each set");
    Set {
        name,
        key: row.key,
        data: row.data,
        dynamic: row.dynamic,
        counter: row.counter,
    }
}

impl KeyField {
    /// nft's number of the type (`enum datatypes` of nftables' `include/datatype.h`).
    fn type_number(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Slot, _) => 4,
            (Self::Address | Self::Net, Family::Ipv4) => 7,
            (Self::Address | Self::Net, Family::Ipv6) => 8,
            (Self::Protocol, _) => 12,
            (Self::Port, _) => 13,
            (Self::Direction, _) => 27,
        }
    }

    fn type_name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Slot, _) => "integer",
            (Self::Address | Self::Net, Family::Ipv4) => "ipv4_addr",
            (Self::Address | Self::Net, Family::Ipv6) => "ipv6_addr",
            (Self::Protocol, _) => "inet_proto",
            (Self::Port, _) => "inet_service",
            (Self::Direction, _) => "ct_dir",
        }
    }

    /// Bytes of the field alone; in a concatenation each field takes whole registers of 4 bytes.
    pub(crate) fn len(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Protocol | Self::Direction, _) => 1,
            (Self::Port, _) => 2,
            (Self::Slot, _) | (Self::Address | Self::Net, Family::Ipv4) => 4,
            (Self::Address | Self::Net, Family::Ipv6) => 16,
        }
    }
}

/// nft's number of a concatenation: six bits a field.
fn concatenated_type(fields: &[KeyField], family: Family) -> u32 {
    fields
        .iter()
        .fold(0, |number, field| number << 6 | field.type_number(family))
}

fn concatenated_len(fields: &[KeyField], family: Family) -> u32 {
    match fields {
        [field] => field.len(family),
        fields => fields
            .iter()
            .map(|field| field.len(family).next_multiple_of(4))
            .sum(),
    }
}

impl Set {
    /// Whether its keys are, or end in, ranges (`flags interval`).
    #[must_use]
    pub fn is_interval(&self) -> bool {
        self.key.contains(&KeyField::Net)
    }

    /// Whether its keys are ranges and nothing else: the kernel has two elements for each.
    #[must_use]
    pub fn is_ranges(&self) -> bool {
        self.key == [KeyField::Net]
    }

    /// nft's number of the key's type.
    #[must_use]
    pub fn key_type(&self, family: Family) -> u32 {
        concatenated_type(self.key, family)
    }

    /// Bytes of a key.
    #[must_use]
    pub fn key_len(&self, family: Family) -> u32 {
        concatenated_len(self.key, family)
    }

    /// nft's number of an endpoint's type.
    #[must_use]
    pub fn endpoint_type(family: Family) -> u32 {
        concatenated_type(&[KeyField::Address, KeyField::Port], family)
    }

    /// Bytes of an endpoint.
    #[must_use]
    pub fn endpoint_len(family: Family) -> u32 {
        concatenated_len(&[KeyField::Address, KeyField::Port], family)
    }

    /// The declaration's lines after its name, as nft prints them.
    #[must_use]
    pub(super) fn declaration(&self, family: Family) -> String {
        let ip = super::statement::layer(family);
        if self.key.contains(&KeyField::Slot) {
            let address = if self.key.contains(&KeyField::Address) {
                format!(" . {ip} daddr")
            } else {
                String::new()
            };
            return format!(
                "typeof meta l4proto{address} . th dport . numgen random mod 65536 : {ip} daddr . th dport"
            );
        }
        let key: Vec<_> = self
            .key
            .iter()
            .map(|field| field.type_name(family))
            .collect();
        let data = match self.data {
            ElementType::Nothing => "",
            ElementType::Verdict => " : verdict",
            ElementType::Endpoint => {
                return format!(
                    "type {} : {} . inet_service",
                    key.join(" . "),
                    KeyField::Address.type_name(family)
                );
            }
        };
        format!("type {}{data}", key.join(" . "))
    }

    /// What nft keeps beside a set so that it can print it again (libnftnl's `udata`).
    ///
    /// A plain `type` gets only its byte order, as nft 1.0.6 reads it; the maps with a slot in
    /// their key get the `typeof` of the declaration, without which nft cannot print an integer
    /// in a concatenation. The bytes are those of nft 1.0.6 and 1.1.3.
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
                // One byte has no order.
                [KeyField::Protocol | KeyField::Direction] => MIXED,
                [_] => BIG_ENDIAN,
                _ => MIXED,
            },
        );
        if self.data != ElementType::Nothing {
            record(DATA_BYTE_ORDER, MIXED);
        }
        if self.key.contains(&KeyField::Slot) {
            bytes.extend_from_slice(&typeof_records(
                self.key.contains(&KeyField::Address),
                family,
            ));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::ruleset::SetName;

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
    fn each_set_has_one_row_and_one_name() {
        let names: std::collections::BTreeSet<_> = SetName::all().map(SetName::as_str).collect();
        assert_eq!(names.len(), SetName::all().count());
        for name in SetName::all() {
            assert_eq!(set(name).name, name);
            assert_eq!(SetName::parse(name.as_str()), Some(name));
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
