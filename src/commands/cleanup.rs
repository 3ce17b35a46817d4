//! `kube-dnat cleanup`.

use clap::Args;
use tracing::info;

use crate::netlink::Kernel;

/// The flags of `cleanup`: none.
#[derive(Debug, Args)]
pub(super) struct Cleanup {}

impl Cleanup {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let Self {} = self;
        let deleted = Kernel::open()?.delete_tables()?;
        for family in &deleted {
            info!(%family, "table deleted");
        }
        if deleted.is_empty() {
            info!("there is no table to delete");
        }
        Ok(())
    }
}
