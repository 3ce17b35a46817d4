//! The watches and Events against the tests' own API server, and against the real one.
#![expect(clippy::duplicate_mod, reason = "the same tests run with two clients")]
#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on says so; clippy.toml's exception is for test functions only"
)]

mod connections;
mod damage;
mod events;
mod failures;
mod fallback;
mod formats;
mod garbage;
mod lists;
mod node;
mod objects;
mod older;
mod raw;
mod real;
#[allow(dead_code, reason = "only the benchmarks look at its process")]
mod real_server;

mod scenarios;
mod seen;
mod server;
mod servers;
mod serving;
mod several;
mod transport;
mod watches;
mod wire;

/// The clients of the tests accept protobuf and HTTP/2.
const FALLBACK: bool = false;
