//! Ranges of ports that a Service serves beyond its ports (`kube-dnat.io/port-ranges`).

use std::fmt;

use super::Protocol;

/// A range of ports, from 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Creates a range; `None` if it has port 0 or no port.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (0 < first && first <= last).then_some(Self { first, last })
    }

    /// Returns the first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// Returns the last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// Returns whether the range has a port.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// The ranges of a Service, sorted by protocol and port; those of one protocol are disjoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRanges(Box<[(Protocol, PortRange)]>);

impl PortRanges {
    /// The maximum number of ranges of a Service.
    pub const MAX: usize = 64;

    /// Sorts ranges.
    ///
    /// # Errors
    /// Two ranges of a protocol overlap.
    pub fn new(
        ranges: impl IntoIterator<Item = (Protocol, PortRange)>,
    ) -> Result<Self, OverlappingRanges> {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut pairs = ranges.windows(2);
        let overlapping = pairs.find_map(|pair| match *pair {
            [(protocol, one), (next_protocol, next)]
                if protocol == next_protocol && one.last >= next.first =>
            {
                Some(OverlappingRanges {
                    protocol,
                    ranges: [one, next],
                })
            }
            _ => None,
        });
        overlapping.map_or_else(|| Ok(Self(ranges.into())), Err)
    }

    /// Returns the protocols that have a range, in order.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> {
        let has_range = |protocol: &Protocol| self.of(*protocol).next().is_some();
        Protocol::ALL.into_iter().filter(has_range)
    }

    /// Returns the ranges of a protocol, in order.
    pub fn of(&self, protocol: Protocol) -> impl Iterator<Item = PortRange> {
        let ranges = self.0.iter();
        let of_protocol = ranges.filter(move |(own, _)| *own == protocol);
        of_protocol.map(|(_, range)| *range)
    }
}

/// Two ranges of a protocol that overlap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}/{protocol} and {}/{protocol} overlap", .ranges[0], .ranges[1])]
pub struct OverlappingRanges {
    protocol: Protocol,
    ranges: [PortRange; 2],
}
