//! The real program on node-1, following a directory of manifests.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use kube_dnat::logging::LogEvent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cluster, Family, manifest, nft};

/// How long a change of the manifests may take to be in the kernel, on a busy machine.
const PROGRAMMED: Duration = Duration::from_secs(5);

/// A directory of manifests that is gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Manifests {
    path: PathBuf,
}

impl Manifests {
    /// A directory that describes node-1 (`node.yaml`) and the `ServiceCIDRs`
    /// (`service-cidr.yaml`).
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let name = format!(
            "net-{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a directory for manifests");
        let manifests = Self { path };
        let internal_ips = Family::ALL.map(|family| family.lan(2));
        manifests.write("node.yaml", &manifest::node(&internal_ips));
        manifests.write("service-cidr.yaml", &manifest::service_cidr());
        manifests
    }

    /// Writes a file, replacing one of this name at once.
    pub(crate) fn write(&self, name: &str, text: &str) {
        // The name of the temporary file is none of a manifest.
        let temporary = self.path.join(format!(".{name}.new"));
        fs::write(&temporary, text).expect("write a manifest");
        fs::rename(&temporary, self.path.join(name)).expect("rename a manifest");
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path.join(name)).expect("remove a manifest");
    }

    /// The directory's path.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("a UTF-8 path")
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        // What is left over is in the build directory and in no one's way.
        let _left = fs::remove_dir_all(&self.path);
    }
}

