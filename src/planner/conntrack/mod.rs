//! The conntrack entries that keep clients from what the rules would do now.
//!
//! The kernel translates the first packet of a connection by the rules, and all others by its
//! conntrack entry. The entry of a UDP flow exists as long as the client sends: without a cleanup
//! it would lead to a removed endpoint forever (kube-proxy: `pkg/proxy/conntrack/cleanup.go`). A
//! SYN without an answer is retransmitted. It refreshes an entry that is older than the frontend,
//! or that leads to an address that another Pod may get. TCP and SCTP connections with an answer
//! end by themselves; their entries are read only to close those of `kube-dnat.io/close-removed`.

mod dirty;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use dirty::{DirtyFrontends, PreviousEndpoints};

use crate::planner::desired::{AnsweringEndpoints, Claim, Claims};
use crate::planner::diff::Applied;
use crate::planner::model::{Address, Protocol};

/// A conntrack entry: the addresses and ports of its two tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConntrackEntry<A> {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Whether a TCP connection has an answer. An SCTP entry has none, and UDP does not matter.
    pub established: bool,
    /// The source of the first packet.
    pub source: (A, u16),
    /// The destination of the first packet.
    pub destination: (A, u16),
    /// The source of replies: the endpoint, or the destination itself without DNAT.
    pub reply_source: (A, u16),
    /// The destination of replies: the source, or the node's address after masquerading.
    pub reply_destination: (A, u16),
}

impl<A: Address> ConntrackEntry<A> {
    /// Returns the entry that a reply creates if it arrives after this entry is deleted.
    ///
    /// `None` if the entry is translated. Otherwise packets of the client would count as replies to
    /// that entry, and would never be translated.
    #[must_use]
    pub fn late_reply(&self) -> Option<Self> {
        let is_translated =
            self.destination != self.reply_source || self.source != self.reply_destination;
        let reply = Self {
            protocol: self.protocol,
            established: false,
            source: self.destination,
            destination: self.source,
            reply_source: self.source,
            reply_destination: self.destination,
        };
        Some(reply).filter(|_| !is_translated)
    }
}

/// The entries that may be stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryScope {
    /// The protocols: all entries of UDP, and those of TCP and SCTP without an answer.
    pub protocols: BTreeSet<Protocol>,
    /// Whether entries of TCP with an answer may be stale, too.
    pub established_tcp: bool,
}

impl From<Protocol> for EntryScope {
    /// Returns the entries of a protocol that may be stale at any frontend.
    fn from(protocol: Protocol) -> Self {
        Self {
            protocols: [protocol].into(),
            established_tcp: false,
        }
    }
}

impl EntryScope {
    /// Returns whether entries of a protocol with an answer may be stale.
    #[must_use]
    pub fn has_answered(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Udp => true,
            Protocol::Tcp => self.established_tcp,
            Protocol::Sctp => false,
        }
    }
}

/// A frontend that a change affects.
#[derive(Debug)]
struct DirtyFrontend<A> {
    /// The endpoints that answer now; `None`: no Service has the frontend.
    answering: Option<Arc<AnsweringEndpoints<A>>>,
    /// The endpoints before the change, for a node port or port ranges.
    previous: PreviousEndpoints<A>,
}

/// The frontends that changes affect, with the endpoints that answer now.
///
/// It decides only about entries of these frontends.
#[derive(Debug)]
pub struct AnsweringFrontends<'a, A: Address> {
    /// The changed frontends.
    dirty: &'a DirtyFrontends<A>,
    /// The frontends whose endpoints are known.
    frontends: BTreeMap<Claim<A>, DirtyFrontend<A>>,
    /// Whether one of them is an address with port ranges: there may be a million entries to check.
    has_ranges: bool,
    /// The holders of frontends.
    claims: &'a Claims<A>,
    /// The applied state.
    applied: &'a Applied<A>,
    /// The current addresses that serve node ports.
    node_ips: BTreeSet<A>,
}

impl<'a, A: Address> AnsweringFrontends<'a, A> {
    /// Looks up the endpoints of `dirty` in the applied state.
    ///
    /// Takes time linear in these frontends and their endpoints.
    #[must_use]
    pub fn new(
        dirty: &'a DirtyFrontends<A>,
        applied: &'a Applied<A>,
        claims: &'a Claims<A>,
    ) -> Self {
        let node_ips: BTreeSet<_> = applied.node().node_ips().collect();
        let mut by_route: BTreeMap<_, Arc<AnsweringEndpoints<A>>> = BTreeMap::new();
        let mut answering = |claim: &Claim<A>| {
            let holder = claims.holder(claim)?;
            let (port, route) = applied.service_elements(holder)?.frontend(claim)?;
            // All frontends of a port with the same route have the same endpoints.
            let answering = by_route
                .entry((holder, port.key(), route))
                .or_insert_with(|| port.answering(route).into());
            Some(Arc::clone(answering))
        };
        // The endpoints of a skipped Service are not known, only its elements.
        let skipped: BTreeSet<_> = applied.kept_services().collect();
        let is_known = |claim: &Claim<A>| {
            let holder = claims.holder(claim);
            holder.is_none_or(|holder| !skipped.contains(holder))
        };
        let frontends = dirty.frontends().filter(|(claim, _)| is_known(claim));
        let frontends_with_endpoints = frontends.map(|(claim, previous)| {
            // What serves the port of a frontend that no Service has.
            let others = |claim: &Claim<A>| match *claim {
                Claim::Frontend(protocol, address, port) if node_ips.contains(&address) => {
                    Some(Claim::Nodeport(protocol, port))
                }
                Claim::Frontend(protocol, address, _) => Some(Claim::Ranges(protocol, address)),
                Claim::Nodeport(..) | Claim::Ranges(..) => None,
            };
            let answering = answering(claim).or_else(|| answering(&others(claim)?));
            let previous = previous.clone();
            (
                *claim,
                DirtyFrontend {
                    answering,
                    previous,
                },
            )
        });
        let frontends: BTreeMap<_, _> = frontends_with_endpoints.collect();
        let is_ranges = |claim: &Claim<A>| matches!(claim, Claim::Ranges(..));
        Self {
            dirty,
            has_ranges: frontends.keys().any(is_ranges),
            frontends,
            claims,
            applied,
            node_ips,
        }
    }

