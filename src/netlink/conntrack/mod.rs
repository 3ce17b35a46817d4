//! Connection tracking over netlink: dumps of entries, and deletion of stale ones.

pub(crate) mod connections;
mod tuple;

use std::io::IoSlice;
use std::net::SocketAddr;
#[cfg(feature = "testing")]
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::Error;
use crate::netlink::nf_tables::encode::family_number;
use crate::netlink::socket::attribute::{self, Attributes, MalformedMessage, NetlinkMessage};
use crate::netlink::socket::{DumpConsistency, RequestError, Socket};
use crate::netlink::uapi::conntrack::{
    CTA_FILTER, CTA_FILTER_F_CTA_PROTO_NUM, CTA_FILTER_ORIG_FLAGS, CTA_ID, CTA_PROTO_NUM,
    CTA_PROTOINFO, CTA_PROTOINFO_SCTP, CTA_PROTOINFO_SCTP_STATE, CTA_PROTOINFO_TCP,
    CTA_PROTOINFO_TCP_STATE, CTA_STATUS, CTA_STATUS_MASK, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY, CTA_ZONE, IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_GET, IPS_SEEN_REPLY,
    SCTP_CONNTRACK_CLOSED, SCTP_CONNTRACK_COOKIE_WAIT, TCP_CONNTRACK_SYN_SENT,
};
use crate::netlink::uapi::{NFNL_SUBSYS_CTNETLINK, NLM_F_REQUEST};
use crate::planner::conntrack::{ConntrackEntry, EntryScope};
use crate::planner::model::{Address, Protocol};
use tuple::Tuple;

/// The states of a TCP entry for which only its client has sent.
const TCP_UNANSWERED: &[u8] = &[TCP_CONNTRACK_SYN_SENT];

/// The states of an SCTP entry for which only its client has sent an INIT; they depend on the
/// kernel.
const SCTP_UNANSWERED: &[u8] = &[SCTP_CONNTRACK_CLOSED, SCTP_CONNTRACK_COOKIE_WAIT];

/// The number of attempts to dump the entries while they change.
const ATTEMPTS: usize = 5;

/// The number of deletions that are sent at once, so that the answers fit into the socket's queue.
const DELETIONS: usize = 1024;

/// The result of one cleanup of connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanResult<A> {
    /// The number of entries that the kernel dumped and that may be stale.
    pub entries: usize,
    /// The number of entries that were deleted.
    pub deleted: usize,
    /// The entries that were stale.
    pub stale: Vec<ConntrackEntry<A>>,
}

/// Connection tracking in the network namespace of the thread that opens it.
pub struct Conntrack {
    socket: Socket,
    /// Whether dumps have a filter; not any more after the kernel rejected one.
    filters: bool,
}

