//! The kernel over netlink: transactions and dumps of nf_tables, connection tracking,
//! notifications.
//!
//! Every call but those of [`TableMonitor`] blocks its thread.

pub(crate) mod conntrack;
mod error;
mod ffi;
mod nf_tables;
pub(crate) mod socket;
pub(crate) mod uapi;

pub use conntrack::connections::{Connection, NewConnections};
pub use conntrack::{CleanResult, Conntrack};
pub use error::{Error, RejectedAt, Rejection};
pub use ffi::release_free_memory;
pub use nf_tables::abilities::Ability;
pub use nf_tables::commit::{Commit, FamilyCommit};
pub use nf_tables::counters::CountedElement;
pub use nf_tables::element::PinnedClient;
pub use nf_tables::encode::debug_rules;
pub use nf_tables::inspect::{TableShape, UnknownElements};
pub use nf_tables::keyed::ElementKey;
pub use nf_tables::monitor::{ForeignChange, TableMonitor};
pub use nf_tables::read::KeyReader;
pub use nf_tables::{Kernel, UnpinOutcome};
pub use socket::Delivery;
