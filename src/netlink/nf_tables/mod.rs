//! nf_tables: commits to our tables, and reads of them.

pub(crate) mod abilities;
pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod counters;
pub(crate) mod element;
pub(crate) mod encode;
mod expr;
pub(crate) mod inspect;
pub(crate) mod keyed;
pub(crate) mod monitor;
mod operations;
pub(crate) mod read;
pub(crate) mod readable;
mod table;

use std::ffi::CString;
use std::ops::Range;
#[cfg(feature = "testing")]
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::error::{Error, RejectedAt, Rejection};
use crate::netlink::socket::attribute::{Attribute, MalformedMessage};
use crate::netlink::socket::{RejectedMessage, RequestError, Socket, attribute};
use crate::netlink::uapi::NFNL_SUBSYS_NFTABLES;
use crate::netlink::uapi::nf_tables::{NFT_MSG_GETGEN, NFT_MSG_GETTABLE, NFTA_GEN_ID};
use crate::planner::diff::{Op, Operation, TableStatus};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol, ServiceName};
use crate::planner::ruleset::{Denial, DynamicChain, Element, Key, Program, SetName, Table};
use batch::{Batch, FinishedBatch, MessageSubject};
use commit::{Commit, FamilyCommit};
use counters::CountedElement;
use element::PinnedClient;
use keyed::ElementKey;

/// Returns a name as C takes it.
#[expect(
    clippy::expect_used,
    reason = "our names are constants, or constants and numbers, none with a NUL"
)]
fn name(name: &str) -> CString {
    CString::new(name).expect("a name without NUL")
}

/// Whether the pinned clients of a commit are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnpinOutcome {
    /// The clients are deleted.
    Committed,
    /// A client timed out meanwhile, so that this kernel (before Linux 6.3) deleted none.
    TimedOut,
}

/// nf_tables in the network namespace of the thread that opens it.
pub struct Kernel {
    pub(crate) socket: Socket,
    /// A second socket to read with; `None` before the first use.
    second: Option<Socket>,
    /// Whether this process owns the tables that it makes.
    owner: bool,
    /// Whether the kernel can delete elements that do not exist; `None` before the first probe.
    destroys_elements: Option<bool>,
    /// The bytes of all transactions so far.
    sent_bytes: u64,
}

