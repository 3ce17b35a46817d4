//! A node in a network namespace: what the daemon knows of it, and its kernel.

use std::process::{Command, Stdio};
use std::thread;

use kube_dnat::desired::{NodeFacts, PodSource};
use kube_dnat::model::Event;
use kube_dnat::netlink::{Commit, Kernel, Part};
use kube_dnat::ruleset::Program;
use kube_dnat::sync::{Basis, State};
use nix::sched::{CloneFlags, unshare};

/// Runs a closure in a network namespace of its own.
pub(crate) fn in_namespace<R: Send>(inside: impl FnOnce() -> R + Send) -> R {
    let entered = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET): run this as root");
        inside()
    };
    let ended = thread::scope(|scope| scope.spawn(entered).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a program in the namespace of this thread.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdin(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// A node that nothing is programmed on yet.
pub(crate) struct Node {
    pub(crate) state: State,
    kernel: Kernel,
    program: Program,
}

impl Node {
    /// In the namespace of this thread.
    pub(crate) fn new() -> Self {
        let facts = NodeFacts {
            pods: PodSource::ClusterCidr(vec!["10.240.0.0/12".parse().unwrap()]),
            ..NodeFacts::default()
        };
        let state = State::new(facts);
        let program = state.program::<std::net::Ipv4Addr>();
        Self {
            state,
            kernel: Kernel::open().expect("nf_tables"),
            program,
        }
    }

    /// Takes in what a source reports.
    pub(crate) fn take_in(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let complaints = self.state.apply(event);
            assert_eq!(complaints, [], "a cluster without faults");
        }
    }

    /// Programs everything from nothing.
    pub(crate) fn load(&mut self) {
        let plans = self.state.prepare(Basis::Empty, Basis::Empty);
        let mut plans = plans.expect("a plan");
        let commit = Commit {
            ipv4: Part {
                rebuild: Some(self.program.clone()),
                transaction: std::mem::take(&mut plans.ipv4.transaction),
            },
            ipv6: Part::default(),
        };
        self.kernel.commit(&commit).expect("the kernel takes it");
        let _ = self.state.committed(plans);
    }
}