impl Conntrack {
    /// Opens connection tracking.
    ///
    /// # Errors
    /// The kernel does not open the socket.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open(SockProtocol::NetlinkNetFilter)?,
            filters: true,
        })
    }

    /// Makes connection tracking of one end of a pair of sockets, in whose other end a test has
    /// queued the answers.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn of(fd: OwnedFd) -> Self {
        Self {
            socket: Socket::of(fd),
            filters: true,
        }
    }

    /// Deletes the stale entries of family `A` in this scope, with one dump for each protocol
    /// unless it is repeated. An entry that is deleted or replaced meanwhile is not deleted.
    ///
    /// # Errors
    /// The kernel does not dump the entries, or does not delete one.
    pub fn delete<A: Address>(
        &mut self,
        scope: &EntryScope,
        is_stale: impl Fn(&ConntrackEntry<A>) -> bool,
    ) -> Result<CleanResult<A>, Error> {
        let mut all = DumpedEntries::default();
        for protocol in &scope.protocols {
            let answered = scope.has_answered(*protocol);
            let found = self.find(*protocol, answered, &is_stale)?;
            all.entries += found.entries;
            all.stale.extend(found.stale);
            all.deletions.extend(found.deletions);
        }
        let mut deleted = all.stale.len();
        let mut failed = None;
        for deletions in all.deletions.chunks(DELETIONS) {
            let pages: Vec<_> = deletions
                .iter()
                .map(|message| IoSlice::new(message))
                .collect();
            let rejected = self.socket.send(&pages)?;
            deleted = deleted.saturating_sub(rejected.len());
            let mut errors = rejected.iter().map(|message| message.errno);
            failed = failed.or(errors.find(|errno| *errno != Errno::ENOENT));
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

    /// Finds the stale entries of a protocol, those with an answer only if `answered`. If the entries change during every attempt, the
    /// result is that of the last.
    fn find<A: Address>(
        &mut self,
        protocol: Protocol,
        answered: bool,
        is_stale: impl Fn(&ConntrackEntry<A>) -> bool,
    ) -> Result<DumpedEntries<A>, Error> {
        let mut found = DumpedEntries::default();
        for _ in 0..ATTEMPTS {
            found = DumpedEntries::default();
            let dumped = self.dump::<A>(protocol, answered, |message| {
                let attributes = message.attributes();
                if let Some(entry) = parse_entry::<A>(protocol, answered, &attributes)? {
                    found.push(entry, &attributes, &is_stale);
                }
                Ok(())
            });
            match dumped {
                Ok(DumpConsistency::Consistent) => break,
                Ok(DumpConsistency::Inconsistent) | Err(RequestError::Rejected(Errno::EINTR)) => {}
                Err(error) => return Err(error.error("dump conntrack entries")),
            }
        }
        Ok(found)
    }

    /// Dumps the entries of a family; only the entries of one protocol that may be stale if the
    /// kernel supports the filter (Linux 5.8; older kernels ignore it).
    fn dump<A: Address>(
        &mut self,
        protocol: Protocol,
        answered: bool,
        mut each: impl FnMut(NetlinkMessage<'_>) -> Result<(), MalformedMessage>,
    ) -> Result<DumpConsistency, RequestError> {
        let kind = kind(IPCTNL_MSG_CT_GET);
        let family = family_number(A::FAMILY);
        if self.filters {
            match self
                .socket
                .dump(kind, family, &dump_filter(protocol, answered), &mut each)
            {
                Err(RequestError::Rejected(Errno::EOPNOTSUPP | Errno::EINVAL)) => {
                    self.filters = false;
                }
                result => return result,
            }
        }
        self.socket.dump(kind, family, &[], each)
    }
}

/// The entries of dumps that may be stale.
struct DumpedEntries<A> {
    /// The number of entries.
    entries: usize,
    /// The entries that are stale.
    stale: Vec<ConntrackEntry<A>>,
    /// The message that deletes each stale entry, in the same order.
    deletions: Vec<Vec<u8>>,
}

impl<A: Address> DumpedEntries<A> {
    /// Counts an entry of a message with these attributes, and keeps it if it is stale.
    fn push(
        &mut self,
        entry: ConntrackEntry<A>,
        attributes: &Attributes<'_>,
        is_stale: impl Fn(&ConntrackEntry<A>) -> bool,
    ) {
        self.entries += 1;
        if is_stale(&entry) {
            self.stale.push(entry);
            self.deletions.push(deletion::<A>(attributes));
        }
    }
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

/// Returns the type of a message of ctnetlink, with its subsystem.
fn kind(message: u8) -> u16 {
    attribute::kind(NFNL_SUBSYS_CTNETLINK, message)
}

/// Returns the attributes that filter a dump: entries of this protocol, and unless `answered` only
/// those that were never answered (`CTA_STATUS_MASK`, Linux 5.15; older kernels ignore it).
fn dump_filter(protocol: Protocol, answered: bool) -> Vec<u8> {
    let (mut number, mut tuple, mut flags) = (Vec::new(), Vec::new(), Vec::new());
    attribute::push(&mut number, CTA_PROTO_NUM, &[protocol.number()]);
    attribute::push_nested(&mut tuple, CTA_TUPLE_PROTO, &number);
    attribute::push(
        &mut flags,
        CTA_FILTER_ORIG_FLAGS,
        &CTA_FILTER_F_CTA_PROTO_NUM.to_ne_bytes(),
    );
    let mut attributes = Vec::new();
    attribute::push_nested(&mut attributes, CTA_TUPLE_ORIG, &tuple);
    attribute::push_nested(&mut attributes, CTA_FILTER, &flags);
    if !answered {
        attribute::push(&mut attributes, CTA_STATUS, &0_u32.to_be_bytes());
        attribute::push(
            &mut attributes,
            CTA_STATUS_MASK,
            &IPS_SEEN_REPLY.to_be_bytes(),
        );
    }
    attributes
}

/// Returns the message that deletes a dumped entry.
///
/// It has the entry's original tuple and zone, and the entry's identity, so that an entry that took
/// its place meanwhile stays.
fn deletion<A: Address>(entry: &Attributes<'_>) -> Vec<u8> {
    let mut attributes = Vec::new();
    if let Some(tuple) = entry.get(CTA_TUPLE_ORIG) {
        attribute::push_nested(&mut attributes, CTA_TUPLE_ORIG, tuple.value);
    }
    for kind in [CTA_ZONE, CTA_ID] {
        if let Some(plain) = entry.get(kind) {
            attribute::push(&mut attributes, kind, plain.value);
        }
    }
    let kind = kind(IPCTNL_MSG_CT_DELETE);
    // The answers are only counted by error, so that the messages need no number.
    let sequence = 0;
    attribute::request(
        kind,
        NLM_F_REQUEST,
        family_number(A::FAMILY),
        sequence,
        &attributes,
    )
}

/// Reads an entry; `None` if it has another protocol or family, or cannot be stale.
fn parse_entry<A: Address>(
    protocol: Protocol,
    answered: bool,
    attributes: &Attributes<'_>,
) -> Result<Option<ConntrackEntry<A>>, MalformedMessage> {
    let original = Tuple::parse(attributes, CTA_TUPLE_ORIG)?;
    let Some(original) = original.filter(|tuple| tuple.protocol == protocol) else {
        return Ok(None);
    };
    let reply = Tuple::parse(attributes, CTA_TUPLE_REPLY)?.ok_or(MalformedMessage)?;
    let established = protocol == Protocol::Tcp && has_answer(attributes)?;
    if !(established && answered || may_be_stale(protocol, attributes)?) {
        return Ok(None);
    }
    let end = |end: SocketAddr| Some((A::from_ip(end.ip())?, end.port()));
    let entry = || {
        Some(ConntrackEntry {
            protocol,
            established,
            source: end(original.source)?,
            destination: end(original.destination)?,
            reply_source: end(reply.source)?,
            reply_destination: end(reply.destination)?,
        })
    };
    Ok(entry())
}

/// Whether the destination of an entry has answered.
fn has_answer(attributes: &Attributes<'_>) -> Result<bool, MalformedMessage> {
    let status = attributes.get(CTA_STATUS).ok_or(MalformedMessage)?;
    Ok(status.number().ok_or(MalformedMessage)? & IPS_SEEN_REPLY != 0)
}

/// Whether an entry of this protocol may be stale: any entry of UDP, and otherwise an entry for
/// which only its client has sent, a SYN or an INIT.
fn may_be_stale(protocol: Protocol, attributes: &Attributes<'_>) -> Result<bool, MalformedMessage> {
    let (kind, number, unanswered) = match protocol {
        Protocol::Udp => return Ok(true),
        Protocol::Tcp => (CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, TCP_UNANSWERED),
        Protocol::Sctp => (
            CTA_PROTOINFO_SCTP,
            CTA_PROTOINFO_SCTP_STATE,
            SCTP_UNANSWERED,
        ),
    };
    if has_answer(attributes)? {
        return Ok(false);
    }
    // The kernel dumps no state of an entry that a network card handles.
    let Some(info) = attributes.get(CTA_PROTOINFO) else {
        return Ok(false);
    };
    let state = info.nested().get(kind).ok_or(MalformedMessage)?;
    let state = state.nested().get(number).ok_or(MalformedMessage)?;
    let state = state.value.first().ok_or(MalformedMessage)?;
    Ok(unanswered.contains(state))
}
