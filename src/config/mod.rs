//! What the operator asked for.

mod defaults;
mod document;
mod duration;
mod read;
pub mod schema;

pub use crate::model::parse::address;
pub use document::Lenience;
pub use duration::GoDuration;
pub use read::{Unreadable, parse, read};
pub use schema::KubeProxyConfiguration;
