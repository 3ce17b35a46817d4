//! Network namespaces as values, which are removed when they are dropped.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::panic::resume_unwind;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::wait_until;

/// A network namespace that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    /// The descriptor that keeps the namespace alive without a thread in it.
    fd: OwnedFd,
}

impl Namespace {
    /// Creates an empty namespace without duplicate address detection, so that new addresses are
    /// usable at once.
    pub(crate) fn new(name: &str) -> Self {
        let fd = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET): network namespaces");
            OwnedFd::from(File::open("/proc/thread-self/ns/net").expect("/proc/thread-self/ns/net"))
        })
        .join()
        .expect("a thread that creates a namespace");
        let namespace = Self {
            name: name.to_owned(),
            fd,
        };
        namespace.sysctls(&[
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            // Node-1 forwards some packets back to the gateway and sends ICMP redirects. A host
            // that accepted a redirect would bypass node-1 for the next packets.
            ("net/ipv4/conf/all/accept_redirects", "0"),
            ("net/ipv4/conf/default/accept_redirects", "0"),
            ("net/ipv6/conf/default/accept_redirects", "0"),
            // Every process in the namespace can open an ICMP socket for `ping`.
            ("net/ipv4/ping_group_range", "0 0"),
        ]);
        namespace
    }

    /// Returns the name of the namespace for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure on a thread inside the namespace; its sockets stay in the namespace.
    pub(crate) fn run<R: Send>(&self, inside: impl FnOnce() -> R + Send) -> R {
        let entered = || {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).expect("setns into a namespace we made");
            inside()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a program inside the namespace, since a child inherits the namespaces of the forking
    /// thread.
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        self.run(|| command.spawn())
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs a program inside the namespace with an input.
    pub(crate) fn output(&self, program: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.spawn(&mut command);
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // The exit status shows whether a program that did not read its input failed.
        let _unread = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("wait for a child")
    }

    /// Runs a program inside the namespace; returns its standard output, or panics if it fails.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> String {
        self.command_with_input(program, arguments, "")
    }

    /// Does the same as [`command`](Self::command) with an input.
    pub(crate) fn command_with_input(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> String {
        let output = self.output(program, arguments, input);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?} in {}: {error}\n{input}",
            self.name
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs lines of `ip` commands inside the namespace in one process.
    pub(crate) fn ip(&self, lines: &str) {
        self.command_with_input("ip", &["-batch", "-"], lines);
    }

    /// Sets kernel parameters of the namespace, by their path below `/proc/sys`.
    pub(crate) fn sysctls(&self, values: &[(&str, &str)]) {
        self.run(|| {
            for (key, value) in values {
                fs::write(format!("/proc/sys/{key}"), value)
                    .unwrap_or_else(|error| panic!("{key}={value}: {error}"));
            }
        });
    }

    /// Waits until the IPv6 addresses are usable, which takes a moment after they are added or
    /// after their link is up.
    pub(crate) fn await_addresses(&self) {
        const TENTATIVE: u32 = 0x40;
        let is_tentative = |line: &str| {
            let flags = line.split_whitespace().nth(4).expect("flags");
            u32::from_str_radix(flags, 16).expect("hexadecimal") & TENTATIVE != 0
        };
        let usable = || {
            let read = || fs::read_to_string("/proc/thread-self/net/if_inet6");
            let addresses = self.run(read).expect("IPv6 in the kernel");
            !addresses.lines().any(is_tentative)
        };
        wait_until("the addresses are usable", usable);
    }

    /// Returns a path of the namespace for other programs, such as `ip link set ... netns PATH`.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }
}
