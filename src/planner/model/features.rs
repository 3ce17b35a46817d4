//! What a Service asks for by annotations, beyond what its fields can say.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{NoLocalEndpoint, PortRanges, Topology};

/// The features that the annotations of a Service switch on; the default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFeatures {
    /// The hash that selects the endpoint (`kube-dnat.io/balance`); `None`: a random endpoint.
    pub balance: Option<Balance>,
    /// The weights of the endpoints (`kube-dnat.io/weights`); `None`: all endpoints are equal.
    pub weights: Option<Weights>,
    /// The time in which the share of a new endpoint grows (`kube-dnat.io/slow-start`); `None`: a new
    /// endpoint has its whole share at once.
    pub slow_start: Option<Duration>,
    /// The answer to outside clients of external policy Local if no endpoint is on this node
    /// (`kube-dnat.io/external-local-without-endpoints`); `None`: the answer of the configuration.
    pub no_local_endpoint: Option<NoLocalEndpoint>,
    /// Whether TCP connections to removed endpoints are closed (`kube-dnat.io/close-removed`).
    pub close_removed: bool,
    /// The ranges of ports beyond the Service's ports (`kube-dnat.io/port-ranges`).
    pub port_ranges: Option<PortRanges>,
}

/// The fields of a connection whose hash selects its endpoint, on every node the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Balance {
    /// The source address and port: `maglev`.
    Maglev,
    /// The source address: `source`.
    Source,
}

impl Balance {
    /// Both hashes.
    pub const ALL: [Self; 2] = [Self::Maglev, Self::Source];
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maglev => "maglev",
            Self::Source => "source",
        })
    }
}

/// The endpoints that an entry of `kube-dnat.io/weights` names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightTarget {
    /// The endpoint with this address.
    Address(IpAddr),
    /// The endpoints on the node with this name.
    Node(Arc<str>),
    /// The endpoints in the zone with this name.
    Zone(Arc<str>),
}

/// The weights of endpoints, sorted by target, each target once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights(Box<[(WeightTarget, u16)]>);

impl Weights {
    /// The maximum weight of an endpoint.
    pub const MAX: u16 = 100;

    /// The weight of an endpoint that no entry names.
    pub const DEFAULT: u16 = 1;

    /// Collects weights; of several for one target, any is used.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = (WeightTarget, u16)>) -> Self {
        let mut weights: Vec<_> = weights.into_iter().collect();
        weights.sort_unstable();
        weights.dedup_by(|(one, _), (other, _)| one == other);
        Self(weights.into())
    }

    /// Returns the weight of an endpoint: that of its address, else of its node, else of its zone.
    #[must_use]
    pub fn of(&self, address: IpAddr, topology: Option<&Topology>) -> u16 {
        let node = topology.and_then(|topology| topology.node.clone());
        let zone = topology.and_then(|topology| topology.zone.clone());
        let targets = [
            Some(WeightTarget::Address(address)),
            node.map(WeightTarget::Node),
            zone.map(WeightTarget::Zone),
        ];
        let weight = targets.iter().flatten().find_map(|target| {
            let position = self.0.binary_search_by(|(named, _)| named.cmp(target));
            let (_, weight) = self.0.get(position.ok()?)?;
            Some(*weight)
        });
        weight.unwrap_or(Self::DEFAULT)
    }
}