    /// Returns which entries of the frontends may be stale.
    #[must_use]
    pub fn scope(&self) -> EntryScope {
        let mut closing = self
            .frontends
            .iter()
            .filter(|(claim, _)| self.dirty.is_closing(claim))
            .filter_map(|(_, frontend)| frontend.answering.as_ref());
        EntryScope {
            protocols: self.frontends.keys().map(Claim::protocol).collect(),
            established_tcp: closing.any(|answering| answering.closes_removed()),
        }
    }

    /// Returns the number of frontends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frontends.len()
    }

    /// Returns whether there is no frontend.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Returns whether a Service has the frontend, or may have it because it is skipped.
    fn has_frontend(&self, claim: &Claim<A>) -> bool {
        let Some(holder) = self.claims.holder(claim) else {
            return false;
        };
        match self.applied.service_elements(holder) {
            Some(service_elements) => service_elements.frontend(claim).is_some(),
            None => self.applied.kept_services().any(|kept| kept == holder),
        }
    }

    /// Returns whether an entry must be deleted, because the rules now do something else.
    ///
    /// - The entry leads to an endpoint that no longer answers at its frontend.
    /// - The entry is not translated, and a Service has the frontend now.
    /// - The entry is of an established connection, and its endpoint has been removed from a Service
    ///   that closes such connections.
    #[must_use]
    pub fn is_stale(&self, entry: &ConntrackEntry<A>) -> bool {
        let (address, port) = entry.destination;
        let claim = Claim::Frontend(entry.protocol, address, port);
        if let Some(frontend) = self.frontends.get(&claim) {
            return self.contradicts(entry, frontend.answering.as_deref(), true);
        }
        // A frontend at the address takes precedence over port ranges and node ports, which apply only
        // at the node's addresses.
        if self.has_ranges && self.contradicts_ranges(entry) && !self.has_frontend(&claim) {
            return true;
        }
        if !self.dirty.is_node_ip(address) || self.has_frontend(&claim) {
            return false;
        }
        let claim = Claim::Nodeport(entry.protocol, port);
        let Some(frontend) = self.frontends.get(&claim) else {
            return false;
        };
        let answering = frontend
            .answering
            .as_deref()
            .filter(|_| self.node_ips.contains(&address));
        let is_ours = frontend.previous.may_include(&entry.reply_source);
        self.contradicts(entry, answering, is_ours)
    }

    /// Returns whether an entry of the port ranges of its address must be deleted.
    fn contradicts_ranges(&self, entry: &ConntrackEntry<A>) -> bool {
        let (address, port) = entry.destination;
        let claim = Claim::Ranges(entry.protocol, address);
        let Some(frontend) = self.frontends.get(&claim) else {
            return false;
        };
        let answering = frontend.answering.as_deref();
        let (endpoint, kept) = entry.reply_source;
        let is_ours = match &frontend.previous {
            PreviousEndpoints::Unknown => answering.is_some_and(|now| now.serves(port)),
            previous @ PreviousEndpoints::Endpoints(_) => {
                let had_range = self.dirty.had_range(&claim, port);
                had_range && kept == port && previous.may_include(&(endpoint, 0))
            }
        };
        self.contradicts(entry, answering, is_ours)
    }

    /// Returns whether an entry of a frontend with these endpoints must be deleted.
    ///
    /// `is_ours`: whether kube-dnat may have translated it. Another program may translate
    /// connections to the node's addresses, too.
    fn contradicts(
        &self,
        entry: &ConntrackEntry<A>,
        answering: Option<&AnsweringEndpoints<A>>,
        is_ours: bool,
    ) -> bool {
        let (_, port) = entry.destination;
        let answering = answering.filter(|answering| answering.serves(port));
        let is_translated = entry.reply_source != entry.destination;
        let endpoint = match (answering, entry.reply_source) {
            (Some(answering), (endpoint, kept)) if answering.keeps_port() && kept == port => {
                (endpoint, 0)
            }
            (_, endpoint) => endpoint,
        };
        if entry.established && entry.protocol == Protocol::Tcp {
            let closes = answering.is_some_and(|answering| answering.closes(endpoint));
            return is_ours && is_translated && closes;
        }
        let is_right = answering.is_some_and(|answering| match entry.protocol {
            Protocol::Udp => answering.answers_flow(endpoint),
            Protocol::Tcp | Protocol::Sctp => {
                answering.answers_connection(endpoint, self.may_be_internal(entry))
            }
        });
        let is_wrong = if is_translated {
            is_ours
        } else {
            answering.is_some()
        };
        !is_right && is_wrong
    }

    /// Returns whether external policy Local may count the source of an entry as internal: it is not
    /// masqueraded as a Pod's is, or it is masqueraded whatever the policy, as a Pod's connection to
    /// itself and a connection of the node are (`hairpin`, `external-local`).
    fn may_be_internal(&self, entry: &ConntrackEntry<A>) -> bool {
        let source = entry.source.0;
        source == entry.reply_destination.0
            || source == entry.reply_source.0
            || self.applied.node().own().contains(&source)
    }
}
