//! From what the kernel holds and what it should hold to the operations between. Pure.

mod kept;
mod op;
mod picture;
mod plan;

pub use kept::{Kept, kept};
pub use op::{Op, Operation, Transaction};
pub use picture::Picture;
pub use plan::{Change, Plan, between};
