//! Errors of the kernel's netlink interfaces, and what the kernel rejected.

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
    /// These operations, by their positions in a family's transaction.
    Operations(Family, Range<usize>),
    /// The message that must fail, so that the kernel undoes the transaction.
    Undo,
}

/// A part of a batch that the kernel rejected, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation}: {errno}{}", parenthesis(explanation.as_deref()))]
pub struct Rejection {
    /// The rejected part of the batch.
    pub at: RejectedAt,
    /// The rejected part in nft's words, for people to read.
    pub operation: String,
    /// The Services of the rejected operations: one, unless the kernel did not report which element
    /// of a message it rejected; none for the node's own operations.
    pub services: Vec<ServiceName>,
    /// The kernel's error.
    pub errno: Errno,
    /// The kernel's explanation, if it gave one (extended ACK).
    pub explanation: Option<String>,
}

impl Rejection {
    /// Whether the kernel had too little memory.
    #[must_use]
    pub fn lacks_memory(&self) -> bool {
        matches!(self.errno, Errno::ENOMEM | Errno::ENOBUFS)
    }
}

/// Why a request to the kernel failed, or may have failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call on the socket failed, or the kernel rejected a request that is no transaction.
    #[error("netlink socket: cannot {attempt}: {source}")]
    Socket {
        /// What was attempted, as an infinitive.
        attempt: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The kernel rejected the transaction, and nothing of it is committed.
    #[error("the kernel rejected {}", list(.0))]
    Rejected(Vec<Rejection>),
    /// The transaction is larger than the kernel takes, some 15 million elements.
    #[error(
        "the transaction of {bytes} bytes exceeds the 2 GiB that the kernel takes: this node needs \
         more elements than one transaction can add"
    )]
    TooLarge {
        /// The bytes of the transaction.
        bytes: usize,
    },
    /// The kernel's answer exceeded the queue of the socket, so that the outcome is unknown.
    #[error("the kernel's answer was lost, the tables must be read back")]
    Lost,
    /// Another process owns the table of this family, so that only that process can change it.
    #[error("the {0} table kube-dnat belongs to another process: is kube-dnat running twice?")]
    Owned(Family),
    /// This process has no permission to change nftables.
    #[error(
        "no permission to read or change nftables: CAP_NET_ADMIN is needed in this network namespace"
    )]
    Permission,
    /// The kernel lacks these abilities of nftables, which our tables need.
    #[error("this kernel lacks what the tables need: {}", join(.0))]
    Lacks(Vec<Ability>),
    /// The kernel has no nftables at all.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES, module nf_tables)")]
    NoNftables,
}

impl Error {
    /// Makes an error of what was attempted from an error of the system.
    pub(crate) fn socket(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { attempt, source }
    }

    /// Makes an error of what was attempted from an error number, which `Errno` may not know.
    pub(crate) fn number(attempt: &'static str) -> impl FnOnce(i32) -> Self {
        move |number| Self::Socket {
            attempt,
            source: io::Error::from_raw_os_error(number),
        }
    }

    /// Makes an error of what was attempted from an error number.
    pub(crate) fn errno(attempt: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Socket {
            attempt,
            source: errno.into(),
        }
    }
}

/// Returns an explanation in parentheses, or nothing.
fn parenthesis(explanation: Option<&str>) -> String {
    explanation.map_or_else(String::new, |text| format!(" ({text})"))
}

/// Returns abilities as a list for people to read.
fn join(abilities: &[Ability]) -> String {
    let abilities: Vec<_> = abilities.iter().map(Ability::to_string).collect();
    abilities.join(", ")
}

/// Returns the first rejections as a list for people to read, and the number of the others.
fn list(rejections: &[Rejection]) -> String {
    let shown: Vec<_> = rejections
        .iter()
        .take(3)
        .map(Rejection::to_string)
        .collect();
    let shown_text = shown.join("; ");
    match rejections.len() - shown.len() {
        0 => shown_text,
        more => format!("{shown_text} and {more} more"),
    }
}