impl Kernel {
    /// Opens nf_tables, and checks that the kernel has it and permits its use.
    ///
    /// # Errors
    /// [`Error::NoNftables`], [`Error::Permission`], or the failure of the socket.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        let family = encode::family_number(Family::Ipv4);
        match socket.dump_nftables(NFT_MSG_GETTABLE, family, &[], |_| Ok(())) {
            Ok(_) => Ok(Self {
                socket,
                second: None,
                owner: false,
                destroys_elements: None,
                sent_bytes: 0,
            }),
            Err(RequestError::Rejected(
                Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT,
            )) => Err(Error::NoNftables),
            Err(error) => Err(error.error("read nftables")),
        }
    }

    /// Makes a kernel of one end of a pair of sockets, in whose other end a test has queued the
    /// answers.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn of(fd: OwnedFd) -> Self {
        Self {
            socket: Socket::of(fd),
            second: None,
            owner: false,
            destroys_elements: None,
            sent_bytes: 0,
        }
    }

    /// Makes this process the owner of the tables that it makes or adopts from now on, if the
    /// kernel supports that ([`Self::owns_tables`]).
    ///
    /// Only the owner can change or delete its table, and the table stays when this value is
    /// dropped (flags `owner` and `persist`, Linux 6.9).
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn own_tables(&mut self) -> Result<(), Error> {
        self.owner = self.supports_table_ownership()?;
        Ok(())
    }

    /// Whether this process owns the tables that it makes.
    #[must_use]
    pub fn owns_tables(&self) -> bool {
        self.owner
    }

    /// Returns whether the kernel supports tables with an owner.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn supports_table_ownership(&mut self) -> Result<bool, Error> {
        table::supports_ownership(&mut self.socket)
    }

    /// Returns whether there is a table of our name in one of these families.
    ///
    /// # Errors
    /// The kernel does not dump the tables.
    pub fn has_tables(&mut self, families: &[Family]) -> Result<bool, Error> {
        for family in families {
            if table::find(&mut self.socket, *family)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the netlink port of the socket, by which the kernel names it in notifications.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Returns the number of bytes of all transactions so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Returns the generation of the ruleset, which each transaction of any process increments.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let kind = attribute::kind(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN);
        let generation = self.socket.query(kind, 0, &[], |message| {
            let id = message.attributes().get(NFTA_GEN_ID);
            id.and_then(Attribute::number).ok_or(MalformedMessage)
        });
        generation.map_err(|error| error.error("read the ruleset's generation"))
    }

    /// Commits the parts of all families in one transaction, and returns after the kernel
    /// committed.
    ///
    /// # Errors
    /// [`Error::Rejected`] names what the kernel rejected, and nothing is committed;
    /// [`Error::Lost`] if the outcome is unknown.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), Error> {
        self.send(commit.batch(self.owner), commit)
    }

    /// Deletes our tables, and returns the families that had one.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn delete_tables(&mut self) -> Result<Vec<Family>, Error> {
        let mut deleted = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut batch = Batch::new();
            table::push_delete(&mut batch, family);
            match self.send(batch, &Commit::default()) {
                Ok(()) => deleted.push(family),
                Err(Error::Rejected(rejections)) if all(&rejections, Errno::ENOENT) => {}
                Err(Error::Rejected(rejections)) if all(&rejections, Errno::EPERM) => {
                    return Err(Error::Owned(family));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    /// Reads our table of family `A`, which should be made from this program. If tables are to be
    /// owned, this process first becomes the owner of a table that lost its owner.
    ///
    /// # Errors
    /// The kernel does not dump the table, other processes change it all the time, or another
    /// process owns it.
    pub fn read<A: Address>(&mut self, fixed: &Program) -> Result<TableStatus<Table<A>>, Error> {
        match self.own_found_table::<A>()? {
            Some(foreign) => Ok(TableStatus::Foreign(foreign)),
            None => read::read(&mut self.socket, fixed),
        }
    }

    /// Reads our table as [`Self::read`] does, but without the elements of Services, which
    /// [`Self::read_keys`] reads.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_without_keyed<A: Address>(
        &mut self,
        fixed: &Program,
    ) -> Result<TableStatus<Table<A>>, Error> {
        match self.own_found_table::<A>()? {
            Some(foreign) => Ok(TableStatus::Foreign(foreign)),
            None => read::read_without_keyed(&mut self.socket, fixed),
        }
    }

    /// Reads the elements that exist of these keys, in time linear in their number.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn read_keys<A: Address>(
        &mut self,
        keys: &[ElementKey<A>],
    ) -> Result<TableStatus<Vec<Element<A>>>, Error> {
        read::read_keys(&mut self.socket, keys)
    }

    /// Returns two readers of elements, so that two threads can read at once.
    ///
    /// # Errors
    /// The failure of the socket.
    pub fn key_readers(&mut self) -> Result<[read::KeyReader<'_>; 2], Error> {
        let second = match &mut self.second {
            Some(second) => second,
            none => none.insert(Socket::open(SockProtocol::NetlinkNetFilter)?),
        };
        Ok([&mut self.socket, second].map(read::KeyReader::new))
    }

    /// Makes this process the owner of our table if it is to be owned and has no owner. Returns why
    /// the table must be replaced, if it cannot be owned.
    fn own_found_table<A: Address>(&mut self) -> Result<Option<String>, Error> {
        if let Some(found) = table::find(&mut self.socket, A::FAMILY)? {
            if found.owner.is_some_and(|owner| owner != self.port()) {
                return Err(Error::Owned(A::FAMILY));
            }
            if self.owner && !found.persists {
                return Ok(Some("anyone can change it".to_owned()));
            }
            if self.owner && found.owner.is_none() {
                self.own_table(A::FAMILY)?;
            }
        }
        Ok(None)
    }

    /// Makes this process the owner of a table that has no owner any more.
    fn own_table(&mut self, family: Family) -> Result<(), Error> {
        let mut batch = Batch::new();
        table::push_own(&mut batch, family);
        self.send(batch, &Commit::default())
    }

    /// Reads the pinned clients of a protocol. The cost is the square of their number.
    ///
    /// # Errors
    /// The kernel does not dump the clients.
    pub fn pinned_clients<A: Address>(
        &mut self,
        protocol: Protocol,
    ) -> Result<Vec<PinnedClient<A>>, Error> {
        element::pinned_clients::<A>(&mut self.socket, protocol)
    }

    /// Commits the deletion of pinned clients ([`FamilyCommit::forget`]), of which some may have
    /// timed out meanwhile.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn unpin_clients(&mut self, commit: &Commit) -> Result<UnpinOutcome, Error> {
        let destroys = match self.destroys_elements {
            Some(destroys) => destroys,
            None => table::supports_destroying_elements(&mut self.socket)?,
        };
        self.destroys_elements = Some(destroys);
        let batch = if destroys {
            commit.tolerant_batch()
        } else {
            commit.batch(self.owner)
        };
        match self.send(batch, commit) {
            Ok(()) => Ok(UnpinOutcome::Committed),
            Err(Error::Rejected(rejections)) if all(&rejections, Errno::ENOENT) => {
                // A kernel that accepts missing elements rejects only a missing map.
                Ok(if destroys {
                    UnpinOutcome::Committed
                } else {
                    UnpinOutcome::TimedOut
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Reads how many connections of each protocol were balanced without affinity since the table
    /// was made, because the protocol's affinity map was full.
    ///
    /// # Errors
    /// The kernel does not dump the counters.
    pub fn affinity_overflows<A: Address>(&mut self) -> Result<Vec<(Protocol, u64)>, Error> {
        let counted = self.counters::<A>(SetName::AffinityFull)?;
        let overflow = |element: CountedElement<A>| {
            let Key::Protocol(protocol) = element.key else {
                return None;
            };
            Some((protocol, element.packets))
        };
        Ok(counted.into_iter().filter_map(overflow).collect())
    }

    /// Reads the counters of [`Denial::MAPS`], each since its element was added: the connections of
    /// frontends and node ports, and those of external policy Local from outside. The cost is the
    /// square of their number.
    ///
    /// # Errors
    /// The kernel does not dump the counters.
    pub fn connection_counters<A: Address>(
        &mut self,
    ) -> Result<Vec<(SetName, CountedElement<A>)>, Error> {
        let mut all = Vec::new();
        for set in Denial::MAPS {
            let counted = self.counters(set)?.into_iter();
            all.extend(counted.map(|element| (set, element)));
        }
        Ok(all)
    }

    /// Reads the counter of each element of a set. The cost is the square of their number.
    ///
    /// # Errors
    /// The kernel does not dump the counters.
    pub fn counters<A: Address>(&mut self, set: SetName) -> Result<Vec<CountedElement<A>>, Error> {
        counters::read(&mut self.socket, set)
    }

    /// Sends a batch that was made from this commit.
    fn send(&mut self, batch: Batch, commit: &Commit) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let finished = batch.finish();
        let pages = finished.pages();
        let bytes: usize = pages.iter().map(|page| page.len()).sum();
        self.sent_bytes += number_of_bytes(bytes);
        let rejected = self.socket.send(&pages)?;
        if rejected.is_empty() {
            return Ok(());
        }
        let rejections: Vec<_> = rejected
            .iter()
            .map(|rejected| describe_rejection(rejected, &finished, commit))
            .collect();
        // The kernel rejects the batch as a whole when the caller may not change nftables at all.
        let is_forbidden = |rejection: &Rejection| {
            rejection.at == RejectedAt::Transaction && rejection.errno == Errno::EPERM
        };
        if rejections.iter().any(is_forbidden) {
            return Err(Error::Permission);
        }
        Err(Error::Rejected(rejections))
    }
}

#[expect(
    clippy::expect_used,
    reason = "no system has addresses of more than 64 bits"
)]
fn number_of_bytes(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a size of 64 bits")
}

