//! Properties of the planner: whatever happens in whatever order, the kernel ends up with just
//! what a fresh start would program, through operations that are valid at each step.

mod cost;
mod properties;
mod world;
