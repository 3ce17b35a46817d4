//! The keys and maps of a frontend.

use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{FrontendKind, Key, SetName, SlotRange, TcpPickup, Verdict};

/// The map and key of a slot.
pub(super) type SlotKey<A> = (SetName, Key<A>);

/// A frontend: an address with a port, a node port, or an address with port ranges.
#[derive(Clone, Copy)]
pub(super) enum FrontendKey<A> {
    /// A port at an address of the Service.
    Frontend(Protocol, A, u16),
    /// A node port.
    Nodeport(Protocol, u16),
    /// The port ranges at an address of the Service.
    Ranges(Protocol, A),
}

/// The maps for one kind of frontend.
pub(super) struct FrontendMaps {
    /// The map of all frontends.
    pub(super) dispatch: SetName,
    /// With external policy Local: the map for Pods and the node.
    pub(super) cluster: SetName,
    /// With external policy Local: the map for other sources.
    pub(super) local: SetName,
    /// The map that decides how external connections are masqueraded.
    pub(super) external: fn(Protocol) -> SetName,
    /// The map of frontends with session affinity, if any has it.
    pub(super) sticky: Option<fn(Protocol) -> SetName>,
    /// The set of frontends whose connections to removed endpoints are closed, if any are.
    pub(super) close_removed: Option<fn(TcpPickup) -> SetName>,
    /// The verdict for external policy Local.
    pub(super) external_local: Verdict,
}

/// Returns the maps for a kind of frontend.
pub(super) fn maps(kind: FrontendKind) -> FrontendMaps {
    match kind {
        FrontendKind::Address => FrontendMaps {
            dispatch: SetName::Services,
            cluster: SetName::ServicesCluster,
            local: SetName::ServicesLocal,
            external: SetName::External,
            sticky: Some(SetName::Sticky),
            close_removed: Some(SetName::CloseRemoved),
            external_local: Verdict::ExternalLocal,
        },
        FrontendKind::Nodeport => FrontendMaps {
            dispatch: SetName::Nodeports,
            cluster: SetName::NodeportsCluster,
            local: SetName::NodeportsLocal,
            external: SetName::ExternalNodeports,
            sticky: Some(SetName::StickyNodeports),
            close_removed: Some(SetName::CloseRemovedNodeports),
            external_local: Verdict::ExternalLocalNodeport,
        },
        FrontendKind::Range => FrontendMaps {
            dispatch: SetName::Ranges,
            cluster: SetName::RangesCluster,
            local: SetName::RangesLocal,
            external: |_| SetName::ExternalRanges,
            sticky: None,
            close_removed: None,
            external_local: Verdict::ExternalLocalRange,
        },
    }
}

impl<A: Address> FrontendKey<A> {
    /// Returns the kind of the frontend.
    pub(super) fn kind(self) -> FrontendKind {
        match self {
            Self::Frontend(..) => FrontendKind::Address,
            Self::Nodeport(..) => FrontendKind::Nodeport,
            Self::Ranges(..) => FrontendKind::Range,
        }
    }

    /// Returns the frontend's key in the verdict maps.
    pub(super) fn key(self) -> Key<A> {
        match self {
            Self::Frontend(protocol, address, port) => Key::Frontend(protocol, address, port),
            Self::Nodeport(protocol, port) => Key::Nodeport(protocol, port),
            Self::Ranges(protocol, address) => Key::Ranges(protocol, address),
        }
    }

    /// Returns the frontend with this key in the verdict maps.
    pub(super) fn of_key(key: &Key<A>) -> Option<Self> {
        if let Key::Ranges(protocol, address) = *key {
            return Some(Self::Ranges(protocol, address));
        }
        let (protocol, address, port) = key.frontend()?;
        Some(match address {
            Some(address) => Self::Frontend(protocol, address, port),
            None => Self::Nodeport(protocol, port),
        })
    }

    /// Returns the frontend's key in the maps of masquerading, affinity and closing, which exist once
    /// per protocol except those of port ranges.
    pub(super) fn key_without_protocol(self) -> Key<A> {
        match self {
            Self::Frontend(_, address, port) => Key::AddressPort(address, port),
            Self::Nodeport(_, port) => Key::Port(port),
            Self::Ranges(..) => self.key(),
        }
    }

    /// Returns the map and key of a slot of a list.
    pub(super) fn slot(self, list: SlotRange, slot: u32) -> SlotKey<A> {
        let slot = list.base() + slot;
        match self {
            Self::Frontend(protocol, address, port) => {
                (SetName::Endpoints, Key::Slot(protocol, address, port, slot))
            }
            Self::Nodeport(protocol, port) => (
                SetName::NodeportEndpoints,
                Key::NodeportSlot(protocol, port, slot),
            ),
            Self::Ranges(protocol, address) => (
                SetName::RangeEndpoints,
                Key::RangeSlot(protocol, address, slot),
            ),
        }
    }
}
