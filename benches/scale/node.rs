//! A node in a network namespace: the state of the daemon, and the kernel.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kube_dnat::netlink::{Commit, FamilyCommit, Kernel};
use kube_dnat::planner::desired::{NodeFacts, PodSource};
use kube_dnat::planner::diff::KernelView;
use kube_dnat::planner::diff::TableStatus;
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::Event;
use kube_dnat::planner::ruleset::Program;
use kube_dnat::sync::{SERVICES_PER_STEP, State, StepStatus, read_next};
use nix::sched::{CloneFlags, unshare};

/// Runs a closure in a new network namespace.
pub(crate) fn in_namespace<R: Send>(inside: impl FnOnce() -> R + Send) -> R {
    let entered = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET): run this as root");
        inside()
    };
    let ended = thread::scope(|scope| scope.spawn(entered).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a program in the network namespace of this thread.
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
        Self::with_counters(true)
    }

    /// Returns a node whose frontends count connections, or do not.
    pub(crate) fn with_counters(counters: bool) -> Self {
        let facts = NodeFacts {
            pods: PodSource::ClusterCidr(vec!["10.240.0.0/12".parse().unwrap()]),
            counters,
            ..NodeFacts::default()
        };
        let state = State::new(facts).ipv4_only();
        let program = state.programs().ipv4;
        Self {
            state,
            kernel: Kernel::open().expect("nf_tables"),
            program,
        }
    }

    /// Applies the events of a source.
    pub(crate) fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let diagnostics = self.state.apply(event);
            assert_eq!(diagnostics, [], "a cluster without faults");
        }
    }

    /// Creates the table.
    pub(crate) fn load(&mut self) -> SyncTime {
        self.sync(KernelView::Empty, Some(self.program.clone()))
    }

    /// Commits all changes.
    pub(crate) fn update(&mut self) -> SyncTime {
        self.sync(KernelView::Applied, None)
    }

    /// Reads the table back in steps and commits the differences, as after a restart.
    ///
    /// Returns the number of elements and of operations, and the longest step.
    pub(crate) fn adopt(&mut self) -> (u32, u32, Duration) {
        let found = self.kernel.read_without_keyed::<Ipv4Addr>(&self.program);
        let TableStatus::Ours(table) = found.expect("a table") else {
            panic!("the table is not ours")
        };
        self.state.begin_read_back(Dual {
            ipv4: Some(table),
            ipv6: None,
        });
        let (mut operations, mut longest) = (0, Duration::ZERO);
        while self.state.unread_count() > 0 {
            let started = Instant::now();
            let statuses = read_next(&mut self.kernel, &self.state, SERVICES_PER_STEP);
            let StepStatus::Read(ipv4) = statuses.expect("answers").ipv4 else {
                panic!("the table is not ours")
            };
            self.state.adopt(Dual { ipv4, ipv6: None });
            operations += self.update().operations;
            longest = longest.max(started.elapsed());
        }
        let end = self.state.plan_end_of_read_back().expect("all is read");
        operations += u32::try_from(end.ipv4.len()).expect("some operations");
        self.kernel.commit(&end.into()).expect("a commit");
        let _known = self.state.end_read_back();
        let counts = self.state.families.ipv4.applied().element_counts();
        let elements = counts.values().sum::<usize>();
        let elements = u32::try_from(elements).expect("some elements");
        (elements, operations, longest)
    }

    fn sync(&mut self, view: KernelView, rebuild: Option<Program>) -> SyncTime {
        let started = Instant::now();
        let views = Dual {
            ipv4: view,
            ipv6: None,
        };
        let (transactions, effects) = self.state.plan(views).split();
        let operations = u32::try_from(transactions.ipv4.len()).expect("some operations");
        let planned = Instant::now();
        let commit = Commit::from(FamilyCommit {
            rebuild,
            transaction: transactions.ipv4,
        });
        self.kernel
            .commit(&commit)
            .expect("the kernel accepts the transaction");
        let committed = Instant::now();
        let _ = self.state.committed(effects);
        SyncTime {
            plan: planned - started + committed.elapsed(),
            commit: committed - planned,
            operations,
        }
    }
}

/// The duration of a sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncTime {
    /// The time to plan the operations.
    pub(crate) plan: Duration,
    /// The time to encode and commit them.
    pub(crate) commit: Duration,
    /// The number of operations.
    pub(crate) operations: u32,
}
