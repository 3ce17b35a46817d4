//! The API server as a source of objects, against a server of the tests' own that speaks list and
//! watch over TLS, and against the real one where there is one.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

mod follow;
mod observer;
mod real;
mod respond;
mod server;
mod trouble;
