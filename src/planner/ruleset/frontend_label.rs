//! The label of a frontend in the user data of its element. No rule depends on it.

use std::fmt;

use serde::Serialize;

use crate::planner::model::TrafficPolicy;

/// The kind of a frontend, by the field of the Service that has its address or port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum AddressKind {
    /// `spec.clusterIPs`.
    ClusterIP,
    /// `spec.ports[].nodePort`, at the addresses of the node.
    NodePort,
    /// `status.loadBalancer.ingress[].ip`.
    LoadBalancer,
    /// `spec.externalIPs`.
    ExternalIP,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIP => "ExternalIP",
        })
    }
}

/// The kind of a frontend and the traffic policy that applies to it.
///
/// The elements of `services` and `nodeports` have it in their user data, one byte that nft does not
/// show. The kernel never evaluates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendLabel {
    /// The kind of the frontend.
    pub kind: AddressKind,
    /// The internal policy of a `ClusterIP`, the external policy of any other frontend.
    pub policy: TrafficPolicy,
}

/// The bit of a byte that is set for policy Local.
const LOCAL: u8 = 0x10;

impl FrontendLabel {
    /// Returns the label as one byte.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        let kind = match self.kind {
            AddressKind::ClusterIP => 1,
            AddressKind::NodePort => 2,
            AddressKind::LoadBalancer => 3,
            AddressKind::ExternalIP => 4,
        };
        match self.policy {
            TrafficPolicy::Cluster => kind,
            TrafficPolicy::Local => kind | LOCAL,
        }
    }

    /// Returns the label of a byte; `None` if kube-dnat writes no such byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        let kind = match byte & !LOCAL {
            1 => AddressKind::ClusterIP,
            2 => AddressKind::NodePort,
            3 => AddressKind::LoadBalancer,
            4 => AddressKind::ExternalIP,
            _ => return None,
        };
        let policy = if byte & LOCAL == 0 {
            TrafficPolicy::Cluster
        } else {
            TrafficPolicy::Local
        };
        Some(Self { kind, policy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_is_written() {
        let mut labels = 0;
        for byte in 0..=u8::MAX {
            if let Some(label) = FrontendLabel::from_byte(byte) {
                assert_eq!(label.to_byte(), byte);
                labels += 1;
            }
        }
        assert_eq!(labels, 8);
    }
}
