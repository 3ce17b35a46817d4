//! The difference between the applied and the desired state, as operations on the tables. Pure.

mod applied;
mod by_set;
mod kept;
mod op;
mod plan;
mod planner;
mod read_back;
mod shared;
mod view;

pub use applied::Applied;
pub use op::{ElementTimeout, Op, Operation, TimeLeft, Transaction};
pub use plan::{Delta, DesiredChange, GoneElements, Plan};
pub use read_back::AppliedKeys;
pub use view::{KernelView, TableStatus};
