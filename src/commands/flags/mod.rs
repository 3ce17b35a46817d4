//! The flags, under kube-proxy's names.

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

/// Those of kube-proxy's flags that only the daemon has.
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

/// Moves what was given to where it is configured.
fn set<T>(flag: Option<T>, field: &mut T) {
    if let Some(value) = flag {
        *field = value;
    }
}
