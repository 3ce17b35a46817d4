//! Where the objects come from.

pub mod addresses;
pub mod manifests;
