//! How far the kernel's tables are known, and what a plan begins from.

use tracing::{debug, info, warn};

use super::family::Basis;
use crate::logging::LogEvent;
use crate::netlink::{Error, FamilyCommit, Kernel, ReadTable};
use crate::planner::diff::Transaction;
use crate::planner::model::Address;
use crate::planner::ruleset::Program;

/// How far the kernel's tables are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// They hold what the picture says.
    Picture,
    /// They must be read.
    Read,
    /// They must be made anew.
    Rebuild,
}

/// What is known of one family's table, and whether it has to be made anew. `first`: this process has not
/// committed anything yet.
pub(super) fn basis<A: Address>(
    kernel: &mut Kernel,
    trust: Trust,
    program: &Program,
    first: bool,
) -> Result<(Basis<A>, bool), Error> {
    match trust {
        Trust::Picture => return Ok((Basis::Picture, false)),
        Trust::Rebuild => return Ok((Basis::Empty, true)),
        Trust::Read => {}
    }
    match kernel.read::<A>(program)? {
        ReadTable::Nothing => Ok((Basis::Empty, true)),
        ReadTable::Ours(table) => {
            let elements = table.len();
            if first {
                info!(event = %LogEvent::TableAdopted, family = %A::FAMILY, elements, "adopting the table");
            } else {
                debug!(event = %LogEvent::TableRead, family = %A::FAMILY, elements, "read the table back");
            }
            Ok((Basis::Found(Box::new(table)), false))
        }
        ReadTable::Foreign(reason) => {
            warn!(event = %LogEvent::TableReplaced, family = %A::FAMILY, %reason, "the table is not of this version; replacing it");
            Ok((Basis::Empty, true))
        }
    }
}

pub(super) fn part<A: Address>(
    transaction: &mut Transaction<A>,
    rebuild: Option<Program>,
) -> FamilyCommit<A> {
    FamilyCommit {
        rebuild,
        transaction: std::mem::take(transaction),
    }
}
