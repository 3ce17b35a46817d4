//! The real program on node-1, with a directory of manifests.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::{env, fs, process};

use kube_dnat::logging::LogEvent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cluster, Family, manifest, nft, wait_until};

/// A directory of manifests, which is removed when the value is dropped.
#[derive(Debug)]
pub(crate) struct Manifests {
    path: PathBuf,
}

impl Manifests {
    /// Creates a directory that describes node-1 (`node.yaml`) and the `ServiceCIDRs`
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

    /// Writes a file, or replaces it atomically.
    pub(crate) fn write(&self, name: &str, text: &str) {
        // The name of the temporary file is not that of a manifest.
        let temporary = self.path.join(format!(".{name}.new"));
        fs::write(&temporary, text).expect("write a manifest");
        fs::rename(&temporary, self.path.join(name)).expect("rename a manifest");
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path.join(name)).expect("remove a manifest");
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("a UTF-8 path")
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        // A leftover is in the build directory and does no harm.
        let _left = fs::remove_dir_all(&self.path);
    }
}

/// Builds the command `kube-dnat run` for node-1, without a source of objects.
pub(crate) fn run_command(cluster: &Cluster) -> Command {
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kube-dnat"));
    command
        .args([
            "run",
            "--conntrack-max-per-core=0",
            "--cluster-cidr",
            &cidrs,
        ])
        .args(["--hostname-override", cluster.node.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A running `kube-dnat run` in the namespace of node-1.
///
/// If the test fails, the log and the ruleset of the node are printed.
#[derive(Debug)]
pub(crate) struct Daemon<'a> {
    cluster: &'a Cluster,
    /// The manifests that the daemon follows.
    pub(crate) manifests: &'a Manifests,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl<'a> Daemon<'a> {
    /// Starts the daemon with `--cluster-cidr`, and waits until the first sync is logged.
    pub(crate) fn start(cluster: &'a Cluster, manifests: &'a Manifests) -> Self {
        let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
        Self::start_with(cluster, manifests, &["--cluster-cidr", &cidrs])
    }

    /// Starts the daemon with flags, and waits until the first sync is logged.
    pub(crate) fn start_with(
        cluster: &'a Cluster,
        manifests: &'a Manifests,
        flags: &[&str],
    ) -> Self {
        // Small machines have a lower limit at first, which only the initial namespace can raise:
        // that would be a warning.
        let run = ["run", "--conntrack-max-per-core=0"];
        Self::spawn(cluster, manifests, &[&run, flags].concat())
    }

    /// Starts the daemon like kube-proxy's `DaemonSet`, without a subcommand, and waits until the
    /// first sync is logged.
    pub(crate) fn start_by_file(
        cluster: &'a Cluster,
        manifests: &'a Manifests,
        file: &str,
    ) -> Self {
        Self::spawn(cluster, manifests, &[&format!("--config={file}")])
    }

    /// Starts it with `--cluster-cidr` in this environment, and waits until the manifests are
    /// programmed.
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

    /// Wraps a daemon that was started with its standard error piped, and waits until the first
    /// sync is logged.
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
        daemon.await_programmed();
        // The commit is in the kernel a moment before the daemon logs it.
        wait_until("the first sync is logged", || {
            !daemon.logged(LogEvent::FirstSyncCommitted).is_empty()
        });
        daemon
    }

    /// Writes a file of the manifests and waits until it is programmed.
    pub(crate) fn apply(&self, name: &str, text: &str) {
        self.manifests.write(name, text);
        self.await_programmed();
    }

    /// Removes a file of the manifests and waits until that is programmed.
    pub(crate) fn remove(&self, name: &str) {
        self.manifests.remove(name);
        self.await_programmed();
    }

    /// Waits until all changes of the manifests so far are programmed.
    ///
    /// Adds a Service of the lab and waits for its `ClusterIPs`.
    pub(crate) fn await_programmed(&self) {
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
        wait_until("the manifests are programmed", || {
            Family::ALL.into_iter().all(marked)
        });
    }

    /// Returns the lines of the log with an event, in text or JSON format.
    pub(crate) fn logged(&self, event: LogEvent) -> Vec<String> {
        let (field, json) = (format!("event={event}"), format!("\"event\":\"{event}\""));
        self.log_lines(|line| {
            line.contains(&json) || line.split_whitespace().any(|word| word == field)
        })
    }

    /// Returns the warnings about an object (`Service shop/cart`) with the reason of an Event.
    pub(crate) fn diagnostics(&self, object: &str, reason: &str) -> Vec<String> {
        let fields = format!("object=\"{object}\" reason={reason} ");
        self.log_lines(|line| line.contains(" WARN ") && line.contains(&fields))
    }

    /// Returns the warnings and errors in the log.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.log_lines(|line| line.contains(" WARN ") || line.contains(" ERROR "))
    }

    fn log_lines(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let log = self.log.lock().expect("the log");
        log.iter().filter(|line| is_wanted(line)).cloned().collect()
    }

    /// Returns the process ID.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).expect("send a signal");
    }

    /// Sends SIGKILL and waits for the exit.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("send SIGKILL");
        self.process.wait().expect("wait for the daemon");
    }

    /// Sends SIGTERM and waits for the exit; returns the exit status.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// Waits for the exit.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon exits", || {
            status = self.process.try_wait().expect("wait for the daemon");
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
        status.expect("the daemon exited")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // The daemon may have exited already, and an error of either call is harmless.
        let _killed = self.process.kill();
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
