//! Connection tracking over netlink: dump the entries of a family and protocol, delete some.

pub(crate) mod connections;
mod tuple;

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::net::SocketAddr;

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use crate::netlink::Error;
use crate::netlink::nf_tables::encode::family_number;
use crate::netlink::socket::attribute::{self, Attributes, NetlinkMessage};
use crate::netlink::socket::{DumpError, Socket};
use crate::netlink::uapi::{
    CTA_FILTER, CTA_FILTER_ORIG_FLAGS, CTA_ID, CTA_PROTO_NUM, CTA_PROTOINFO, CTA_PROTOINFO_SCTP,
    CTA_PROTOINFO_SCTP_STATE, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, CTA_STATUS,
    CTA_STATUS_MASK, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE,
};
use crate::planner::conntrack::ConntrackEntry;
use crate::planner::model::{Address, Protocol};
use tuple::Tuple;

/// Messages of `linux/netfilter/nfnetlink_conntrack.h`.
const IPCTNL_MSG_CT_GET: i32 = 1;
const IPCTNL_MSG_CT_DELETE: i32 = 2;

/// `CTA_FILTER_F_CTA_PROTO_NUM` of `net/netfilter/nf_internals.h`: the protocol must be equal.
const FILTER_PROTO_NUM: u32 = 1 << 3;

/// `IPS_SEEN_REPLY` of `linux/netfilter/nf_conntrack_common.h`: a packet came back.
const SEEN_REPLY: u32 = 1 << 1;

/// `TCP_CONNTRACK_SYN_SENT` of `linux/netfilter/nf_conntrack_tcp.h`.
const TCP_SYN_SENT: &[u8] = &[1];

/// `SCTP_CONNTRACK_CLOSED` and `SCTP_CONNTRACK_COOKIE_WAIT` of `linux/netfilter/nf_conntrack_sctp.h`:
/// which of them an INIT makes depends on the kernel.
const SCTP_INIT: &[u8] = &[1, 2];

/// How often a dump is asked for again because the table changed meanwhile.
const ATTEMPTS: usize = 5;

/// How many deletions are sent at once: what the kernel may say of them fits the receive queue.
const DELETIONS: usize = 1024;

/// What became of one look through the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanResult<A> {
    /// How many entries the kernel gave out that may be stale.
    pub entries: usize,
    /// How many of them were deleted.
    pub deleted: usize,
    /// Those that were stale.
    pub stale: Vec<ConntrackEntry<A>>,
}

/// Connection tracking of the network namespace that the calling thread was in when it was opened.
pub struct Conntrack {
    socket: Socket,
    /// Whether the kernel is asked for entries of one protocol; it is not if it once refused.
    filters: bool,
}

