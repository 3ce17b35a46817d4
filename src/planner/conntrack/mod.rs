//! Which entries of connection tracking keep a client from what the rules would do now. Pure.
//!
//! The kernel translates the first packet of a connection and goes by its entry from then on. A UDP
//! flow lasts as long as its client sends: its entry would lead to an endpoint that is gone for
//! ever (kube-proxy: `pkg/proxy/conntrack/cleanup.go`). A SYN that nobody answers is sent again,
//! and renews an entry from before there was the frontend, or to an address that another Pod may
//! get. What was answered of TCP and SCTP ends by itself; such an entry is never looked at.

mod dirty;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use dirty::{DirtyFrontends, PreviousEndpoints};

use crate::planner::desired::{AnsweringEndpoints, Claim, Claims};
use crate::planner::diff::Applied;
use crate::planner::model::{Address, Protocol};

/// An entry of connection tracking: addresses and ports, in the order of its two tuples. Of TCP and
/// SCTP only one that was never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConntrackEntry<A> {
    /// Its protocol.
    pub protocol: Protocol,
    /// Who sent the first packet.
    pub source: (A, u16),
    /// Where it was sent.
    pub destination: (A, u16),
    /// Who is to answer: the endpoint, or the destination itself if nothing translated it.
    pub answered_by: (A, u16),
    /// Where the answer is to go: the source, unless that was masqueraded.
    pub answered_to: (A, u16),
}

impl<A: Address> ConntrackEntry<A> {
    /// The entry that an answer makes which was on its way when this one, which nothing translated,
    /// was deleted. What the client sends would be taken for a reply to it, and never be
    /// translated.
    #[must_use]
    pub fn late_answer(&self) -> Option<Self> {
        let is_translated = self.destination != self.answered_by || self.source != self.answered_to;
        let answer = Self {
            protocol: self.protocol,
            source: self.destination,
            destination: self.source,
            answered_by: self.source,
            answered_to: self.destination,
        };
        Some(answer).filter(|_| !is_translated)
    }
}

/// A frontend that was touched.
#[derive(Debug)]
struct DirtyFrontend<A> {
    /// Who answers there now; `None`: no Service has it.
    answering: Option<Arc<AnsweringEndpoints<A>>>,
    had: PreviousEndpoints<A>,
}

/// Frontends that were touched, and who answers each of them now; of an entry to any other nothing
/// is known.
#[derive(Debug)]
pub struct AnsweringFrontends<'a, A: Address> {
    dirty: &'a DirtyFrontends<A>,
    known: BTreeMap<Claim<A>, DirtyFrontend<A>>,
    claims: &'a Claims<A>,
    applied: &'a Applied<A>,
    /// The addresses that serve node ports now.
    node_ips: BTreeSet<A>,
}

impl<'a, A: Address> AnsweringFrontends<'a, A> {
    /// The frontends of `dirty` as the kernel holds them now. Linear in those and in their
    /// endpoints.
    #[must_use]
    pub fn new(
        dirty: &'a DirtyFrontends<A>,
        applied: &'a Applied<A>,
        claims: &'a Claims<A>,
    ) -> Self {
        let node_ips: BTreeSet<_> = applied.node().node_ips().collect();
        let mut alike: BTreeMap<_, Arc<AnsweringEndpoints<A>>> = BTreeMap::new();
        let mut answering = |claim: &Claim<A>| {
            let holder = claims.holder(claim)?;
            let (port, route) = applied.service_elements(holder)?.frontend(claim)?;
            // Of one port all frontends with one route are answered alike.
            let answering = alike.entry((holder, port.key(), route));
            let answering = answering.or_insert_with(|| port.answering(route).into());
            Some(Arc::clone(answering))
        };
        // Of a Service that is left out only elements are known, not whose entries are right.
        let left_out: BTreeSet<_> = applied.kept().collect();
        let is_known = |claim: &Claim<A>| {
            let holder = claims.holder(claim);
            holder.is_none_or(|holder| !left_out.contains(holder))
        };
        let known = dirty.frontends().filter(|(claim, _)| is_known(claim));
        let frontends = known.map(|(claim, had)| {
            let at_node = |claim: &Claim<A>| match *claim {
                Claim::Frontend(protocol, address, port) if node_ips.contains(&address) => {
                    Some(Claim::Nodeport(protocol, port))
                }
                Claim::Frontend(..) | Claim::Nodeport(..) => None,
            };
            let answering = answering(claim).or_else(|| answering(&at_node(claim)?));
            let had = had.clone();
            (*claim, DirtyFrontend { answering, had })
        });
        Self {
            dirty,
            known: frontends.collect(),
            claims,
            applied,
            node_ips,
        }
    }

    /// The protocols of the frontends.
    #[must_use]
    pub fn protocols(&self) -> BTreeSet<Protocol> {
        self.known.keys().map(Claim::protocol).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether a Service has the frontend, or may: of one that is left out only elements are known.
    fn has_frontend(&self, claim: &Claim<A>) -> bool {
        let Some(holder) = self.claims.holder(claim) else {
            return false;
        };
        match self.applied.service_elements(holder) {
            Some(service_elements) => service_elements.frontend(claim).is_some(),
            None => self.applied.kept().any(|kept| kept == holder),
        }
    }

    /// Whether an entry must go: the frontend that it was sent to would do something else with it
    /// now.
    ///
    /// - It leads to an endpoint that does not answer there any more.
    /// - Nothing translates it, and a Service has the frontend now.
    #[must_use]
    pub fn is_stale(&self, entry: &ConntrackEntry<A>) -> bool {
        let (address, port) = entry.destination;
        let claim = Claim::Frontend(entry.protocol, address, port);
        if let Some(frontend) = self.known.get(&claim) {
            return is_stale(entry, frontend.answering.as_deref(), true);
        }
        // A node port counts on the node's addresses only, and not where an address with a port
        // wins.
        if !self.dirty.is_node_ip(address) || self.has_frontend(&claim) {
            return false;
        }
        let claim = Claim::Nodeport(entry.protocol, port);
        let Some(frontend) = self.known.get(&claim) else {
            return false;
        };
        let answering = frontend.answering.as_deref();
        let answering = answering.filter(|_| self.node_ips.contains(&address));
        is_stale(entry, answering, frontend.had.may_be(&entry.answered_by))
    }
}

/// Whether an entry must go that was sent to a frontend where these answer now. `is_ours` says
/// whether its translation, if there is one, can be the Service's: another program may translate
/// the node's addresses, too.
fn is_stale<A: Address>(
    entry: &ConntrackEntry<A>,
    answering: Option<&AnsweringEndpoints<A>>,
    is_ours: bool,
) -> bool {
    let endpoint = entry.answered_by;
    let source_kept = entry.source.0 == entry.answered_to.0;
    let is_right = answering.is_some_and(|answering| match entry.protocol {
        Protocol::Udp => answering.answers_flow(endpoint),
        Protocol::Tcp | Protocol::Sctp => answering.answers_connection(endpoint, source_kept),
    });
    let is_translated = endpoint != entry.destination;
    let is_wrong = if is_translated {
        is_ours
    } else {
        answering.is_some()
    };
    !is_right && is_wrong
}
