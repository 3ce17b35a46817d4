//! What is known of a table in the kernel before a change is planned.

use crate::planner::model::Address;
use crate::planner::ruleset::Table;

/// What stands in the kernel under our table's name; `T` is what was read of our own table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableStatus<T> {
    /// There is no such table.
    Missing,
    /// There is a table that is not of the shape this version programs; why.
    Foreign(String),
    /// There is our table.
    Ours(T),
}

/// What a plan begins from.
#[derive(Debug)]
pub enum KernelView<A: Address> {
    /// The table holds what is applied.
    Applied,
    /// The table holds nothing of ours, or is rebuilt in the same transaction.
    Empty,
    /// The table was read and holds this; what was applied before does not count.
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
