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
    /// A range of ports, as the last field of an interval set.
    PortRange,
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
    /// The address of an endpoint.
    Address,
}

impl ElementType {
    /// Returns the fields of a value; none for a verdict.
    pub(super) fn fields(self) -> &'static [KeyField] {
        match self {
            Self::Nothing | Self::Verdict => &[],
            Self::Endpoint => &[KeyField::Address, KeyField::Port],
            Self::Address => &[KeyField::Address],
        }
    }
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
            | Self::RangeEndpoints
            | Self::Services
            | Self::Nodeports
            | Self::ServicesCluster
            | Self::ServicesLocal
            | Self::NodeportsCluster
            | Self::NodeportsLocal
            | Self::ServicesRestricted
            | Self::ServicesDenied
            | Self::Ranges
            | Self::RangesCluster
            | Self::RangesLocal
            | Self::Sticky(_)
            | Self::StickyNodeports(_)
            | Self::External(_)
            | Self::ExternalNodeports(_)
            | Self::ExternalRanges
            | Self::CloseRemoved(_)
            | Self::CloseRemovedNodeports(_)
            | Self::Hairpin => true,
            Self::PodCidrs
            | Self::PodCidrsLocal
            | Self::NodeIps
            | Self::ServiceCidrs
            | Self::SourceRanges
            | Self::PortRanges
            | Self::Denied
            | Self::Affinity(_)
            | Self::Gone(_)
            | Self::AffinityFull => false,
        }
    }

    /// Whether the elements are of Services and end with a range, so that they are dumped.
    #[must_use]
    pub fn has_service_ranges(self) -> bool {
        matches!(self, Self::SourceRanges | Self::PortRanges)
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
            (Self::Port | Self::PortRange, _) => 13,
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
            (Self::Port | Self::PortRange, _) => "inet_service",
            (Self::Direction, _) => "ct_dir",
        }
    }

    /// Returns the expression that a `typeof` names the type by; `ip` is nft's name of the layer.
    fn expression(self, ip: &str) -> String {
        match self {
            Self::Protocol => "meta l4proto".to_owned(),
            Self::Address | Self::Net => format!("{ip} daddr"),
            Self::Port | Self::PortRange => "th dport".to_owned(),
            Self::Slot => "numgen random mod 65536".to_owned(),
            Self::Direction => "ct direction".to_owned(),
        }
    }

    /// Returns the length of a single field in bytes.
    ///
    /// In a concatenation each field occupies whole registers of 4 bytes.
    pub(crate) fn len(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Protocol | Self::Direction, _) => 1,
            (Self::Port | Self::PortRange, _) => 2,
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
        let is_range = |field: &KeyField| matches!(field, KeyField::Net | KeyField::PortRange);
        self.key.last().is_some_and(is_range)
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

    /// Returns nft's number of the values' type; 0 for a set or verdicts.
    #[must_use]
    pub fn data_type(&self, family: Family) -> u32 {
        concatenated_type(self.data.fields(), family)
    }

    /// Returns the length of a value in bytes; 0 for a set or verdicts.
    #[must_use]
    pub fn data_len(&self, family: Family) -> u32 {
        concatenated_len(self.data.fields(), family)
    }

    /// Returns the line of the declaration that has the types, as nft prints it.
    #[must_use]
    pub(super) fn declaration(&self, family: Family) -> String {
        let ip = super::statement::layer(family);
        if self.key.contains(&KeyField::Slot) {
            let expressions = |fields: &[KeyField]| {
                let texts = fields.iter().map(|field| field.expression(ip));
                texts.collect::<Vec<_>>().join(" . ")
            };
            let (key, data) = (expressions(self.key), expressions(self.data.fields()));
            return format!("typeof {key} : {data}");
        }
        let types = |fields: &[KeyField]| {
            let names: Vec<_> = fields.iter().map(|field| field.type_name(family)).collect();
            names.join(" . ")
        };
        let data = match self.data {
            ElementType::Nothing => String::new(),
            ElementType::Verdict => " : verdict".to_owned(),
            ElementType::Endpoint | ElementType::Address => {
                format!(" : {}", types(self.data.fields()))
            }
        };
        format!("type {}{data}", types(self.key))
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
