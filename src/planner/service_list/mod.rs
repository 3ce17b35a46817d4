//! The frontends of a table as rows, one a frontend: what `kube-dnat services` prints.
//!
//! A row has what the elements contain: the kind, the policy and the affinity of the frontend, and
//! the endpoints that its connections are sent to.

mod elements;
mod row;
#[cfg(test)]
mod tests;

pub use elements::{FrontendElements, SETS_OF_FRONTENDS};
pub use row::{EndpointCounts, FrontendResult, FrontendRow, ListedEndpoint};
