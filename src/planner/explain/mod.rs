//! What the rules do with a connection, found the way the kernel finds it: by evaluating the rules of
//! [`crate::planner::ruleset::program`] and of the chains made on demand. Pure: where the elements come from
//! is for [`Lookup`].

mod evaluate;
mod near;
mod outcome;
mod query;
mod text;

use std::time::Duration;

use serde::Serialize;

pub use evaluate::{Destination, Source};
pub use near::{KnownFrontend, near};
pub use outcome::walk;
pub use query::{Query, ServiceQuery, Target};

use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, ElementData, Key, SetName, Value};

/// Where elements are looked up: the kernel, or a table in memory.
pub trait Lookup<A: Address> {
    /// Why it may fail.
    type Error;

    /// What is under a key.
    ///
    /// # Errors
    /// If it cannot be told.
    fn get(&mut self, set: SetName, key: &Key<A>) -> Result<Option<ElementData<A>>, Self::Error>;

    /// All elements of a set or map.
    ///
    /// # Errors
    /// If they cannot be told.
    fn all(&mut self, set: SetName) -> Result<Vec<Element<A>>, Self::Error>;

    /// The endpoint that a client is remembered to have, and for how long still.
    ///
    /// # Errors
    /// If it cannot be told.
    fn client(
        &mut self,
        protocol: Protocol,
        client: &Key<A>,
    ) -> Result<Option<(Value<A>, Duration)>, Self::Error>;

    /// Whether an address is one of this machine's (`fib daddr type local`).
    fn is_own(&self, address: A) -> bool;
}

/// Who connects, as far as the rules tell sources apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// A Pod, by its address or by the interface that its packets come in by.
    Pod,
    /// A process on the node itself.
    Node,
    /// Anyone else.
    Elsewhere,
}

impl SourceKind {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Pod => "a Pod",
            Self::Node => "this node",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// A look-up that decided something, in the order of the chains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LookupStep {
    /// The chain in which it happens.
    pub chain: String,
    /// What was found, in nft's words where it is an element.
    pub found: String,
    /// The nft command that shows the same.
    pub command: String,
}

/// An endpoint that the connection may be sent to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointChance {
    /// Address and port.
    pub endpoint: String,
    /// How probable, from 0 to 1.
    pub probability: f64,
    /// Why the connection has an address of this node as its source when it arrives there; `None`:
    /// it keeps its own.
    pub masqueraded: Option<String>,
}

/// The endpoint that a client has had and keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedEndpoint {
    /// Address and port.
    pub endpoint: String,
    /// For how many seconds still, unless it connects again.
    pub seconds_left: u64,
}

/// What becomes of the connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// It goes to one of these endpoints.
    #[serde(rename_all = "camelCase")]
    Served {
        /// For how many seconds after its last connection a client keeps its endpoint.
        affinity_seconds: Option<u32>,
        /// The endpoint that this client keeps.
        held: Option<PinnedEndpoint>,
        /// All that it may be sent to.
        endpoints: Vec<EndpointChance>,
        /// The only sources that are let through, if not all are.
        only_from: Option<Vec<String>>,
    },
    /// The client is told at once that nobody answers.
    Refused {
        /// Why.
        why: String,
    },
    /// The client hears nothing.
    Dropped {
        /// Why.
        why: String,
    },
    /// The rules do nothing: it goes where it is addressed to.
    Untouched {
        /// Why.
        why: String,
    },
}

/// What becomes of connections from some sources.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Path {
    /// The kinds of source that this is so for.
    pub from: Vec<SourceKind>,
    /// What was looked up.
    pub steps: Vec<LookupStep>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of connections to a frontend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The protocol, in lower case.
    pub protocol: String,
    /// Address and port.
    pub frontend: String,
    /// Whose it is: `namespace/name:port-name`.
    pub service: Option<String>,
    /// The address of the client that was asked for.
    pub client: Option<String>,
    /// By source; one for all that fare alike.
    pub paths: Vec<Path>,
}

impl Explanation {
    /// Whether it concerns our rules at all.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let untouched = |path: &Path| matches!(path.outcome, Outcome::Untouched { .. });
        self.service.is_some() || !self.paths.iter().all(untouched)
    }

    /// Whether some source is refused or dropped.
    #[must_use]
    pub fn turns_away(&self) -> bool {
        self.paths.iter().any(|path| {
            matches!(
                path.outcome,
                Outcome::Refused { .. } | Outcome::Dropped { .. }
            )
        })
    }
}
