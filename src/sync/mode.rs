//! The mode of a sync: how much of the kernel's tables it trusts.

use tracing::{debug, info, warn};

use crate::logging::LogEvent;
use crate::netlink::{Error, Kernel};
use crate::planner::diff::{KernelView, TableStatus};
use crate::planner::model::Address;
use crate::planner::ruleset::Program;

/// The mode of the next sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncMode {
    /// The tables hold the applied state, and only changes are sent.
    Incremental,
    /// The tables are read back first.
    ReadBack,
    /// The tables are deleted and created in the same transaction.
    Rebuild,
}

/// Returns the view that a plan of one family starts from, and the program if the table is rebuilt.
///
/// `is_first` is whether this process has committed nothing yet.
///
/// # Errors
/// If the table cannot be read back.
pub(super) fn view<A: Address>(
    kernel: &mut Kernel,
    mode: SyncMode,
    program: Program,
    is_first: bool,
) -> Result<(KernelView<A>, Option<Program>), Error> {
    match mode {
        SyncMode::Incremental => return Ok((KernelView::Applied, None)),
        SyncMode::Rebuild => return Ok((KernelView::Empty, Some(program))),
        SyncMode::ReadBack => {}
    }
    let status = kernel.read::<A>(&program)?;
    let rebuild = match &status {
        TableStatus::Missing => Some(program),
        TableStatus::Foreign(reason) => {
            warn!(event = %LogEvent::TableReplaced, family = %A::FAMILY, %reason, "the table is not of this version; replacing it");
            Some(program)
        }
        TableStatus::Ours(table) => {
            let elements = table.len();
            if is_first {
                info!(event = %LogEvent::TableAdopted, family = %A::FAMILY, elements, "adopting the table");
            } else {
                debug!(event = %LogEvent::TableRead, family = %A::FAMILY, elements, "read the table back");
            }
            None
        }
    };
    Ok((status.into(), rebuild))
}
