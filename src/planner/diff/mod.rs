//! From what the kernel holds and what it should hold to the operations between. Pure.

mod kept;
mod op;
mod picture;
mod plan;

pub use kept::{KeptElements, kept};
pub use op::{ElementTimeout, Op, Operation, TimeLeft, Transaction};
pub use picture::Applied;
pub use plan::{DesiredChange, GoneElements, Plan, between};
