//! Tests with real packets through the real kernel, in network namespaces that the tests create.
//!
//! The tests run as root, or as a user with the right to create user namespaces. They never change
//! the caller's network, and they fail on a machine that lacks a program or a kernel feature. The
//! harness is a `main` of its own, because a process can leave its namespaces only while it has one
//! thread.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by a panic and says why on stderr; clippy knows tests by their harness"
)]

#[path = "../apiserver/server/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "only its own tests need its failures"
)]
mod api_server;
mod chaos;
mod isolation;
mod kernel;
mod lab;
mod packets;
mod scenarios;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// Creates a test of each function, with the function's path as its name.
macro_rules! trials {
    ($module:ident: $($function:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(
            concat!(stringify!($module), "::", stringify!($function)),
            || { $module::$function(); Ok(()) },
        )),*]
    };
}
pub(crate) use trials;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = isolation::enter().and_then(|()| isolation::check_machine())
    {
        eprintln!("these tests cannot run on this machine: {error}");
        return ExitCode::FAILURE;
    }
    lab::supports_owned_tables();
    let tests = [
        lab::tests(),
        kernel::tests(),
        packets::tests(),
        scenarios::tests(),
        chaos::tests(),
    ];
    let tests = tests.into_iter().flatten().collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}
