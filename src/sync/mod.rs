//! The sync loop: events in, one transaction out, again when it fails.

mod affinity;
mod conntrack;
mod describe;
mod diagnostics;
mod drift;
mod family;
mod health;
mod metrics;
mod mode;
mod pace;
mod sockets;
mod state;
mod sync_once;
mod syncer;
mod tasks;

pub use affinity::StaleClients;
pub use describe::{DebugQuestion, DebugRequest};
pub use diagnostics::{Diagnostic, DiagnosticSubject};
pub use family::{Effects, FamilyPlan, FamilyState, Skipped};
pub use health::SyncHealth;
pub use sockets::Sockets;
pub use state::{KernelViews, State, SyncEffects, SyncOutcome, SyncPlan, Transactions};
pub use syncer::Syncer;
