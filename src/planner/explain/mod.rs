//! What the rules do with a connection, determined as the kernel does it: by evaluating the rules.
//!
//! The rules are those of [`crate::planner::ruleset::program`] and of the chains created on demand.
//! The elements come from an implementation of [`Lookup`], which keeps this module pure.

mod evaluate;
mod jenkins;
mod outcome;
mod query;
mod suggest;
mod text;

use std::time::Duration;

use serde::Serialize;

pub use evaluate::{Destination, Source};
pub use outcome::trace;
pub use query::{Query, ServiceQuery, Target};
pub use suggest::{KnownFrontend, most_similar, suggest};

use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, ElementData, Key, SetName, Value};

/// A source of elements: the kernel, or a table in memory.
pub trait Lookup<A: Address> {
    /// The error of a look-up that failed.
    type Error;

    /// Returns the value and comment of the element with this key, if the set has it.
    ///
    /// # Errors
    /// If the element cannot be read.
    fn get(&mut self, set: SetName, key: &Key<A>) -> Result<Option<ElementData<A>>, Self::Error>;

    /// Returns all elements of a set or map.
    ///
    /// # Errors
    /// If the elements cannot be read.
    fn all(&mut self, set: SetName) -> Result<Vec<Element<A>>, Self::Error>;

    /// Returns the endpoint that session affinity keeps a client at, and the time until it expires.
    ///
    /// # Errors
    /// If the element cannot be read.
    fn pinned(
        &mut self,
        protocol: Protocol,
        client: &Key<A>,
    ) -> Result<Option<(Value<A>, Duration)>, Self::Error>;

    /// Returns whether an address belongs to this machine (`fib daddr type local`).
    fn is_local_address(&self, address: A) -> bool;
}

/// The kinds of source that the rules distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// A Pod, recognised by its address or by the input interface of its packets.
    Pod,
    /// A process on the node itself.
    Node,
    /// Any other source.
    Elsewhere,
}

impl SourceKind {
    /// Returns the kind as `explain` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "a Pod",
            Self::Node => "this node",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// A look-up that decided something about the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LookupStep {
    /// The name of the chain whose rule does the look-up.
    pub chain: String,
    /// The result of the look-up; an element is in nft's words.
    pub found: String,
    /// The nft command that prints the same result.
    pub command: String,
}

/// An endpoint that the connection may be sent to, and the probability of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointChance {
    /// The address and port of the endpoint.
    pub endpoint: String,
    /// The probability of this endpoint, from 0 to 1.
    pub probability: f64,
    /// The rule that masquerades the connection; `None`: its source address is preserved.
    pub masqueraded: Option<String>,
}

/// The endpoint that session affinity keeps a client at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedEndpoint {
    /// The address and port of the endpoint.
    pub endpoint: String,
    /// The seconds until the client is no longer pinned, unless it connects again.
    pub seconds_left: u64,
}

/// The outcome of a connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// DNAT sends the connection to one of these endpoints.
    #[serde(rename_all = "camelCase")]
    Translated {
        /// The session affinity timeout, in seconds after the client's last connection.
        affinity_seconds: Option<u32>,
        /// The endpoint that session affinity keeps this client at.
        pinned: Option<PinnedEndpoint>,
        /// The endpoints that the connection may be sent to.
        endpoints: Vec<EndpointChance>,
        /// The `loadBalancerSourceRanges`, if they restrict the sources.
        only_from: Option<Vec<String>>,
    },
    /// The client gets a TCP reset or an ICMP error at once.
    Rejected {
        /// The reason why a rule rejects the connection.
        reason: String,
    },
    /// The client gets no answer.
    Dropped {
        /// The reason why a rule drops the connection.
        reason: String,
    },
    /// No rule matches: the packet goes to the address that it is sent to.
    NotTranslated {
        /// The reason why no rule matches.
        reason: String,
    },
}

/// The path of connections from some kinds of source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Path {
    /// The kinds of source that have this path.
    pub from: Vec<SourceKind>,
    /// The look-ups that decided the path, in order.
    pub steps: Vec<LookupStep>,
    /// The end of the path.
    pub outcome: Outcome,
}

/// The explanation of connections to one frontend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The protocol, in lower case.
    pub protocol: String,
    /// The address and port of the frontend.
    pub frontend: String,
    /// The Service port of the frontend, as `namespace/name:port-name`.
    pub service: Option<String>,
    /// The address of the client in the query.
    pub client: Option<String>,
    /// The paths by kind of source; kinds with the same path share one.
    pub paths: Vec<Path>,
    /// What else applies to the frontend, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Explanation {
    /// Returns whether a rule of kube-dnat matches the connection of any source.
    #[must_use]
    pub fn is_matched(&self) -> bool {
        let unmatched = |path: &Path| matches!(path.outcome, Outcome::NotTranslated { .. });
        self.service.is_some() || !self.paths.iter().all(unmatched)
    }

    /// Returns whether connections of some source are rejected or dropped.
    #[must_use]
    pub fn has_denied_source(&self) -> bool {
        self.paths.iter().any(|path| {
            matches!(
                path.outcome,
                Outcome::Rejected { .. } | Outcome::Dropped { .. }
            )
        })
    }
}
