//! The flags of `run` and `render`, with kube-proxy's names.

mod given;
mod kernel;
mod logging;
mod network;
mod node;
mod unused;
mod value;

use clap::Args;
pub(super) use given::GivenFlags;
use kernel::KernelFlags;
use logging::LoggingFlags;
use network::NetworkFlags;
pub(super) use node::NodeFlags;
use unused::{LibraryFlags, UnusedFlags};
pub(super) use value::{SWITCH, switch};

/// The flags of kube-proxy that `run` has and `render` does not.
#[derive(Debug, Args)]
pub(super) struct DaemonFlags {
    #[command(flatten)]
    pub(super) network: NetworkFlags,
    #[command(flatten)]
    pub(super) kernel: KernelFlags,
    #[command(flatten)]
    pub(super) logging: LoggingFlags,
    #[command(flatten)]
    pub(super) unused: UnusedFlags,
    #[command(flatten)]
    pub(super) library: LibraryFlags,
}

/// Assigns a flag to its field if the flag was given.
fn set<T>(flag: Option<T>, field: &mut T) {
    if let Some(value) = flag {
        *field = value;
    }
}
