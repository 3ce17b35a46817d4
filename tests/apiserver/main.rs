//! The watches and Events against the tests' own API server, and against the real one.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on says so; clippy.toml's exception is for test functions only"
)]

mod connections;
mod events;
mod failures;
mod formats;
mod garbage;
mod lists;
mod node;
mod objects;
mod raw;
mod real;
mod real_server;

mod scenarios;
mod seen;
mod server;
mod servers;
mod serving;
mod watches;
mod wire;
