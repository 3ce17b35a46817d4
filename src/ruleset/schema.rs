//! What the keys and values of each set and map are.

use super::SetName;
use crate::model::addr::Family;

/// One field of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyField {
    /// `inet_proto`: a protocol number.
    Protocol,
    /// `ipv4_addr` or `ipv6_addr`.
    Address,
    /// `inet_service`: a port number.
    Port,
    /// `numgen random mod 65536`: a slot.
    Slot,
}

/// What an element carries besides its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
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
    pub data: Data,
    /// Whether its keys are, or end in, ranges (`flags interval`).
    pub interval: bool,
    /// Whether packets add elements to it, which time out; how many there can be.
    pub dynamic: Option<u32>,
    /// Whether each element counts the packets that match it.
    pub counter: bool,
}

/// How many (client, frontend) pairs are remembered, of each protocol and family. A set without a
/// size would take 65,535 (`nft_dynset` in the kernel); this one takes memory as it fills.
pub const AFFINITY_SIZE: u32 = 1 << 20;

/// The declaration of a set or map.
#[must_use]
pub fn set(name: SetName) -> Set {
    use KeyField::{Address, Port, Protocol, Slot};
    let (key, data): (&'static [KeyField], Data) = match name {
        SetName::PodCidrs | SetName::ServiceCidrs | SetName::NodeIps | SetName::ClusterIps => {
            (&[Address], Data::Nothing)
        }
        SetName::Endpoints => (&[Protocol, Address, Port, Slot], Data::Endpoint),
        SetName::NodeportEndpoints => (&[Protocol, Port, Slot], Data::Endpoint),
        SetName::Services
        | SetName::ServicesWide
        | SetName::ServicesNodeLocal
        | SetName::NoEndpoints => (&[Protocol, Address, Port], Data::Verdict),
        SetName::Nodeports
        | SetName::NodeportsWide
        | SetName::NodeportsNodeLocal
        | SetName::NoEndpointsNodeports => (&[Protocol, Port], Data::Verdict),
        SetName::Affinity(_) => (&[Address, Address, Port], Data::Endpoint),
        SetName::AffinityFull => (&[Protocol], Data::Nothing),
        SetName::Sticky(_) => (&[Address, Port], Data::Verdict),
        SetName::StickyNodeport(_) => (&[Port], Data::Verdict),
        SetName::SourceRangesChecked => (&[Protocol, Address, Port], Data::Nothing),
        // A lookup costs what the first field leaves to look at (`nft_set_pipapo.c`): an address
        // leaves the few ranges of its Service, a protocol would leave those of all.
        SetName::SourceRanges => (&[Address, Protocol, Port, Address], Data::Nothing),
        SetName::Hairpin => (&[Address, Address], Data::Nothing),
        SetName::Masquerade(_) | SetName::MasqueradeNode(_) => (&[Address, Port], Data::Nothing),
        SetName::MasqueradeNodeport(_) | SetName::MasqueradeNodeNodeport(_) => {
            (&[Port], Data::Nothing)
        }
    };
    Set {
        name,
        key,
        data,
        interval: matches!(
            name,
            SetName::PodCidrs | SetName::ServiceCidrs | SetName::SourceRanges
        ),
        dynamic: matches!(name, SetName::Affinity(_)).then_some(AFFINITY_SIZE),
        counter: matches!(
            name,
            SetName::Services | SetName::Nodeports | SetName::AffinityFull
        ),
    }
}

impl KeyField {
    /// nft's number of the type (`enum datatypes` of nftables' `include/datatype.h`).
    fn type_number(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Slot, _) => 4,
            (Self::Address, Family::Ipv4) => 7,
            (Self::Address, Family::Ipv6) => 8,
            (Self::Protocol, _) => 12,
            (Self::Port, _) => 13,
        }
    }

    fn type_name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Slot, _) => "integer",
            (Self::Address, Family::Ipv4) => "ipv4_addr",
            (Self::Address, Family::Ipv6) => "ipv6_addr",
            (Self::Protocol, _) => "inet_proto",
            (Self::Port, _) => "inet_service",
        }
    }

    /// Bytes of the field alone; in a concatenation each field takes whole registers of 4 bytes.
    pub(crate) fn len(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Protocol, _) => 1,
            (Self::Port, _) => 2,
            (Self::Slot, _) | (Self::Address, Family::Ipv4) => 4,
            (Self::Address, Family::Ipv6) => 16,
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
            Data::Nothing => "",
            Data::Verdict => " : verdict",
            Data::Endpoint => {
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
                [KeyField::Protocol] => MIXED,
                [_] => BIG_ENDIAN,
                _ => MIXED,
            },
        );
        if self.data != Data::Nothing {
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

/// A record of nft's user data: kind, length in bytes, content.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    // A record's length is one byte; the longest we write has 98.
    let len = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[kind, len], content].concat()
}

fn number(kind: u8, value: u32) -> Vec<u8> {
    record(kind, &value.to_ne_bytes())
}

/// A part of a `typeof` concatenation: which expression (`enum expr_types`), and its parameters.
fn part(index: u8, expression: u32, parameters: &[Vec<u8>]) -> Vec<u8> {
    let content = [number(0, expression), record(1, &parameters.concat())].concat();
    record(index, &content)
}

/// The `typeof` of `meta l4proto [. ip daddr] . th dport . numgen random mod 65536 : ip daddr .
/// th dport`, as nftables' `set_make_key` and the `build_udata` of each expression write it.
fn typeof_records(with_address: bool, family: Family) -> Vec<u8> {
    const KEY_TYPEOF: u8 = 3;
    const DATA_TYPEOF: u8 = 4;
    const DATA_INTERVAL: u8 = 6;
    const CONCAT: u32 = 13;
    const META: u32 = 9;
    const META_L4PROTO: u32 = 16;
    const PAYLOAD: u32 = 7;
    const NUMGEN: u32 = 23;
    // Number of the protocol description and of the field in it (nftables' `src/proto.c`).
    let (ip, daddr) = match family {
        Family::Ipv4 => (12, 12),
        Family::Ipv6 => (13, 9),
    };
    let (th, dport) = (11, 2);
    let payload = |index: u8, description: u32, field: u32| {
        part(index, PAYLOAD, &[number(0, description), number(1, field)])
    };
    let mut key = part(0, META, &[number(0, META_L4PROTO)]);
    let mut index = 1;
    if with_address {
        key.extend(payload(index, ip, daddr));
        index += 1;
    }
    key.extend(payload(index, th, dport));
    let numgen = [number(0, 1), number(1, 65536), number(2, 0)];
    key.extend(part(index + 1, NUMGEN, &numgen));
    let data = [payload(0, ip, daddr), payload(1, th, dport)].concat();
    let concat = |content: &[u8]| [number(0, CONCAT), record(1, content)].concat();
    [
        record(KEY_TYPEOF, &concat(&key)),
        record(DATA_TYPEOF, &concat(&data)),
        number(DATA_INTERVAL, 0),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

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
