//! What the kernel should hold for one Service, and for the node. Pure, per family.

mod affinity;
mod answering;
mod claims;
mod contribution;
mod describe;
mod eligible;
mod health;
mod node;
mod port;
mod slots;

pub use affinity::{
    Asked, Forget, Lost, Memory, Right, Side, Sides, found_gone, gone_key, lost_of,
};
pub use answering::Answering;
pub use claims::{Claim, Claims, claims, cluster_ips, health_check_claim};
pub use contribution::{Contribution, Lists, NotServed, WithoutLocal, contribution};
pub use eligible::{Eligible, eligible};
pub use health::{HealthCheck, HealthCheckChange, health_check};
pub use node::{NodeContribution, NodeFacts, NodePortAddresses, PodSource};
pub use port::{PortContribution, Route};
pub use slots::{Endpoint, Slots};
