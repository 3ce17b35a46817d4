//! kube-dnat turns Kubernetes' Services into elements of a few nftables maps.
//!
//! The library reads the tables back, computes the operations between what is applied and what is
//! desired, and sends them as one transaction.
//!
//! ```text
//! manifests, or events of an API server
//!    -> planner::model     typed; an invalid part of an object is rejected with a reason, alone
//!    -> planner::desired   the elements that one Service needs on this node
//!    -> planner::diff      the operations between what is applied and what is desired
//!    -> netlink            one transaction; all or nothing; a rejected operation is named
//!    -> kernel             every packet, without us
//! ```
//!
//! # Example
//!
//! A Service with one endpoint becomes these elements of `table ip kube-dnat`:
//!
//! ```text
//! map services  { tcp . 10.96.0.7 . 80 comment "shop/cart:http" : goto pick-1 }
//! map endpoints { tcp . 10.96.0.7 . 80 . 0 comment "shop/cart:http" : 10.244.1.9 . 8080 }
//! ```
//!
//! ```
//! use kube_dnat::netlink::FamilyCommit;
//! use kube_dnat::planner::desired::NodeFacts;
//! use kube_dnat::{Kernel, State, manifests, per_family};
//!
//! const OBJECTS: &str = r#"
//! apiVersion: v1
//! kind: Service
//! metadata: { namespace: shop, name: cart }
//! spec:
//!   clusterIPs: [10.96.0.7]
//!   ports: [{ name: http, port: 80 }]
//! ---
//! apiVersion: discovery.k8s.io/v1
//! kind: EndpointSlice
//! metadata: { namespace: shop, name: cart-1, labels: { kubernetes.io/service-name: cart } }
//! addressType: IPv4
//! ports: [{ name: http, port: 8080 }]
//! endpoints: [{ addresses: [10.244.1.9] }]
//! "#;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut state = State::new(NodeFacts::default());
//! for event in manifests::read_text(OBJECTS, "node-1")?.events {
//!     let diagnostics = state.apply(event);
//!     assert!(diagnostics.is_empty());
//! }
//! let planned = state.plan_everything().ipv4.transaction.operations;
//! let planned: Vec<_> = planned.iter().map(|operation| operation.op.to_string()).collect();
//! assert!(planned.contains(
//!     &r#"add element services { tcp . 10.96.0.7 . 80 comment "shop/cart:http" : goto pick-1 }"#
//!         .to_owned()
//! ));
//!
//! // With CAP_NET_ADMIN, in a network namespace: create both tables with these elements.
//! # if false {
//! let mut kernel = Kernel::open()?;
//! let (transactions, effects) = state.plan_everything().split();
//! let tables = transactions.zip(state.programs());
//! let commit = per_family!(tables, |(transaction, program)| FamilyCommit {
//!     rebuild: Some(program),
//!     transaction,
//! });
//! kernel.commit(&commit)?;
//! let _diagnostics = state.committed(effects);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The program, `kube-dnat`, is built on the same parts; docs/architecture.md follows one change
//! through them.

#![cfg_attr(
    not(feature = "testing"),
    allow(
        dead_code,
        unfulfilled_lint_expectations,
        unreachable_pub,
        unused_imports,
        reason = "the tests use what the program does not; with the feature all is public"
    )
)]

// Public only to the tests of this repository. rustfmt does not see modules that a macro declares.
#[cfg(not(feature = "testing"))]
mod agent;
#[cfg(not(feature = "testing"))]
mod clock;
#[cfg(not(feature = "testing"))]
mod commands;
#[cfg(not(feature = "testing"))]
mod config;
#[cfg(not(feature = "testing"))]
mod duration;
#[cfg(not(feature = "testing"))]
mod events;
#[cfg(not(feature = "testing"))]
mod http;
#[cfg(not(feature = "testing"))]
mod kube_proxy;
#[cfg(not(feature = "testing"))]
mod logging;
#[cfg(not(feature = "testing"))]
mod metrics;
#[cfg(not(feature = "testing"))]
mod relay;
#[cfg(not(feature = "testing"))]
mod revision;
#[cfg(not(feature = "testing"))]
mod sync;
#[cfg(not(feature = "testing"))]
mod sysctl;
#[cfg(not(feature = "testing"))]
mod watch;

#[cfg(feature = "testing")]
pub mod agent;
#[cfg(feature = "testing")]
pub mod clock;
#[cfg(feature = "testing")]
pub mod commands;
#[cfg(feature = "testing")]
pub mod config;
#[cfg(feature = "testing")]
pub mod duration;
#[cfg(feature = "testing")]
pub mod events;
#[cfg(feature = "testing")]
pub mod http;
#[cfg(feature = "testing")]
pub mod kube_proxy;
#[cfg(feature = "testing")]
pub mod logging;
#[cfg(feature = "testing")]
pub mod metrics;
#[cfg(feature = "testing")]
pub mod relay;
#[cfg(feature = "testing")]
pub mod revision;
#[cfg(feature = "testing")]
pub mod sync;
#[cfg(feature = "testing")]
pub mod sysctl;
#[cfg(feature = "testing")]
pub mod watch;

pub mod netlink;
pub mod planner;
mod yaml;

#[doc(hidden)]
pub use commands::main;
pub use netlink::Kernel;
pub use sync::{KernelViews, State, SyncEffects, SyncPlan, Transactions};
pub use watch::manifests;
