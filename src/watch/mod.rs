//! Where the objects come from.

pub mod addresses;
pub mod apiserver;
pub mod manifests;
