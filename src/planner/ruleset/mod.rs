//! The shape of our tables: fixed chains, sets and maps, and the elements that fill them.
//!
//! `docs/ruleset.md` is its contract. Everything here is pure: the same values are printed by
//! [`render`](fn@render), encoded by [`crate::netlink`] and compared by [`crate::planner::diff`].

mod chain;
mod comment;
mod element;
mod key;
mod names;
mod on_demand;
mod program;
mod render;
mod schema;
mod sets;
mod statement;
mod table;
mod typeof_data;

pub use chain::{Chain, Hook};
pub use comment::{Comment, service_and_port};
pub use element::{Element, Value, Verdict};
pub use key::{Key, Part};
pub use names::{ChainName, SetName, TABLE, TABLE_COMMENT};
pub use on_demand::{Frontends, List, OnDemand};
pub use program::{DSTNAT, Pods, Program, program};
pub use render::{render, rule_text};
pub use schema::{Data, KeyField, Set, set};
pub use sets::{AFFINITY_SIZE, Row, SETS};
pub use statement::{Field, Interface, Rule, Statement, layer};
pub use table::{Entry, Inconsistent, Table};
