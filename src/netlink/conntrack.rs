//! Connection tracking over netlink: dump the UDP entries of a family, delete some.

use std::io::IoSlice;
use std::net::SocketAddr;

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use super::Error;
use super::attribute::{self, Attributes, Message};
use super::encode::family_number;
use super::numbers::{
    CTA_FILTER, CTA_FILTER_ORIG_FLAGS, CTA_ID, CTA_PROTO_NUM, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY, CTA_ZONE,
};
use super::socket::{Dump, Socket};
use super::tuple::Tuple;
use crate::conntrack::Entry;
use crate::model::{Address, Protocol};

/// Messages of `linux/netfilter/nfnetlink_conntrack.h`.
const IPCTNL_MSG_CT_GET: i32 = 1;
const IPCTNL_MSG_CT_DELETE: i32 = 2;

/// `CTA_FILTER_F_CTA_PROTO_NUM` of `net/netfilter/nf_internals.h`: the protocol must be equal.
const FILTER_PROTO_NUM: u32 = 1 << 3;

/// How often a dump is asked for again because the table changed meanwhile.
const ATTEMPTS: usize = 5;

/// How many deletions are sent at once: what the kernel may say of them fits the receive queue.
const DELETIONS: usize = 1024;

/// What became of one look through the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// How many UDP entries there were.
    pub entries: usize,
    /// How many of them were deleted.
    pub deleted: usize,
}

/// Connection tracking of the network namespace that the calling thread was in when it was opened.
pub struct Conntrack {
    socket: Socket,
    /// Whether the kernel is asked for UDP entries only; it is not if it once refused.
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

    /// Deletes the UDP entries of family `A` that `stale` says of: one dump, but for repetitions.
    /// An entry that is deleted or replaced meanwhile is none of ours.
    ///
    /// # Errors
    /// If the kernel gives out no dump, or does not delete an entry.
    pub fn delete<A: Address>(
        &mut self,
        stale: impl Fn(&Entry<A>) -> bool,
    ) -> Result<Cleaned, Error> {
        let (entries, found) = self.find(stale)?;
        let mut cleaned = Cleaned {
            entries,
            deleted: found.len(),
        };
        let mut failed = None;
        for messages in found.chunks(DELETIONS) {
            let messages: Vec<_> = messages
                .iter()
                .map(|message| IoSlice::new(message))
                .collect();
            let refused = self.socket.send(&messages)?;
            cleaned.deleted = cleaned.deleted.saturating_sub(refused.len());
            let mut refused = refused.iter().map(|refused| refused.errno);
            failed = failed.or(refused.find(|errno| *errno != Errno::ENOENT));
        }
        match failed {
            None => Ok(cleaned),
            Some(errno) => Err(Error::errno("delete a conntrack entry")(errno)),
        }
    }

    /// The number of UDP entries, and a message that deletes it for each that is stale. Of a table
    /// that changes all the while, what the last dump held.
    fn find<A: Address>(
        &mut self,
        stale: impl Fn(&Entry<A>) -> bool,
    ) -> Result<(usize, Vec<Vec<u8>>), Error> {
        let (mut entries, mut found) = (0, Vec::new());
        for _ in 0..ATTEMPTS {
            (entries, found) = (0, Vec::new());
            let whole = self.dump::<A>(|message| {
                let Some(entry) = entry::<A>(&message.attributes()) else {
                    return;
                };
                entries += 1;
                if stale(&entry) {
                    let sequence = u32::try_from(found.len()).unwrap_or(u32::MAX);
                    found.push(deletion::<A>(&message.attributes(), sequence));
                }
            });
            match whole {
                Ok(true) => break,
                Ok(false) | Err(Dump::Refused(Errno::EINTR)) => {}
                Err(Dump::Refused(errno)) => return Err(Error::errno("dump conntrack")(errno)),
                Err(Dump::Failed(error)) => return Err(error),
            }
        }
        Ok((entries, found))
    }

    /// Dumps the entries of a family, only those of UDP if the kernel can tell (Linux 5.8; an older
    /// one ignores the filter).
    fn dump<A: Address>(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<bool, Dump> {
        let kind = kind(IPCTNL_MSG_CT_GET);
        let family = family_number(A::FAMILY);
        if self.filters {
            match self.socket.dump_of(kind, family, &udp_only(), &mut each) {
                Err(Dump::Refused(Errno::EOPNOTSUPP | Errno::EINVAL)) => self.filters = false,
                result => return result,
            }
        }
        self.socket.dump_of(kind, family, &[], each)
    }
}

/// A message of ctnetlink, with its subsystem.
fn kind(message: i32) -> u16 {
    attribute::kind(libc::NFNL_SUBSYS_CTNETLINK, message)
}

/// Asks for entries whose original tuple is of UDP.
fn udp_only() -> Vec<u8> {
    let (mut number, mut tuple, mut flags) = (Vec::new(), Vec::new(), Vec::new());
    attribute::push(&mut number, CTA_PROTO_NUM, &[Protocol::Udp.number()]);
    attribute::push_nested(&mut tuple, CTA_TUPLE_PROTO, &number);
    attribute::push(
        &mut flags,
        CTA_FILTER_ORIG_FLAGS,
        &FILTER_PROTO_NUM.to_ne_bytes(),
    );
    let mut attributes = Vec::new();
    attribute::push_nested(&mut attributes, CTA_TUPLE_ORIG, &tuple);
    attribute::push_nested(&mut attributes, CTA_FILTER, &flags);
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

/// The entry that a message of a dump is; `None` if it is not of UDP or not of this family.
fn entry<A: Address>(attributes: &Attributes<'_>) -> Option<Entry<A>> {
    let original = Tuple::parse(&attributes.get(CTA_TUPLE_ORIG)?.nested())?;
    let reply = Tuple::parse(&attributes.get(CTA_TUPLE_REPLY)?.nested())?;
    if original.protocol != Protocol::Udp {
        return None;
    }
    let end = |at: SocketAddr| Some((A::of(at.ip())?, at.port()));
    Some(Entry {
        source: end(original.source)?,
        destination: end(original.destination)?,
        answered_by: end(reply.source)?,
        answered_to: end(reply.destination)?,
    })
}
