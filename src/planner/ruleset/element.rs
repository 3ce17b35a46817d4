//! Elements of sets and maps, with typed keys and values.

use std::fmt;

use super::registers::{RegisterReader, Registers};
use super::{
    ChainName, ClientHook, Comment, DynamicChain, ElementType, Key, RangesHook, SetName, set,
};
use crate::planner::model::Address;

/// The verdict of an element in a verdict map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// `goto` a chain that is created on demand.
    Dynamic(DynamicChain),
    /// `goto external-local`.
    ExternalLocal,
    /// `goto external-local-nodeport`.
    ExternalLocalNodeport,
    /// `goto external-local-range`.
    ExternalLocalRange,
    /// `goto restricted`.
    Restricted,
    /// `goto deny`.
    Deny,
    /// `goto refuse`.
    Refuse,
    /// `goto to-external`.
    ToExternal,
    /// `goto to-external-local`.
    ToExternalLocal,
    /// `goto unremembered`.
    Unremembered,
    /// `goto gone-outside`.
    GoneOutside,
    /// `drop`.
    Drop,
}

impl Verdict {
    /// `goto gone`.
    pub const GONE: Self = Self::Dynamic(DynamicChain::Gone);

    /// Returns the target chain; `None`: the verdict is `drop`.
    #[must_use]
    pub fn chain(self) -> Option<ChainName> {
        match self {
            Self::Dynamic(chain) => Some(ChainName::Dynamic(chain)),
            Self::ExternalLocal => Some(ChainName::ExternalLocal),
            Self::ExternalLocalNodeport => Some(ChainName::ExternalLocalNodeport),
            Self::ExternalLocalRange => Some(ChainName::ExternalLocalRange),
            Self::Restricted => Some(ChainName::Restricted),
            Self::Deny => Some(ChainName::Deny),
            Self::Refuse => Some(ChainName::Refuse),
            Self::ToExternal => Some(ChainName::ToExternal),
            Self::ToExternalLocal => Some(ChainName::ToExternalLocal),
            Self::Unremembered => Some(ChainName::Unremembered),
            Self::GoneOutside => Some(ChainName::GoneOutside),
            Self::Drop => None,
        }
    }

    /// Returns the verdict with the target chain of this name.
    #[must_use]
    pub fn goto(chain: &str) -> Option<Self> {
        let fixed = [
            Self::ExternalLocal,
            Self::ExternalLocalNodeport,
            Self::ExternalLocalRange,
            Self::Restricted,
            Self::Deny,
            Self::Refuse,
            Self::ToExternal,
            Self::ToExternalLocal,
            Self::Unremembered,
            Self::GoneOutside,
        ];
        let named = |verdict: &Self| {
            let name = verdict.chain().map(|name| name.to_string());
            name.as_deref() == Some(chain)
        };
        fixed
            .into_iter()
            .find(named)
            .or_else(|| chain.parse().ok().map(Self::Dynamic))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chain() {
            Some(chain) => write!(f, "goto {chain}"),
            None => f.write_str("drop"),
        }
    }
}

/// The value of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value<A> {
    /// No value: the element of a set.
    Nothing,
    /// The verdict for the packet.
    Verdict(Verdict),
    /// The endpoint of the connection.
    Endpoint(A, u16),
    /// The address of the endpoint; the port of the connection stays.
    Address(A),
}

/// An element with the set or map that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element<A: Address> {
    /// The set or map of the element.
    pub set: SetName,
    /// The key, unique in the set or map.
    pub key: Key<A>,
    /// The value.
    pub value: Value<A>,
    /// The Service port that the element belongs to.
    pub comment: Option<Comment>,
}

impl<A: Address> Element<A> {
    /// Returns an element without a comment, because several Services may share it.
    #[must_use]
    pub fn shared(set: SetName, key: Key<A>) -> Self {
        Self {
            set,
            key,
            value: Value::Nothing,
            comment: None,
        }
    }
}

impl<A: Address> fmt::Display for Element<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(comment) = &self.comment {
            write!(f, " comment \"{}\"", comment.parts().0)?;
        }
        match self.value {
            Value::Nothing => Ok(()),
            Value::Verdict(verdict) => write!(f, " : {verdict}"),
            Value::Endpoint(address, port) => write!(f, " : {address} . {port}"),
            Value::Address(address) => write!(f, " : {address}"),
        }
    }
}

impl<A: Address> Value<A> {
    /// Returns the dynamic chain that an element of this set with this value needs: the chain of its
    /// verdict, or the base chain that looks the set up.
    #[must_use]
    pub fn chain_for(&self, set: SetName) -> Option<DynamicChain> {
        match (self, set) {
            (Self::Verdict(Verdict::Dynamic(chain)), _) => Some(*chain),
            (
                Self::Nothing,
                SetName::CloseRemoved(pickup) | SetName::CloseRemovedNodeports(pickup),
            ) => Some(DynamicChain::Closed(pickup, ClientHook::Prerouting)),
            (Self::Nothing, SetName::PortRanges) => {
                Some(DynamicChain::PortRanges(RangesHook::Prerouting))
            }
            _ => None,
        }
    }

    /// Returns the kernel's representation of an endpoint or its address; `None` for any other value.
    #[must_use]
    pub fn endpoint_bytes(&self) -> Option<Vec<u8>> {
        match *self {
            Self::Endpoint(address, port) => Some(Registers::new().address(address).port(port).0),
            Self::Address(address) => Some(Registers::new().address(address).0),
            Self::Nothing | Self::Verdict(_) => None,
        }
    }

    /// Parses the kernel's representation of an endpoint.
    #[must_use]
    pub fn endpoint_from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = RegisterReader(bytes);
        let endpoint = Self::Endpoint(reader.address()?, reader.port()?);
        reader.0.is_empty().then_some(endpoint)
    }

    /// Parses the kernel's representation of the address of an endpoint.
    #[must_use]
    pub fn address_from_bytes(bytes: &[u8]) -> Option<Self> {
        A::from_bytes(bytes).map(Self::Address)
    }

    /// Returns whether the elements of a set or map have such a value.
    #[must_use]
    pub fn fits(&self, name: SetName) -> bool {
        let kind = match self {
            Self::Nothing => ElementType::Nothing,
            Self::Verdict(_) => ElementType::Verdict,
            Self::Endpoint(..) => ElementType::Endpoint,
            Self::Address(_) => ElementType::Address,
        };
        set(name).data == kind
    }
}
