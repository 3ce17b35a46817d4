//! `kubectl dnat diff`: which nodes hold something else than the others.

pub(super) mod command;
mod compare;
