//! Benchmarks of the whole program as a process, from the API server to the kernel.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kube_dnat::logging::LogEvent;
use kube_dnat::netlink::Kernel;

use super::api_server::ApiServer;
use super::cluster::Cluster;
use super::fleet;
use super::node::{in_namespace, run};
use super::objects;
use super::process::{Process, milliseconds};
use super::report::Report;

/// The time between two changes.
const INTERVAL: Duration = Duration::from_millis(50);

/// The number of changes.
const CHANGES: u32 = 200;

/// The number of changes at once before the memory is measured.
const CHURN: u32 = 10_000;

/// The time for which an idle process is observed.
const IDLE: Duration = Duration::from_secs(10);

/// The maximum time for the changes of one subject: kube-proxy needs seconds for each.
const MAX_CHANGES_TIME: Duration = Duration::from_mins(1);

/// The maximum time until the first transaction.
const FIRST_COMMIT: Duration = Duration::from_mins(5);

/// A program to measure.
pub(crate) struct Subject {
    /// The name in the report.
    pub(crate) name: String,
    program: String,
    arguments: Vec<String>,
    /// The time without a transaction after which all changes count as committed.
    quiet: Duration,
}

impl Subject {
    /// Returns this build of kube-dnat.
    pub(crate) fn ours() -> Self {
        Self {
            name: "kube-dnat".to_owned(),
            program: env!("CARGO_BIN_EXE_kube-dnat").to_owned(),
            arguments: vec!["run".to_owned()],
            quiet: Duration::from_secs(1),
        }
    }

    /// Returns another build of kube-dnat, to compare with.
    pub(crate) fn other_build(program: &str) -> Self {
        Self {
            name: "another kube-dnat".to_owned(),
            program: program.to_owned(),
            ..Self::ours()
        }
    }

    /// Returns a kube-proxy in one of its modes.
    pub(crate) fn kube_proxy(program: &str, mode: &str) -> Self {
        Self {
            name: format!("kube-proxy {mode}"),
            program: program.to_owned(),
            // A network namespace does not have this setting.
            arguments: vec![
                format!("--proxy-mode={mode}"),
                "--conntrack-max-per-core=0".to_owned(),
            ],
            quiet: Duration::from_secs(30),
        }
    }

    pub(crate) fn start(&self, kubeconfig: &Path) -> Process {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args([
            "--kubeconfig".as_ref(),
            kubeconfig.as_os_str(),
            "--hostname-override=node-1".as_ref(),
            "--cluster-cidr=10.240.0.0/12".as_ref(),
        ]);
        Process::start(&mut command)
    }
}

/// Measures each subject on each cluster.
pub(crate) fn measure(report: &mut Report, clusters: &[Cluster], subjects: &[Subject]) {
    for cluster in clusters {
        for subject in subjects {
            in_namespace(|| {
                run("ip", &["link", "set", "lo", "up"]);
                let server = ApiServer::start();
                objects::fill(&server, *cluster);
                fleet::list_once(&server.kubeconfig());
                let bench = Bench {
                    kernel: Kernel::open().expect("nf_tables"),
                    server,
                    cluster: *cluster,
                    subject,
                    report: &mut *report,
                };
                bench.all();
            });
        }
    }
}

/// Waits for commits, then for a time without any; returns the time of the last commit.
pub(crate) fn until_quiet(kernel: &mut Kernel, before: u32, quiet: Duration) -> Instant {
    let started = Instant::now();
    let (mut generation, mut last) = (before, started);
    loop {
        let now = kernel.generation().expect("the generation of the ruleset");
        if now != generation {
            (generation, last) = (now, Instant::now());
        } else if generation != before && last.elapsed() > quiet {
            return last;
        }
        let timed_out = generation == before && started.elapsed() > FIRST_COMMIT;
        assert!(!timed_out, "nothing was committed");
        sleep(Duration::from_millis(1));
    }
}

struct Bench<'a> {
    kernel: Kernel,
    server: ApiServer,
    cluster: Cluster,
    subject: &'a Subject,
    report: &'a mut Report,
}