impl Conntrack {
    /// Opens connection tracking.
    ///
    /// # Errors
    /// Whatever keeps the socket from opening.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open()?;
        Ok(Self {
            socket,
            filters: true,
        })
    }

    /// Deletes the entries of family `A` and these protocols that `stale` says of: one dump of each, but
    /// for repetitions. An entry that is deleted or replaced meanwhile is none of ours.
    ///
    /// # Errors
    /// If the kernel gives out no dump, or does not delete an entry.
    pub fn delete<A: Address>(
        &mut self,
        protocols: &BTreeSet<Protocol>,
        stale: impl Fn(&ConntrackEntry<A>) -> bool,
    ) -> Result<CleanResult<A>, Error> {
        let mut all = DumpedEntries::default();
        for protocol in protocols {
            let found = self.find(*protocol, &stale)?;
            all.entries += found.entries;
            all.stale.extend(found.stale);
            all.deletions.extend(found.deletions);
        }
        let mut deleted = all.stale.len();
        let mut failed = None;
        for messages in all.deletions.chunks(DELETIONS) {
            let messages: Vec<_> = messages
                .iter()
                .map(|message| IoSlice::new(message))
                .collect();
            let refused = self.socket.send(&messages)?;
            deleted = deleted.saturating_sub(refused.len());
            let mut refused = refused.iter().map(|refused| refused.errno);
            failed = failed.or(refused.find(|errno| *errno != Errno::ENOENT));
        }
        match failed {
            None => Ok(CleanResult {
                entries: all.entries,
                deleted,
                stale: all.stale,
            }),
            Some(errno) => Err(Error::errno("delete a conntrack entry")(errno)),
        }
    }

    /// The number of entries, and those that are stale. Of a table that changes all the while, what the
    /// last dump held.
    fn find<A: Address>(
        &mut self,
        protocol: Protocol,
        stale: impl Fn(&ConntrackEntry<A>) -> bool,
    ) -> Result<DumpedEntries<A>, Error> {
        let mut found = DumpedEntries::default();
        for _ in 0..ATTEMPTS {
            found = DumpedEntries::default();
            let whole = self.dump::<A>(protocol, |message| {
                let Some(entry) = entry::<A>(protocol, &message.attributes()) else {
                    return;
                };
                found.entries += 1;
                if stale(&entry) {
                    let sequence = u32::try_from(found.stale.len()).unwrap_or(u32::MAX);
                    found.stale.push(entry);
                    let deletion = deletion::<A>(&message.attributes(), sequence);
                    found.deletions.push(deletion);
                }
            });
            match whole {
                Ok(true) => break,
                Ok(false) | Err(DumpError::Rejected(Errno::EINTR)) => {}
                Err(DumpError::Rejected(errno)) => {
                    return Err(Error::errno("dump conntrack")(errno));
                }
                Err(DumpError::Failed(error)) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Dumps the entries of a family, only those of one protocol that may be stale if the kernel can
    /// tell (Linux 5.8; an older one ignores the filter).
    fn dump<A: Address>(
        &mut self,
        protocol: Protocol,
        mut each: impl FnMut(NetlinkMessage<'_>),
    ) -> Result<bool, DumpError> {
        let kind = kind(IPCTNL_MSG_CT_GET);
        let family = family_number(A::FAMILY);
        if self.filters {
            match self
                .socket
                .dump_of(kind, family, &only(protocol), &mut each)
            {
                Err(DumpError::Rejected(Errno::EOPNOTSUPP | Errno::EINVAL)) => self.filters = false,
                result => return result,
            }
        }
        self.socket.dump_of(kind, family, &[], each)
    }
}

/// What a dump held.
struct DumpedEntries<A> {
    entries: usize,
    stale: Vec<ConntrackEntry<A>>,
    /// The message that deletes each of them.
    deletions: Vec<Vec<u8>>,
}

impl<A> Default for DumpedEntries<A> {
    fn default() -> Self {
        Self {
            entries: 0,
            stale: Vec::new(),
            deletions: Vec::new(),
        }
    }
}

/// A message of ctnetlink, with its subsystem.
fn kind(message: i32) -> u16 {
    attribute::kind(libc::NFNL_SUBSYS_CTNETLINK, message)
}

/// Asks for entries whose original tuple is of this protocol; but for UDP, of those that were never
/// answered (`CTA_STATUS_MASK`, Linux 5.15; an older kernel passes over it).
fn only(protocol: Protocol) -> Vec<u8> {
    let (mut number, mut tuple, mut flags) = (Vec::new(), Vec::new(), Vec::new());
    attribute::push(&mut number, CTA_PROTO_NUM, &[protocol.number()]);
    attribute::push_nested(&mut tuple, CTA_TUPLE_PROTO, &number);
    attribute::push(
        &mut flags,
        CTA_FILTER_ORIG_FLAGS,
        &FILTER_PROTO_NUM.to_ne_bytes(),
    );
    let mut attributes = Vec::new();
    attribute::push_nested(&mut attributes, CTA_TUPLE_ORIG, &tuple);
    attribute::push_nested(&mut attributes, CTA_FILTER, &flags);
    if protocol != Protocol::Udp {
        attribute::push(&mut attributes, CTA_STATUS, &0_u32.to_be_bytes());
        attribute::push(&mut attributes, CTA_STATUS_MASK, &SEEN_REPLY.to_be_bytes());
    }
    attributes
}

/// The message that deletes an entry: its original tuple and zone as they were dumped, and its
/// identity, so that an entry that took its place meanwhile stays.
fn deletion<A: Address>(attributes: &Attributes<'_>, sequence: u32) -> Vec<u8> {
    let mut wanted = Vec::new();
    if let Some(tuple) = attributes.get(CTA_TUPLE_ORIG) {
        attribute::push_nested(&mut wanted, CTA_TUPLE_ORIG, tuple.value);
    }
    for kind in [CTA_ZONE, CTA_ID] {
        if let Some(plain) = attributes.get(kind) {
            attribute::push(&mut wanted, kind, plain.value);
        }
    }
    let family = family_number(A::FAMILY);
    attribute::request(
        kind(IPCTNL_MSG_CT_DELETE),
        attribute::REQUEST,
        family,
        sequence,
        &wanted,
    )
}

/// The entry that a message of a dump is; `None` if it is not of this protocol and family, or was
/// answered where that counts.
fn entry<A: Address>(protocol: Protocol, attributes: &Attributes<'_>) -> Option<ConntrackEntry<A>> {
    let original = Tuple::parse(&attributes.get(CTA_TUPLE_ORIG)?.nested())?;
    let reply = Tuple::parse(&attributes.get(CTA_TUPLE_REPLY)?.nested())?;
    if original.protocol != protocol || !may_be_stale(protocol, attributes)? {
        return None;
    }
    let end = |at: SocketAddr| Some((A::from_ip(at.ip())?, at.port()));
    Some(ConntrackEntry {
        protocol,
        source: end(original.source)?,
        destination: end(original.destination)?,
        reply_source: end(reply.source)?,
        reply_destination: end(reply.destination)?,
    })
}

/// Whether an entry of this protocol may be stale: any of UDP; else one that only its client has sent
/// for, a SYN or an INIT.
fn may_be_stale(protocol: Protocol, attributes: &Attributes<'_>) -> Option<bool> {
    let (kind, number, first) = match protocol {
        Protocol::Udp => return Some(true),
        Protocol::Tcp => (CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, TCP_SYN_SENT),
        Protocol::Sctp => (CTA_PROTOINFO_SCTP, CTA_PROTOINFO_SCTP_STATE, SCTP_INIT),
    };
    let status = attributes.get(CTA_STATUS)?.value.try_into().ok()?;
    let state = attributes.get(CTA_PROTOINFO)?.nested().get(kind)?;
    let state = state.nested().get(number)?.value.first().copied()?;
    Some(u32::from_be_bytes(status) & SEEN_REPLY == 0 && first.contains(&state))
}
