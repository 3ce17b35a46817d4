//! From what the kernel holds and what it should hold to the operations between. Pure.

mod kept;
mod op;
mod picture;
mod plan;

pub use kept::{Kept, kept};
pub use op::{Left, Op, Operation, Time, Transaction};
pub use picture::Picture;
pub use plan::{Change, GoneElements, Plan, between};
