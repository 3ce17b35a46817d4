//! Session affinity between syncs: clients lose an endpoint that they may not keep, and a map that is
//! full is reported.

mod changes;
mod full_maps;
mod reaper;

pub(super) use changes::AffinityChanges;
pub use changes::StaleClients;
pub(super) use full_maps::{EVERY, FullMaps};
pub(super) use reaper::{AffinityReaper, Reaped, When};
