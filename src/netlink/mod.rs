//! The kernel over netlink: commits transactions, reads the tables back. Blocking.

pub(crate) mod conntrack;
mod error;
mod ffi;
mod nf_tables;
pub(crate) mod socket;
pub(crate) mod uapi;

pub use conntrack::connections::{Connection, NewConnections};
pub use conntrack::{CleanResult, Conntrack};
pub use error::{Error, RejectedAt, Rejection};
pub use ffi::give_back_memory;
pub use nf_tables::Kernel;
pub use nf_tables::abilities::Ability;
pub use nf_tables::commit::{Commit, FamilyCommit};
pub use nf_tables::counters::CountedElement;
pub use nf_tables::element::PinnedClient;
pub use nf_tables::encode::debug_rules;
pub use nf_tables::inspect::TableShape;
pub use nf_tables::notices::{ForeignChange, TableMonitor};
