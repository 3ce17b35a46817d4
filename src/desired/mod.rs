//! What the kernel should hold for one Service, and for the node. Pure, per family.

mod claims;
mod contribution;
mod node;
mod slots;

pub use claims::{Claim, Claims};
pub use contribution::{Contribution, NotServed, PortContribution, contribution};
pub use node::{NodeContribution, NodeFacts};
pub use slots::{Endpoint, settle};
