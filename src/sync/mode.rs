//! The mode of a sync: how much of the kernel's tables it trusts.

use tracing::warn;

use crate::logging::LogEvent;
use crate::netlink::{Error, Kernel};
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::ruleset::{Program, Table};

/// The mode of the next sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncMode {
    /// The tables hold the applied state, and only changes are sent.
    Incremental,
    /// The tables are read back, in steps.
    ReadBack,
    /// The tables are deleted and created in the same transaction.
    Rebuild,
}

/// A table at the beginning of a read-back.
pub(super) enum TableToRead<A: Address> {
    /// The table without the elements of Services, which follow in steps.
    Found(Table<A>),
    /// The table must be created with this program, or replaced.
    Rebuild(Program),
}

/// Begins to read a table back.
///
/// # Errors
/// If the table cannot be read back.
pub(super) fn table_to_read<A: Address>(
    kernel: &mut Kernel,
    program: Program,
) -> Result<TableToRead<A>, Error> {
    Ok(match kernel.read_without_keyed::<A>(&program)? {
        TableStatus::Ours(table) => TableToRead::Found(table),
        TableStatus::Missing => TableToRead::Rebuild(program),
        TableStatus::Foreign(reason) => {
            warn!(event = %LogEvent::TableReplaced, family = %A::FAMILY, %reason, "the table is of another version or of other settings; replacing it");
            TableToRead::Rebuild(program)
        }
    })
}