/// `kube-dnat run` in the namespace of node-1. If the test fails, its log and the node's ruleset
/// are printed.
#[derive(Debug)]
pub(crate) struct Daemon<'a> {
    cluster: &'a Cluster,
    /// What it follows.
    pub(crate) manifests: &'a Manifests,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl<'a> Daemon<'a> {
    /// Starts it with `--cluster-cidr`, and waits until the manifests are programmed and the log up to
    /// there is read.
    pub(crate) fn start(cluster: &'a Cluster, manifests: &'a Manifests) -> Self {
        let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
        Self::start_with(cluster, manifests, &["--cluster-cidr", &cidrs])
    }

    /// Starts it with these flags, and waits until the manifests are programmed.
    pub(crate) fn start_with(
        cluster: &'a Cluster,
        manifests: &'a Manifests,
        flags: &[&str],
    ) -> Self {
        // Small machines begin with a lower limit than is wanted, and only the namespace of the machine
        // may raise it: a warning.
        let run = ["run", "--conntrack-max-per-core=0"];
        Self::spawn(cluster, manifests, &[&run, flags].concat())
    }

    /// Starts it as kube-proxy's `DaemonSet` does, without a subcommand, and waits until the
    /// manifests are programmed.
    pub(crate) fn start_by_file(
        cluster: &'a Cluster,
        manifests: &'a Manifests,
        file: &str,
    ) -> Self {
        Self::spawn(cluster, manifests, &[&format!("--config={file}")])
    }

    /// Starts it with `--cluster-cidr` in this environment, and waits until the manifests are programmed.
    pub(crate) fn start_in(
        cluster: &'a Cluster,
        manifests: &'a Manifests,
        environment: &[(&str, &str)],
    ) -> Self {
        let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
        let arguments = [
            "run",
            "--conntrack-max-per-core=0",
            "--cluster-cidr",
            &cidrs,
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_kube-dnat"));
        command.envs(environment.iter().copied());
        Self::spawn_command(cluster, manifests, command, &arguments)
    }

    fn spawn(cluster: &'a Cluster, manifests: &'a Manifests, arguments: &[&str]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_kube-dnat"));
        Self::spawn_command(cluster, manifests, command, arguments)
    }

    fn spawn_command(
        cluster: &'a Cluster,
        manifests: &'a Manifests,
        mut command: Command,
        arguments: &[&str],
    ) -> Self {
        command
            .args(arguments)
            .args([
                "--manifests",
                manifests.path(),
                "--hostname-override",
                cluster.node.name(),
            ])
            .env(
                "RUST_LOG",
                env::var("RUST_LOG").unwrap_or_else(|_| "info,kube_dnat=debug".to_owned()),
            )
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let process = cluster.node.namespace.spawn(&mut command);
        Self::started(cluster, manifests, process)
    }

    /// Takes on one that was started already, its standard error piped, and waits until the manifests
    /// are programmed.
    pub(crate) fn started(
        cluster: &'a Cluster,
        manifests: &'a Manifests,
        mut process: Child,
    ) -> Self {
        let stderr = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .for_each(|line| lines.lock().expect("the log").push(line));
        });
        let daemon = Self {
            cluster,
            manifests,
            process,
            log,
            reader: Some(reader),
        };
        daemon.synchronise();
        // The kernel has it a moment before the daemon says so, and that before the line is read here.
        wait_until("the first sync is logged", PROGRAMMED, || {
            !daemon.logged(LogEvent::FirstSyncCommitted).is_empty()
        });
        daemon
    }

    /// Writes a file of the manifests and waits until it is programmed.
    pub(crate) fn apply(&self, name: &str, text: &str) {
        self.manifests.write(name, text);
        self.synchronise();
    }

    /// Removes a file of the manifests and waits until that is programmed.
    pub(crate) fn remove(&self, name: &str) {
        self.manifests.remove(name);
        self.synchronise();
    }

    /// Waits until what was done to the manifests so far is programmed: adds a Service of the lab's
    /// own and waits for its `ClusterIPs`.
    pub(crate) fn synchronise(&self) {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let mark = COUNT.fetch_add(1, Ordering::Relaxed);
        self.manifests
            .write("0-lab-mark.yaml", &manifest::mark(mark));
        let marked = |family: Family| {
            let address = manifest::mark_ip(family, mark).to_string();
            nft::has_element(
                &self.cluster.node.namespace,
                family.table(),
                "cluster-ips",
                &address,
            )
        };
        wait_until("the manifests are programmed", PROGRAMMED, || {
            Family::ALL.into_iter().all(marked)
        });
    }

    /// The lines of its log so far with this event, as text or as JSON.
    pub(crate) fn logged(&self, event: LogEvent) -> Vec<String> {
        let (field, json) = (format!("event={event}"), format!("\"event\":\"{event}\""));
        self.log_lines(|line| {
            line.contains(&json) || line.split_whitespace().any(|word| word == field)
        })
    }

    /// The lines of its log so far that report this about an object (`Service shop/cart`), by the
    /// reason of its Event.
    pub(crate) fn diagnostics(&self, object: &str, reason: &str) -> Vec<String> {
        let fields = format!("object=\"{object}\" reason={reason} ");
        self.log_lines(|line| line.contains(" WARN ") && line.contains(&fields))
    }

    /// The warnings and errors in its log so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.log_lines(|line| line.contains(" WARN ") || line.contains(" ERROR "))
    }

    fn log_lines(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let log = self.log.lock().expect("the log");
        log.iter().filter(|line| is_wanted(line)).cloned().collect()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).expect("send a signal");
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("send SIGKILL");
        self.process.wait().expect("wait for the daemon");
    }

    /// Sends SIGTERM and waits for the end: the exit status and how long it took.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let sent = Instant::now();
        self.signal(Signal::SIGTERM);
        (self.ended(), sent.elapsed())
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon ends", Duration::from_secs(5), || {
            status = self.process.try_wait().expect("wait for the daemon");
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
        status.expect("it ended")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do about an error of either.
        let _ended = self.process.kill();
        let _status = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
        if thread::panicking() {
            let log = self
                .log
                .lock()
                .map(|log| log.join("\n"))
                .unwrap_or_default();
            let ruleset = self
                .cluster
                .node
                .namespace
                .output("nft", &["list", "ruleset"], "");
            let ruleset = String::from_utf8_lossy(&ruleset.stdout);
            eprintln!("--- log of kube-dnat\n{log}\n--- ruleset of node-1\n{ruleset}---");
        }
    }
}

/// Waits for a condition; panics when it does not come true in time.
#[track_caller]
pub(crate) fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
