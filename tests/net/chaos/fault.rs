//! What happens to a node at random.

use std::time::Duration;

use super::memory::MemoryGroup;
use crate::api_server::Garbage;

/// Something that happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Change(Change),
    Daemon(DaemonFault),
    Server(ServerFault),
    Kernel(KernelFault),
}

/// A change of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Endpoints come, go and terminate.
    Endpoints,
    /// A Service changes its kind, policies and port.
    Service,
}

/// What happens to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DaemonFault {
    Killed,
    /// It stands still for some time.
    Stopped(Duration),
    /// It restarts with other flags, some of which change the shape or owner of the tables, as an
    /// upgrade does.
    Upgraded,
    /// Its allocations fail.
    OutOfMemory,
}

/// What happens to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ServerFault {
    Down,
    /// It does not know the last changes.
    Lags,
    ClosesWatches,
    CutsConnections,
    /// It forgot the versions that the watches continue from.
    Compacts,
    /// It answers with this status.
    Refuses(u16),
    Sends(Garbage),
    /// The objects are those of an earlier time again, with their versions.
    Restored,
}

/// What other programs do to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KernelFault {
    RulesetFlushed,
    ElementsDeleted,
    ChainsAdded,
    /// The conntrack table is nearly full.
    ConntrackFull,
    /// So many changes of other tables that the kernel drops notifications.
    NotificationsLost,
}

impl Fault {
    /// Returns the faults of a run, those that happen more often several times.
    pub(super) fn for_duration(duration: Duration) -> Vec<Self> {
        let is_long = duration >= Duration::from_mins(5);
        let stop = Duration::from_secs(if is_long { 30 } else { 2 });
        let mut faults = vec![Self::Change(Change::Endpoints); 12];
        faults.extend([Self::Change(Change::Service); 6]);
        let mut of_daemon = vec![
            DaemonFault::Killed,
            DaemonFault::Stopped(Duration::from_millis(300)),
            DaemonFault::Stopped(stop),
            DaemonFault::Upgraded,
        ];
        if MemoryGroup::create().is_some() {
            of_daemon.push(DaemonFault::OutOfMemory);
        } else {
            eprintln!("no memory cgroup can be created here: the daemon never lacks memory");
        }
        faults.extend(of_daemon.into_iter().map(Self::Daemon));
        let mut of_server = vec![
            ServerFault::Down,
            ServerFault::Lags,
            ServerFault::ClosesWatches,
            ServerFault::CutsConnections,
            ServerFault::Compacts,
            ServerFault::Refuses(403),
            ServerFault::Refuses(429),
            ServerFault::Sends(Garbage::Random),
            ServerFault::Sends(Garbage::Truncated),
        ];
        if is_long {
            // It can take minutes until kube-dnat follows.
            of_server.push(ServerFault::Restored);
        }
        faults.extend(of_server.into_iter().map(Self::Server));
        let of_kernel = [
            KernelFault::RulesetFlushed,
            KernelFault::ElementsDeleted,
            KernelFault::ChainsAdded,
            KernelFault::ConntrackFull,
            KernelFault::NotificationsLost,
        ];
        faults.extend(of_kernel.map(Self::Kernel));
        faults
    }
}
