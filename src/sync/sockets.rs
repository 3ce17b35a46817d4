//! The netlink sockets of the sync loop.

use tracing::info;

use crate::logging::LogEvent;
use crate::netlink::{Conntrack, Error, Kernel};
use crate::planner::model::addr::Family;

/// The netlink sockets of a sync loop, all in one network namespace.
pub struct Sockets {
    /// The socket that changes the tables.
    pub kernel: Kernel,
    /// The socket of the thread that finds pinned clients.
    pub for_clients: Kernel,
    /// The socket of the thread that dumps large sets.
    pub for_audits: Kernel,
    /// The socket of connection tracking.
    pub conntrack: Conntrack,
}

impl Sockets {
    /// Opens the sockets in the network namespace of the calling thread.
    ///
    /// With `own_tables`, only this process can change the tables, if the kernel supports table
    /// owners. `families` are the families that get a table. Where there is no table yet, this
    /// tries each ability that the tables need.
    ///
    /// # Errors
    /// If nf_tables or connection tracking cannot be opened; [`Error::Lacks`] if the kernel lacks
    /// an ability.
    pub fn open(own_tables: bool, families: &[Family]) -> Result<Self, Error> {
        let mut kernel = Kernel::open()?;
        if !kernel.has_tables(families)? {
            let missing = kernel.missing_abilities(families)?;
            if !missing.is_empty() {
                return Err(Error::Lacks(missing));
            }
        }
        if own_tables {
            kernel.own_tables()?;
            info!(
                event = %LogEvent::TableOwnershipProbed,
                supported = kernel.owns_tables(),
                "probed the kernel for table ownership"
            );
        }
        Ok(Self {
            kernel,
            for_clients: Kernel::open()?,
            for_audits: Kernel::open()?,
            conntrack: Conntrack::open()?,
        })
    }
}
