//! The shape of our tables: fixed chains, sets and maps, and the elements that fill them.
//!
//! `docs/ruleset.md` is its contract. Everything here is pure: the same values are printed by
//! [`render`](fn@render), encoded by [`crate::netlink`] and compared by [`crate::diff`].

mod chain;
mod element;
mod names;
mod on_demand;
mod program;
mod render;
mod schema;
mod statement;
mod table;

pub use chain::{Chain, ChainType, Hook};
pub use element::{Comment, Element, Key, Value, Verdict, service_and_port};
pub use names::{ChainName, SetName, TABLE, TABLE_COMMENT};
pub use on_demand::{Frontends, List, OnDemand};
pub use program::{DSTNAT, Pods, Program, program};
pub use render::render;
pub use schema::{AFFINITY_SIZE, Data, KeyField, Set, set};
pub use statement::{Field, Interface, Rule, Statement, layer};
pub use table::{Entry, Inconsistent, Table};
