//! The state of a table in the kernel before a change is planned.

use crate::planner::model::Address;
use crate::planner::ruleset::Table;

/// The status of our table in the kernel; `T` is the content of our own table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableStatus<T> {
    /// There is no table of our name.
    Missing,
    /// There is a table of our name with another shape, and how it differs.
    Foreign(String),
    /// There is our table.
    Ours(T),
}

/// The state of a table that a plan starts from.
#[derive(Debug)]
pub enum KernelView<A: Address> {
    /// The table holds the applied state.
    Applied,
    /// The table holds none of our elements, or is rebuilt in the same transaction.
    Empty,
    /// The table was read back; the applied state is ignored.
    Found(Box<Table<A>>),
}

impl<A: Address> From<TableStatus<Table<A>>> for KernelView<A> {
    fn from(status: TableStatus<Table<A>>) -> Self {
        match status {
            TableStatus::Missing | TableStatus::Foreign(_) => Self::Empty,
            TableStatus::Ours(table) => Self::Found(Box::new(table)),
        }
    }
}
