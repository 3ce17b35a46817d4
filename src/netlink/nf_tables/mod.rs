//! nf_tables: our tables, and what the kernel answers about them.

pub(crate) mod abilities;
pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod counters;
pub(crate) mod element;
pub(crate) mod encode;
mod expr;
pub(crate) mod inspect;
pub(crate) mod notices;
pub(crate) mod read;
mod table;

use std::ffi::CString;
use std::ops::Range;

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use crate::netlink::error::{Error, RejectedAt, Rejection};
use crate::netlink::socket::{self, DumpError, Socket, attribute};
use crate::netlink::uapi::NFTA_GEN_ID;
use crate::planner::diff::TableStatus;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol, ServiceName};
use crate::planner::ruleset::{Key, Program, SetName, Table};
use batch::{Batch, FinishedBatch, MessageSubject};
use commit::{Commit, FamilyCommit};
use counters::CountedElement;
use element::PinnedClient;

/// nf_tables' type of a verdict, as data of a map.
const NFT_DATA_VERDICT: u32 = libc::NFT_DATA_VERDICT;

/// A name for libnftnl: ours are constants or made of digits, never with a NUL.
fn name(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

/// The nf_tables of the network namespace that the calling thread was in when it was opened.
pub struct Kernel {
    pub(crate) socket: Socket,
    /// Whether the tables are to be ours alone.
    owner: bool,
    /// Whether it deletes elements that may be gone already, once it was asked.
    destroys: Option<bool>,
    sent_bytes: u64,
}

impl Kernel {
    /// Opens nf_tables and makes sure that it is there and may be used.
    ///
    /// # Errors
    /// [`Error::NoNftables`], [`Error::Permission`], or whatever keeps the socket from opening.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::open()?;
        let family = encode::family_number(Family::Ipv4);
        match socket.dump(libc::NFT_MSG_GETTABLE, family, &[], |_| {}) {
            Ok(_) => Ok(Self {
                socket,
                owner: false,
                destroys: None,
                sent_bytes: 0,
            }),
            Err(DumpError::Rejected(Errno::EPERM)) => Err(Error::Permission),
            Err(DumpError::Rejected(
                Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT,
            )) => Err(Error::NoNftables),
            Err(DumpError::Rejected(errno)) => Err(Error::errno("read nftables")(errno)),
            Err(DumpError::Failed(error)) => Err(error),
        }
    }

    /// From now on makes and takes over tables that nobody else can change or delete while this
    /// value lives, and that stay when it goes (flags `owner` and `persist`, Linux 6.9). `false` if
    /// the kernel cannot: then nothing changes.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn own_tables(&mut self) -> Result<bool, Error> {
        self.owner = self.can_own_tables()?;
        Ok(self.owner)
    }

    /// Whether nobody else can change the tables that it makes.
    #[must_use]
    pub fn owns_tables(&self) -> bool {
        self.owner
    }

    /// Whether the kernel knows tables with an owner.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn can_own_tables(&mut self) -> Result<bool, Error> {
        table::can_be_owned(&mut self.socket)
    }

    /// Whether there is a table of our name in one of these families.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn has_tables(&mut self, families: &[Family]) -> Result<bool, Error> {
        for family in families {
            if table::find(&mut self.socket, *family)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The port of its socket: the kernel names it in what it tells of our changes.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// The bytes that were sent of all transactions.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// The number of the ruleset, which grows by one with each transaction of anyone.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let kind = attribute::kind(libc::NFNL_SUBSYS_NFTABLES, libc::NFT_MSG_GETGEN);
        let number = self.socket.ask(kind, |message| {
            message.attributes().get(NFTA_GEN_ID)?.number()
        })?;
        number.ok_or(Error::errno("read the ruleset's number")(Errno::EPROTO))
    }

    /// Commits both parts in one transaction. Returns when the kernel has.
    ///
    /// # Errors
    /// [`Error::Rejected`] names what the kernel refused, and then nothing was done;
    /// [`Error::Lost`] says that it is not known what was done.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), Error> {
        self.send(commit.batch(self.owner), commit)
    }

    /// Deletes our tables.
    ///
    /// # Errors
    /// As for [`Self::commit`]. A table that is not there is none.
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

    /// Reads our table of family `A`, which should be of this shape. One that nobody owns any more
    /// is taken over first.
    ///
    /// # Errors
    /// If the kernel does not give it out, it changes all the while, or another process owns it.
    pub fn read<A: Address>(&mut self, fixed: &Program) -> Result<TableStatus<Table<A>>, Error> {
        if let Some(found) = table::find(&mut self.socket, A::FAMILY)? {
            if found.owner.is_some_and(|owner| owner != self.port()) {
                return Err(Error::Owned(A::FAMILY));
            }
            if self.owner && !found.persists {
                return Ok(TableStatus::Foreign("anyone can change it".to_owned()));
            }
            if self.owner && found.owner.is_none() {
                self.take_over(A::FAMILY)?;
            }
        }
        read::read(&mut self.socket, fixed)
    }

    fn take_over(&mut self, family: Family) -> Result<(), Error> {
        let mut batch = Batch::new();
        table::push_take_over(&mut batch, family);
        self.send(batch, &Commit::default())
    }

    /// The clients of a protocol that are remembered. Costs the square of their number.
    ///
    /// # Errors
    /// If the kernel does not give them out.
    pub fn clients<A: Address>(
        &mut self,
        protocol: Protocol,
    ) -> Result<Vec<PinnedClient<A>>, Error> {
        element::affinity::<A>(&mut self.socket, protocol)
    }

    /// Commits what deletes clients (`Part::forget`); who timed out meanwhile is forgotten too. `false`:
    /// one timed out, and this kernel (before Linux 6.3) has deleted none.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn forget_clients(&mut self, commit: &Commit) -> Result<bool, Error> {
        let destroys = match self.destroys {
            Some(destroys) => destroys,
            None => table::can_destroy_elements(&mut self.socket)?,
        };
        self.destroys = Some(destroys);
        let batch = if destroys {
            commit.tolerant_batch()
        } else {
            commit.batch(self.owner)
        };
        match self.send(batch, commit) {
            Ok(()) => Ok(true),
            // It does not refuse what is gone: the map itself is.
            Err(Error::Rejected(rejections)) if all(&rejections, Errno::ENOENT) => Ok(destroys),
            Err(error) => Err(error),
        }
    }

    /// How many connections' clients could not be remembered since the table was made, because the
    /// map of their protocol is full. They are served all the same.
    ///
    /// # Errors
    /// If the kernel does not give it out.
    pub fn forgotten_clients<A: Address>(&mut self) -> Result<Vec<(Protocol, u64)>, Error> {
        let counted = counters::packets::<A>(&mut self.socket, SetName::AffinityFull)?;
        let of_protocol = counted.into_iter().filter_map(|counted| {
            let Key::Protocol(protocol) = counted.key else {
                return None;
            };
            Some((protocol, counted.packets))
        });
        Ok(of_protocol.collect())
    }

    /// How many connections each frontend and node port has had since its element was made. Costs
    /// the square of their number.
    ///
    /// # Errors
    /// If the kernel does not give it out.
    pub fn connections<A: Address>(&mut self) -> Result<Vec<CountedElement<A>>, Error> {
        let mut counted = self.counted(SetName::Services)?;
        counted.extend(self.counted(SetName::Nodeports)?);
        Ok(counted)
    }

    /// What each element of a set that counts has counted. Costs the square of their number.
    ///
    /// # Errors
    /// If the kernel does not give it out.
    pub fn counted<A: Address>(&mut self, set: SetName) -> Result<Vec<CountedElement<A>>, Error> {
        counters::packets(&mut self.socket, set)
    }

    fn send(&mut self, batch: Batch, commit: &Commit) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let finished = batch.finish();
        let pages = finished.pages();
        let bytes: usize = pages.iter().map(|page| page.len()).sum();
        self.sent_bytes += u64::try_from(bytes).unwrap_or(0);
        let rejected = self.socket.send(&pages)?;
        if rejected.is_empty() {
            return Ok(());
        }
        let rejections: Vec<_> = rejected
            .iter()
            .map(|rejected| name_rejected(rejected, &finished, commit))
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

fn all(rejections: &[Rejection], errno: Errno) -> bool {
    rejections.iter().all(|rejection| rejection.errno == errno)
}

fn name_rejected(
    rejected: &socket::RejectedMessage,
    finished: &FinishedBatch,
    commit: &Commit,
) -> Rejection {
    let (at, (operation, services)) = match finished.about(rejected.sequence, rejected.offset) {
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

fn describe<A: Address>(
    part: Option<&FamilyCommit<A>>,
    range: Range<usize>,
) -> (String, Vec<ServiceName>) {
    #[expect(
        clippy::expect_used,
        reason = "the batch was made from this commit, and its index from these operations"
    )]
    let operations = part
        .and_then(|part| part.transaction.operations.get(range))
        .expect("a message is about operations of its commit");
    let mut services: Vec<_> = operations
        .iter()
        .filter_map(|operation| operation.service.clone())
        .collect();
    services.sort_unstable();
    services.dedup();
    let text = match operations {
        [] => "no operation".to_owned(),
        [one] => one.op.to_string(),
        [first, ..] => format!("one of {} operations from {}", operations.len(), first.op),
    };
    (text, services)
}
