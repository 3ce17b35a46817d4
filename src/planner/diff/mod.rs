//! From what the kernel holds and what it should hold to the operations between. Pure.

mod applied;
mod kept;
mod op;
mod plan;
mod view;

pub use applied::Applied;
pub use kept::{KeptElements, kept};
pub use op::{ElementTimeout, Op, Operation, TimeLeft, Transaction};
pub use plan::{Delta, DesiredChange, GoneElements, Plan, between};
pub use view::{KernelView, TableStatus};
