//! What the daemon tells systemd through `NOTIFY_SOCKET`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use libtest_mimic::Trial;
use tempfile::TempDir;

use super::{Cluster, Daemon, Manifests};
use crate::lab::{run_command, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::service_manager;
    crate::trials!(service_manager:
        systemd_learns_that_the_daemon_is_ready_alive_and_stopping,
        systemd_learns_nothing_of_a_daemon_that_has_not_synced_but_its_status,
    )
}

/// A socket like systemd's.
struct NotifySocket {
    socket: UnixDatagram,
    directory: TempDir,
}

impl NotifySocket {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, directory }
    }

    /// Returns the path for `NOTIFY_SOCKET`.
    fn path(&self) -> String {
        let path = self.directory.path().join("notify");
        path.to_str().expect("a UTF-8 path").to_owned()
    }

    /// Appends the assignments that arrived since the last call.
    fn receive(&self, to: &mut Vec<String>) {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let text = std::str::from_utf8(&buffer[..length]).expect("UTF-8");
                    to.extend(text.lines().map(str::to_owned));
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                    return;
                }
            }
        }
    }
}

fn systemd_learns_that_the_daemon_is_ready_alive_and_stopping() {
    let cluster = Cluster::new();
    let manifests = Manifests::new();
    let systemd = NotifySocket::new();
    let path = systemd.path();
    let environment = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "40000")];
    let daemon = Daemon::start_in(&cluster, &manifests, &environment);
    let mut told = Vec::new();
    let pings = |told: &[String]| told.iter().filter(|line| *line == "WATCHDOG=1").count();
    wait_until("the watchdog is pinged again and again", || {
        systemd.receive(&mut told);
        pings(&told) > 2
    });
    assert_eq!(
        told[..4],
        [
            "STATUS=waiting for the first sync",
            "READY=1",
            "STATUS=running; the first sync is committed",
            "WATCHDOG=1",
        ]
    );
    assert!(daemon.terminate().success());
    systemd.receive(&mut told);
    assert_eq!(told.last().map(String::as_str), Some("STOPPING=1"));
}

fn systemd_learns_nothing_of_a_daemon_that_has_not_synced_but_its_status() {
    let cluster = Cluster::new();
    let systemd = NotifySocket::new();
    let log = systemd.directory.path().join("log");
    let mut command = run_command(&cluster);
    command
        .args(["-v=4", "--master=http://127.0.0.1:1"])
        .envs([("NOTIFY_SOCKET", systemd.path())])
        .env("WATCHDOG_USEC", "40000")
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).expect("a log"));
    let mut process = cluster.node.namespace.spawn(&mut command);
    wait_until("the API server does not answer", || {
        let text = fs::read_to_string(&log).expect("a log");
        text.contains("event=watch_failed")
    });
    let mut told = Vec::new();
    systemd.receive(&mut told);
    process.kill().expect("send SIGKILL");
    process.wait().expect("wait for the daemon");
    systemd.receive(&mut told);
    assert_eq!(told, ["STATUS=waiting for the first sync"]);
}
