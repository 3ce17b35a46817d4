//! A process whose `/proc` files and log are measured.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use kube_dnat::logging::LogEvent;

/// A process that is killed when the value is dropped.
pub(crate) struct Process {
    child: Child,
    log: Receiver<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        command
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (lines, log) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The receiver may be dropped before the process exits.
                let _unread = lines.send(line);
            }
        });
        Self { child, log }
    }

    /// Waits until the process logs an event; returns the line.
    pub(crate) fn until_logged(&self, event: LogEvent) -> String {
        let field = format!("event={event}");
        loop {
            let line = self
                .log
                .recv_timeout(Duration::from_mins(2))
                .unwrap_or_else(|_| panic!("{field} was not logged"));
            if line.split_whitespace().any(|word| word == field) {
                return line;
            }
        }
    }

    fn proc(&self, file: &str) -> String {
        proc(self.child.id(), file)
    }

    /// Returns the CPU time in user space and in the kernel.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// Returns the resident memory in MB.
    pub(crate) fn resident(&self) -> f64 {
        field(&self.proc("status"), "VmRSS:") / 1e3
    }

    /// Returns the number of voluntary context switches of all threads.
    pub(crate) fn wake_ups(&self) -> f64 {
        fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .expect("a process")
            .map(|task| task.expect("a thread").path().join("status"))
            .map(|path| fs::read_to_string(path).expect("a thread"))
            .map(|status| field(&status, "voluntary_ctxt_switches:"))
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Returns the CPU time of a process in user space and in the kernel.
pub(crate) fn cpu(process: u32) -> Duration {
    let stat = proc(process, "stat");
    // proc_pid_stat(5): fields 14 and 15, in hundredths of a second. Field 2, in parentheses,
    // may contain spaces.
    let (_, fields) = stat.rsplit_once(')').expect("a process");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

fn proc(process: u32, file: &str) -> String {
    let path = format!("/proc/{process}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the number in a line of a `status` file in `/proc`.
pub(crate) fn field(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no {name}"))
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
