//! The sources of objects: an API server or a directory of manifests, and the node itself.

pub mod addresses;
pub mod apiserver;
mod file_stamp;
pub mod manifests;
mod report;

pub use report::{
    ApiServerReport, ManifestsReport, ReportingSource, SourceReport, WatchReport, WatchState,
};
