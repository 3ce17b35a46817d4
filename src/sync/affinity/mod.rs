//! Session affinity between syncs: clients are unpinned from endpoints that they may not keep, and
//! full maps are reported.

mod changes;
mod full_maps;
mod reaper;
mod search;

pub(super) use changes::AffinityChanges;
pub use changes::ClientsToUnpin;
pub(super) use full_maps::{CHECK_INTERVAL, FullMaps};
pub(super) use reaper::{AffinityReaper, Reaped};
pub(super) use search::ReapPhase;
