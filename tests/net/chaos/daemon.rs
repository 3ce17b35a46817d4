//! The daemon of a run, which is started again whenever it ends, as the kubelet does.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Child, Command};

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::api_server::Server;
use crate::lab::{Cluster, run_command, supports_owned_tables};

/// The memory and the file descriptors of the daemon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) resident_kib: u64,
    pub(super) descriptors: usize,
    pub(super) threads: u64,
}

/// The running daemon.
pub(super) struct Daemon {
    process: Child,
    directory: TempDir,
    flags: Vec<String>,
    /// Whether only the daemon can change its tables.
    pub(super) owns_tables: bool,
    log: File,
    lines: usize,
}

impl Daemon {
    /// Starts the daemon with random flags, which give the tables another shape or owner.
    pub(super) fn start(cluster: &Cluster, server: &Server, random: &mut Rng) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("log");
        File::create(&path).expect("a log");
        let log = File::open(&path).expect("a log");
        let mut daemon = Self {
            process: Command::new("true").spawn().expect("a process"),
            directory,
            flags: Vec::new(),
            owns_tables: false,
            log,
            lines: 0,
        };
        daemon.restart(cluster, server, random);
        daemon
    }

    /// Ends the daemon and starts it with other flags.
    pub(super) fn restart(&mut self, cluster: &Cluster, server: &Server, random: &mut Rng) {
        let owner = random.bool();
        self.owns_tables = owner && supports_owned_tables();
        self.flags = vec![
            format!("--connection-counters={}", random.bool()),
            format!("--table-owner={owner}"),
        ];
        self.end(Signal::SIGTERM);
        self.spawn(cluster, server);
    }

    /// Starts the daemon again if it ended.
    pub(super) fn supervise(&mut self, cluster: &Cluster, server: &Server) {
        if self.process.try_wait().expect("a child").is_some() {
            self.spawn(cluster, server);
        }
    }

    fn spawn(&mut self, cluster: &Cluster, server: &Server) {
        let log = File::options().append(true).open(self.log_path());
        let mut command = run_command(cluster);
        command
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .arg(format!("--master={}", server.url()))
            .args(&self.flags)
            .env("NO_COLOR", "1")
            .stderr(log.expect("a log"));
        self.process = cluster.node.namespace.spawn(&mut command);
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.directory.path().join("log")
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        // The process may have ended, which `supervise` notices.
        let _ended = kill(Pid::from_raw(self.process.id().cast_signed()), signal);
    }

    /// Sends a signal that ends the daemon, and waits for the end.
    pub(super) fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.process.wait().expect("a child");
    }

    /// Returns the number of lines of the log so far.
    pub(super) fn log_lines(&mut self) -> usize {
        let mut new = String::new();
        self.log.read_to_string(&mut new).expect("UTF-8");
        self.lines += new.lines().count();
        self.lines
    }

    pub(super) fn usage(&self) -> Usage {
        let proc = format!("/proc/{}", self.process.id());
        let status = fs::read_to_string(format!("{proc}/status")).expect("a running daemon");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            number
                .and_then(|number| number.parse().ok())
                .expect("a number")
        };
        let descriptors = fs::read_dir(format!("{proc}/fd")).expect("a running daemon");
        Usage {
            resident_kib: field("VmRSS:"),
            descriptors: descriptors.count(),
            threads: field("Threads:"),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resident_kib,
            descriptors,
            threads,
        } = self;
        write!(
            f,
            "{resident_kib} KiB, {descriptors} descriptors, {threads} threads"
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon may have ended already.
        let _killed = self.process.kill();
        let _status = self.process.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.len().saturating_sub(200);
            eprintln!(
                "--- end of the log of kube-dnat\n{}\n---",
                lines[last..].join("\n")
            );
        }
    }
}