/// Whether the kernel rejected every part for this reason.
fn all(rejections: &[Rejection], errno: Errno) -> bool {
    rejections.iter().all(|rejection| rejection.errno == errno)
}

/// Describes a message that the kernel rejected.
fn describe_rejection(
    rejected: &RejectedMessage,
    finished: &FinishedBatch,
    commit: &Commit,
) -> Rejection {
    let (at, (operation, services)) = match finished.subject(rejected.sequence, rejected.offset) {
        None => (
            RejectedAt::Transaction,
            ("the transaction".to_owned(), Vec::new()),
        ),
        Some(MessageSubject::Undo) => (RejectedAt::Undo, ("undo".to_owned(), Vec::new())),
        Some(MessageSubject::Program(text)) => (RejectedAt::Program, (text, Vec::new())),
        Some(MessageSubject::Operations(family, range)) => {
            let described = match family {
                Family::Ipv4 => describe(Some(&commit.ipv4), range.clone()),
                Family::Ipv6 => describe(commit.ipv6.as_ref(), range.clone()),
            };
            (RejectedAt::Operations(family, range), described)
        }
    };
    Rejection {
        at,
        operation,
        services,
        errno: rejected.errno,
        explanation: rejected.explanation.clone(),
    }
}

/// Returns operations of a commit in nft's words, and the Services that they are for: those of a new
/// chain with a hash are all whose elements go to it.
fn describe<A: Address>(
    part: Option<&FamilyCommit<A>>,
    range: Range<usize>,
) -> (String, Vec<ServiceName>) {
    #[expect(
        clippy::expect_used,
        reason = "the batch was made from this commit, and its index from these operations"
    )]
    let (all, operations) = part
        .map(|part| &part.transaction.operations)
        .and_then(|all| Some((all, all.get(range)?)))
        .expect("a message is about operations of its commit");
    let mut services: Vec<_> = match operations {
        // Not every kernel has a hash.
        [
            Operation {
                op: Op::AddChain(chain @ DynamicChain::Hashed(..)),
                ..
            },
        ] => services(
            all.iter()
                .filter(|of| of.op.chain_for_element() == Some(*chain)),
        ),
        _ => services(operations.iter()),
    };
    services.sort_unstable();
    services.dedup();
    let text = match operations {
        [] => "no operation".to_owned(),
        [one] => one.op.to_string(),
        [first, ..] => format!("one of {} operations from {}", operations.len(), first.op),
    };
    (text, services)
}

/// Returns the Services of operations.
fn services<'a, A: Address + 'a>(
    operations: impl Iterator<Item = &'a Operation<A>>,
) -> Vec<ServiceName> {
    operations.filter_map(|of| of.service.clone()).collect()
}
