//! The errors of the kernel's interfaces.

use std::io;
use std::ops::Range;

use nix::errno::Errno;

use crate::netlink::Ability;
use crate::planner::model::ServiceName;
use crate::planner::model::addr::Family;

/// The part of a batch that the kernel rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectedAt {
    /// The batch as a whole.
    Transaction,
    /// A chain, a rule, a set or a map of the fixed program.
    Program,
    /// These operations of a family's transaction.
    Operations(Family, Range<usize>),
    /// The message that must fail, so that the kernel undoes the transaction.
    Undo,
}

/// Something that the kernel rejected.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation}: {errno}{}", explanation.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Rejection {
    /// Where it is in the batch.
    pub at: RejectedAt,
    /// What was rejected, in nft's words, for people to read.
    pub operation: String,
    /// The Services it is for: one, unless the kernel did not say which element of a message it
    /// rejected; none for the node's own.
    pub services: Vec<ServiceName>,
    /// Why.
    pub errno: Errno,
    /// The kernel's own words, if it had any (extended ACK).
    pub explanation: Option<String>,
}

impl Rejection {
    /// Whether the kernel had no memory for it.
    #[must_use]
    pub fn lacks_memory(&self) -> bool {
        matches!(self.errno, Errno::ENOMEM | Errno::ENOBUFS)
    }
}

/// Why the kernel does not hold, or may not hold, what it was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("netlink socket: cannot {attempt}: {source}")]
    Socket {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel rejected the transaction; nothing of it took effect.
    #[error("the kernel rejected {}", list(.0))]
    Rejected(Vec<Rejection>),
    /// The answer of the kernel exceeded the receive buffer: the outcome is unknown.
    #[error("the kernel's answer was lost, the tables must be read back")]
    Lost,
    /// Only the process that owns the table can change it.
    #[error("the {0} table kube-dnat belongs to another process: is kube-dnat running twice?")]
    Owned(Family),
    /// No permission to change nftables.
    #[error("no permission to change nftables: CAP_NET_ADMIN is needed in this network namespace")]
    Permission,
    /// The kernel lacks a part of nftables that our tables need.
    #[error("this kernel lacks what the tables need: {}", words(.0))]
    Lacks(Vec<Ability>),
    /// The kernel has no nftables.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES, module nf_tables)")]
    NoNftables,
}

impl Error {
    pub(crate) fn socket(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { attempt, source }
    }

    /// Of the number of an error, whether this system has a name for it or not.
    pub(crate) fn number(attempt: &'static str) -> impl FnOnce(i32) -> Self {
        move |number| Self::Socket {
            attempt,
            source: io::Error::from_raw_os_error(number),
        }
    }

    pub(crate) fn errno(attempt: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Socket {
            attempt,
            source: errno.into(),
        }
    }
}

fn words(abilities: &[Ability]) -> String {
    let words: Vec<_> = abilities.iter().map(Ability::to_string).collect();
    words.join(", ")
}

fn list(rejections: &[Rejection]) -> String {
    let shown: Vec<_> = rejections
        .iter()
        .take(3)
        .map(Rejection::to_string)
        .collect();
    let more = rejections.len().saturating_sub(shown.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join("; "))
}
