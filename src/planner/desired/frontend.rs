//! The keys and maps of a frontend.

use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{FrontendKind, Key, SetName, SlotRange, TcpPickup, Verdict};

/// The map and key of a slot.
pub(super) type SlotKey<A> = (SetName, Key<A>);

/// A frontend: an address with a port, or a node port.
#[derive(Clone, Copy)]
pub(super) enum FrontendKey<A> {
    /// A port at an address of the Service.
    Frontend(Protocol, A, u16),
    /// A node port.
    Nodeport(Protocol, u16),
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
    /// The map of frontends with session affinity.
    pub(super) sticky: fn(Protocol) -> SetName,
    /// The set of frontends whose connections to removed endpoints are closed.
    pub(super) close_removed: fn(TcpPickup) -> SetName,
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
            sticky: SetName::Sticky,
            close_removed: SetName::CloseRemoved,
            external_local: Verdict::ExternalLocal,
        },
        FrontendKind::Nodeport => FrontendMaps {
            dispatch: SetName::Nodeports,
            cluster: SetName::NodeportsCluster,
            local: SetName::NodeportsLocal,
            external: SetName::ExternalNodeports,
            sticky: SetName::StickyNodeports,
            close_removed: SetName::CloseRemovedNodeports,
            external_local: Verdict::ExternalLocalNodeport,
        },
    }
}

impl<A: Address> FrontendKey<A> {
    /// Returns the kind of the frontend.
    pub(super) fn kind(self) -> FrontendKind {
        match self {
            Self::Frontend(..) => FrontendKind::Address,
            Self::Nodeport(..) => FrontendKind::Nodeport,
        }
    }

    /// Returns the frontend's key in the verdict maps.
    pub(super) fn key(self) -> Key<A> {
        match self {
            Self::Frontend(protocol, address, port) => Key::Frontend(protocol, address, port),
            Self::Nodeport(protocol, port) => Key::Nodeport(protocol, port),
        }
    }

    /// Returns the frontend's key in the maps that exist once per protocol.
    pub(super) fn key_without_protocol(self) -> Key<A> {
        match self {
            Self::Frontend(_, address, port) => Key::AddressPort(address, port),
            Self::Nodeport(_, port) => Key::Port(port),
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
        }
    }
}
