//! The kernel, as the crank is given it.

use tracing::info;

use crate::logging::LogEvent;
use crate::netlink::{Conntrack, Error, Kernel};
use crate::planner::model::addr::Family;

/// The kernel of the node's network namespace, opened for each that works with it.
pub struct Sockets {
    /// For the crank.
    pub kernel: Kernel,
    /// For the thread that looks for clients to forget.
    pub for_clients: Kernel,
    /// Connection tracking.
    pub conntrack: Conntrack,
}

impl Sockets {
    /// Opens it for the network namespace of the calling thread; the tables are to be ours alone
    /// if `owner` and the kernel can. `families` are those that get a table: where there is none yet,
    /// each ability that the tables need is tried.
    ///
    /// # Errors
    /// What keeps nf_tables or connection tracking from being opened; [`Error::Lacks`].
    pub fn open(owner: bool, families: &[Family]) -> Result<Self, Error> {
        let mut kernel = Kernel::open()?;
        if !kernel.has_tables(families)? {
            let missing = kernel.missing(families)?;
            if !missing.is_empty() {
                return Err(Error::Lacks(missing));
            }
        }
        if owner {
            let alone = kernel.own_tables()?;
            info!(
                event = %LogEvent::TableOwnershipProbed,
                supported = alone,
                "probed the kernel for table ownership"
            );
        }
        Ok(Self {
            kernel,
            for_clients: Kernel::open()?,
            conntrack: Conntrack::open()?,
        })
    }
}
