//! The state of a table in the kernel before a change is planned.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelView {
    /// The table holds the applied state.
    Applied,
    /// The table holds none of our elements, or is rebuilt in the same transaction.
    Empty,
}
