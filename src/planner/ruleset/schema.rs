//! The types of a set or map as nft and the kernel need them, derived from its row in [`SETS`].

use super::{SETS, SetName, SetRow};
use crate::planner::model::addr::Family;

/// The type of one field of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyField {
    /// A protocol number, nft's `inet_proto`.
    Protocol,
    /// An address, nft's `ipv4_addr` or `ipv6_addr`.
    Address,
    /// A range of addresses, as the last field of an interval set.
    Net,
    /// A port number, nft's `inet_service`.
    Port,
    /// A slot, `numgen random mod 65536`.
    Slot,
    /// The direction of a packet in its connection, nft's `ct_dir`.
    Direction,
}

/// The type of the values of a set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// No value: a set.
    Nothing,
    /// A verdict for the packet.
    Verdict,
    /// The address and port of an endpoint.
    Endpoint,
}

/// The declaration of one set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// The name of the set or map.
    pub name: SetName,
    /// The fields of the key; several fields are a concatenation.
    pub key: &'static [KeyField],
    /// The type of the values.
    pub data: ElementType,
    /// The maximum number of elements that packets can add; `None`: packets add none.
    pub dynamic: Option<u32>,
    /// Whether each element has a packet counter.
    pub counter: bool,
}

/// Returns the declaration of a set or map.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    clippy::expect_used,
    reason = "a test proves that each set has a row"
)]
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

impl SetName {
    /// Whether the elements are of Services and can be looked up by their keys, so that a table is
    /// read without a dump of the set.
    ///
    /// The others are small, have ranges, or get their elements from packets.
    #[must_use]
    pub fn has_service_keys(self) -> bool {
        match self {
            Self::ClusterIps
            | Self::ClusterIpsSticky
            | Self::LoadBalancerIps
            | Self::Endpoints
            | Self::NodeportEndpoints
            | Self::Services
            | Self::Nodeports
            | Self::ServicesCluster
            | Self::ServicesLocal
            | Self::NodeportsCluster
            | Self::NodeportsLocal
            | Self::ServicesRestricted
            | Self::Sticky(_)
            | Self::StickyNodeports(_)
            | Self::External(_)
            | Self::ExternalNodeports(_)
            | Self::CloseRemoved(_)
            | Self::CloseRemovedNodeports(_)
            | Self::Hairpin => true,
            Self::PodCidrs
            | Self::PodCidrsLocal
            | Self::NodeIps
            | Self::ServiceCidrs
            | Self::SourceRanges
            | Self::Denied
            | Self::Affinity(_)
            | Self::Gone(_)
            | Self::AffinityFull => false,
        }
    }
}

impl KeyField {
    /// Returns nft's number of the type (`enum datatypes` in nftables' `include/datatype.h`).
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

    /// Returns nft's name of the type.
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

    /// Returns the length of a single field in bytes.
    ///
    /// In a concatenation each field occupies whole registers of 4 bytes.
    pub(crate) fn len(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Protocol | Self::Direction, _) => 1,
            (Self::Port, _) => 2,
            (Self::Slot, _) | (Self::Address | Self::Net, Family::Ipv4) => 4,
            (Self::Address | Self::Net, Family::Ipv6) => 16,
        }
    }
}

/// Returns nft's number of a concatenation, which has six bits per field.
fn concatenated_type(fields: &[KeyField], family: Family) -> u32 {
    fields
        .iter()
        .fold(0, |number, field| number << 6 | field.type_number(family))
}

/// Returns the length of a key with these fields in bytes.
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
    /// Returns whether the keys are ranges or end with a range (`flags interval`).
    #[must_use]
    pub fn is_interval(&self) -> bool {
        self.key.contains(&KeyField::Net)
    }

    /// Returns whether the only field is a range: the kernel has two elements for each key.
    #[must_use]
    pub fn is_ranges(&self) -> bool {
        self.key == [KeyField::Net]
    }

    /// Returns nft's number of the key's type.
    #[must_use]
    pub fn key_type(&self, family: Family) -> u32 {
        concatenated_type(self.key, family)
    }

    /// Returns the length of a key in bytes.
    #[must_use]
    pub fn key_len(&self, family: Family) -> u32 {
        concatenated_len(self.key, family)
    }

    /// Returns nft's number of the type of endpoints.
    #[must_use]
    pub fn endpoint_type(family: Family) -> u32 {
        concatenated_type(&[KeyField::Address, KeyField::Port], family)
    }

    /// Returns the length of an endpoint in bytes.
    #[must_use]
    pub fn endpoint_len(family: Family) -> u32 {
        concatenated_len(&[KeyField::Address, KeyField::Port], family)
    }

    /// Returns the line of the declaration that has the types, as nft prints it.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_has_one_row_and_one_name() {
        let names: std::collections::BTreeSet<_> = SetName::all().map(SetName::as_str).collect();
        assert_eq!(names.len(), SetName::all().count());
        for name in SetName::all() {
            assert_eq!(set(name).name, name);
            assert_eq!(SetName::parse(name.as_str()), Some(name));
        }
    }
}
