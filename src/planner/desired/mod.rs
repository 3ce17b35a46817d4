//! The desired elements of one Service, and of the node, in one address family.

mod affinity;
mod answering;
mod claims;
mod describe;
mod element_writer;
mod eligible;
mod found_keys;
mod frontend;
mod gone;
mod health;
mod localhost;
mod maglev;
mod node;
mod port;
mod port_ranges;
mod service_elements;
mod slots;
mod spread;
mod summary;

pub use affinity::{
    AffinityMemory, AllowedClients, ClientSide, ClientSides, ClientTarget, ClientsToForget,
    LostEndpoint,
};
pub use answering::AnsweringEndpoints;
pub use claims::{Claim, Claims, claims, cluster_ips, health_check_claim};
pub use eligible::{EligibleEndpoints, PortOfSlices, eligible};
pub use found_keys::{keys_behind, shared_by, verdict_keys};
pub use gone::{gone_in_table, gone_key, lost_endpoint};
pub use health::{HealthCheck, HealthCheckChange, health_check};
pub use localhost::{LocalhostChange, LocalhostPort};
pub use node::{NodeElements, NodeFacts, NodePortAddresses, PodSource};
pub use port::{PortElements, Route};
pub use port_ranges::RangesProblem;
pub use service_elements::{
    PortSlots, ServiceElements, UnservedReason, WithoutLocalEndpoints, service_elements,
};
pub use slots::{EndpointAddr, Slots};
pub use summary::{PortSummary, SliceCounts};
