//! Session affinity between syncs: clients lose an endpoint that they may not keep, and a map that is
//! full is reported.

mod forget;
mod full_maps;
mod remembered;

pub(super) use forget::{AffinityReaper, Reaped, When};
pub(super) use full_maps::{EVERY, FullMaps};
pub(super) use remembered::AffinityChanges;
pub use remembered::StaleClients;
