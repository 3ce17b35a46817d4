//! The layout of kube-dnat's tables: fixed chains, sets and maps, and their elements.
//!
//! `docs/ruleset.md` is the contract of this layout. [`render`](fn@render) prints its values,
//! [`crate::netlink`] encodes them, and [`crate::planner::diff`] compares them.

mod chain;
mod closed;
mod comment;
mod denial;
mod dynamic_chain;
mod element;
mod frontend_label;
mod key;
mod names;
mod port_ranges;
mod program;
mod registers;
mod render;
mod schema;
mod sets;
mod statement;
mod table;
mod user_data;

pub use chain::{Chain, ChainType, Hook};
pub use closed::{ClientHook, TcpPickup};
pub use comment::{Comment, service_and_port};
pub use denial::Denial;
pub use dynamic_chain::{DynamicChain, FrontendKind, SlotRange};
pub use element::{Element, Value, Verdict};
pub use frontend_label::{AddressKind, FrontendLabel};
pub use key::{Key, KeyPart};
pub use names::{ChainName, SetName, TABLE, TABLE_COMMENT};
pub use port_ranges::RangesHook;
use program::{AFTER_DSTNAT, SRCNAT};
pub use program::{DSTNAT, PodMatch, Program, program};
pub use render::{render, rule_text};
pub use schema::{ElementType, KeyField, Set, set};
pub use sets::{AFFINITY_SIZE, SETS, SetRow};
pub use statement::{Interface, LookupField, Rule, SelectedSlot, Statement, layer};
pub use table::{ElementData, InconsistentTable, Table};
