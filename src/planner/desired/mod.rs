//! What the kernel should hold for one Service, and for the node. Pure, per family.

mod affinity;
mod answering;
mod claims;
mod describe;
mod eligible;
mod health;
mod node;
mod port;
mod service_elements;
mod slots;

pub use affinity::{
    AffinityMemory, AllowedClients, ClientSide, ClientSides, ClientTarget, ClientsToForget,
    LostEndpoint, found_gone, gone_key, lost_of,
};
pub use answering::AnsweringEndpoints;
pub use claims::{Claim, Claims, claims, cluster_ips, health_check_claim};
pub use eligible::{EligibleEndpoints, eligible};
pub use health::{HealthCheck, HealthCheckChange, health_check};
pub use node::{NodeElements, NodeFacts, NodePortAddresses, PodSource};
pub use port::{PortElements, Route};
pub use service_elements::{
    EndpointLists, ServiceElements, UnservedReason, WithoutLocalEndpoints, service_elements,
};
pub use slots::{EndpointAddr, Slots};
