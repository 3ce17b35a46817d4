//! The sync loop: it applies events to the state of the node, and commits the difference to the
//! kernel in one transaction.

mod affinity;
mod audit;
mod conntrack;
mod describe;
mod diagnostics;
mod drift;
mod family;
mod health;
mod health_changes;
mod localhost;
mod metrics;
mod mode;
mod node_name;
mod pace;
mod plan;
mod read_back;
mod reading;
mod reaping;
mod recent;
mod recovery;
mod services_view;
mod sockets;
mod state;
mod sync_once;
mod syncer;
mod tasks;
mod unserved;

pub use affinity::ClientsToUnpin;
pub use describe::{DebugRequest, DebugView};
pub use diagnostics::{Diagnostic, DiagnosticSubject};
pub use family::{
    Effects, FamilyPlan, FamilyState, KnownKeys, ReadBackStep, SERVICES_PER_STEP, Skipped, key_hash,
};
pub use health::{NodeObject, SyncHealth};
pub use plan::{KernelViews, SyncEffects, SyncOutcome, SyncPlan, Transactions};
pub use read_back::{EndOfReadBack, ReadBackSteps, ServicesToRead, TablesToRead};
pub use reading::{StepStatus, StepStatuses, read_next};
pub use recent::{RecentSync, RecentSyncs};
pub use services_view::ServicesView;
pub use sockets::Sockets;
pub use state::State;
pub use syncer::Syncer;