impl Bench<'_> {
    fn all(mut self) {
        let process = self.first_sync();
        self.changes(&process);
        self.churn(&process);
        self.idle(&process);
        drop(process);
        self.restart();
    }

    fn add<const N: usize>(&mut self, what: &str, values: [(&str, f64); N]) {
        let subject = &self.subject.name;
        self.report.add(subject, self.cluster, what, values);
    }

    fn generation(&mut self) -> u32 {
        self.kernel
            .generation()
            .expect("the generation of the ruleset")
    }

    fn until_quiet(&mut self, before: u32) -> Instant {
        until_quiet(&mut self.kernel, before, self.subject.quiet)
    }

    fn first_sync(&mut self) -> Process {
        let before = self.generation();
        let started = Instant::now();
        let process = self.subject.start(&self.server.kubeconfig());
        let committed = self.until_quiet(before) - started;
        let values = [
            ("total_ms", milliseconds(committed)),
            ("cpu_ms", milliseconds(process.cpu())),
            ("resident_mb", process.resident()),
        ];
        self.add("process start to committed", values);
        process
    }

    /// Replaces endpoints one by one, and waits for each commit.
    fn changes(&mut self, process: &Process) {
        let (cpu, started) = (process.cpu(), Instant::now());
        let mut times = Vec::new();
        for number in 0..CHANGES {
            let before = self.generation();
            let change = objects::replaced(self.cluster, number);
            let written = Instant::now();
            self.server.apply([change]);
            while self.generation() == before {
                assert!(
                    written.elapsed() < MAX_CHANGES_TIME,
                    "the change is not committed"
                );
                sleep(Duration::from_micros(20));
            }
            times.push(written.elapsed());
            if started.elapsed() > MAX_CHANGES_TIME {
                break;
            }
            sleep(INTERVAL.saturating_sub(written.elapsed()));
        }
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() - 1) * percent / 100;
            milliseconds(*times.get(index).expect("a time"))
        };
        let count = u32::try_from(times.len()).map_or(0.0, f64::from);
        let values = [
            ("p50_ms", at(50)),
            ("p99_ms", at(99)),
            (
                "cpu_ms_each",
                milliseconds(process.cpu().saturating_sub(cpu)) / count,
            ),
            ("changes", count),
        ];
        self.add("API write to kernel commit", values);
    }

    fn churn(&mut self, process: &Process) {
        let (before, cpu) = (self.generation(), process.cpu());
        let started = Instant::now();
        let changes = (0..CHURN).map(|number| objects::replaced(self.cluster, number));
        self.server.apply(changes);
        let committed = self.until_quiet(before) - started;
        let values = [
            ("total_ms", milliseconds(committed)),
            ("cpu_ms", milliseconds(process.cpu().saturating_sub(cpu))),
            ("resident_mb", process.resident()),
        ];
        self.add("after 10,000 changes in one go", values);
    }

    fn idle(&mut self, process: &Process) {
        let (switches, cpu) = (process.wake_ups(), process.cpu());
        sleep(IDLE);
        let seconds = IDLE.as_secs_f64();
        let values = [
            (
                "wake_ups_a_second",
                (process.wake_ups() - switches) / seconds,
            ),
            (
                "cpu_ms_a_second",
                milliseconds(process.cpu().saturating_sub(cpu)) / seconds,
            ),
        ];
        self.add("nothing changes", values);
    }

    /// Restarts the program with an up-to-date table; kube-proxy does not log when it is ready.
    fn restart(&mut self) {
        if self.subject.name != "kube-dnat" {
            return;
        }
        let started = Instant::now();
        let process = self.subject.start(&self.server.kubeconfig());
        let line = process.until_logged(LogEvent::FirstSyncCommitted);
        let ready = milliseconds(started.elapsed());
        let operations = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("operations="))
            .and_then(|number| number.parse().ok());
        // The log line comes before the memory of the sync is freed.
        sleep(self.subject.quiet);
        let values = [
            ("total_ms", ready),
            ("operations", operations.expect("operations= in the log")),
            ("resident_mb", process.resident()),
        ];
        self.add("restart with the table as it should be", values);
    }
}
