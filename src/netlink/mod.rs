//! The kernel over netlink: commits transactions, reads the tables back. Blocking.

pub(crate) mod conntrack;
mod error;
mod ffi;
mod nf_tables;
pub(crate) mod socket;
pub(crate) mod uapi;

pub use conntrack::connections::{Connection, NewConnections};
pub use conntrack::{Cleaned, Conntrack};
pub use error::{Error, Refusal};
pub use ffi::give_back_memory;
pub use nf_tables::Kernel;
pub use nf_tables::abilities::Ability;
pub use nf_tables::commit::{Commit, Part};
pub use nf_tables::counters::Counted;
pub use nf_tables::element::Client;
pub use nf_tables::encode::debug_rules;
pub use nf_tables::inspect::{Shape, Standing};
pub use nf_tables::notices::{Foreign, Notices};
pub use nf_tables::read::Found;
