//! The clients of a run: new connections all the time, and connections that stay open.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::Settings;
use super::attempt::{ask, connection, datagram, open, request, socket};
use super::history::{Attempt, History};
use super::services::{Frontend, Side, Target};
use crate::lab::{Cluster, Family, Host};

/// The number of threads that connect, of each host.
const THREADS: u32 = 5;

/// The number of open connections of a thread.
const HELD_PER_THREAD: u32 = 10;

/// The connections that stayed open.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) opened: usize,
    pub(super) broken: Vec<String>,
    /// Those that the node reset, since another program had flushed its ruleset.
    pub(super) reset: usize,
}

/// Runs `events` while clients connect; it gets the number of connections so far. Returns what
/// happened to all new connections, and to those that stayed open.
pub(super) fn run(
    cluster: &Cluster,
    history: &History,
    settings: &Settings,
    events: impl FnOnce(&dyn Fn() -> usize),
) -> (Vec<Attempt>, Held) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stopped, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    let hosts = [
        (&cluster.client, Side::Outside),
        (cluster.pod("pod-3"), Side::Inside),
        (&cluster.node, Side::Inside),
    ];
    let host_count = u32::try_from(hosts.len()).expect("a few");
    let pace = Duration::from_secs(1) * host_count * THREADS / settings.rate;
    let (stopped_now, count) = (&stopped, &begun);
    thread::scope(|scope| {
        let stop = Stop(&stopped);
        let mut connecting = Vec::new();
        let mut holding = Vec::new();
        for (number, (host, side)) in (0..).zip(hosts) {
            for thread in 0..THREADS {
                let seed = settings.seed ^ (u64::from(number * THREADS + thread) << 32);
                let client = Client {
                    host,
                    side,
                    history,
                };
                connecting.push(scope.spawn(move || {
                    client.connect_until(stopped_now, count, pace, Rng::with_seed(seed))
                }));
            }
            for thread in 0..(settings.held / host_count).div_ceil(HELD_PER_THREAD) {
                let client = Client {
                    host,
                    side,
                    history,
                };
                let seed = settings.seed ^ (u64::from(number) << 48) ^ u64::from(thread) << 40;
                holding.push(
                    scope.spawn(move || client.hold_until(stopped_now, Rng::with_seed(seed))),
                );
            }
        }
        events(&|| begun.load(Ordering::Relaxed));
        drop(stop);
        let mut attempts = Vec::new();
        for thread in connecting {
            attempts.append(&mut thread.join().expect("a client"));
        }
        let mut all = Held::default();
        for thread in holding {
            let (mut outcomes, mut held) = thread.join().expect("a client");
            attempts.append(&mut outcomes);
            all.opened += held.opened;
            all.broken.append(&mut held.broken);
            all.reset += held.reset;
        }
        (attempts, all)
    })
}

/// A client on a host.
#[derive(Clone, Copy)]
struct Client<'a> {
    host: &'a Host,
    side: Side,
    history: &'a History,
}

impl Client<'_> {
    /// Connects at a pace until it is stopped.
    fn connect_until(
        self,
        stopped: &AtomicBool,
        begun: &AtomicUsize,
        pace: Duration,
        mut random: Rng,
    ) -> Vec<Attempt> {
        self.host.namespace.run(|| {
            let mut attempts = Vec::new();
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let Some(target) = self.target(&mut random) else {
                    thread::sleep(pace);
                    continue;
                };
                begun.fetch_add(1, Ordering::Relaxed);
                let family = Family::ALL[random.usize(..2)];
                attempts.push(if random.u8(..3) == 0 {
                    datagram(target, family)
                } else {
                    connection(target, family)
                });
                next = (next + pace).max(Instant::now().checked_sub(pace).unwrap_or(next));
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            attempts
        })
    }

    /// Returns a random target that reaches an endpoint now.
    fn target(self, random: &mut Rng) -> Option<Target> {
        let mut reachable = self.history.reachable();
        reachable.retain(|target| {
            target.side == self.side
                && (self.side == Side::Inside || target.frontend != Frontend::ClusterIp)
        });
        let number = random.usize(..reachable.len().max(1));
        reachable.get(number).copied()
    }

    /// Keeps connections open and uses each about once a second.
    fn hold_until(self, stopped: &AtomicBool, mut random: Rng) -> (Vec<Attempt>, Held) {
        self.host.namespace.run(|| {
            let (mut attempts, mut held) = (Vec::new(), Held::default());
            let (mut streams, mut sockets) = (Vec::new(), Vec::new());
            for number in 0..HELD_PER_THREAD {
                let Some(target) = self.target(&mut random) else {
                    continue;
                };
                let family = Family::ALL[random.usize(..2)];
                held.opened += 1;
                if number % 2 == 0 {
                    match open(target, family) {
                        Ok((stream, pod)) => streams.push((stream, pod, target)),
                        Err(error) => held.broken.push(format!("{target:?}: {error}")),
                    }
                } else {
                    sockets.push((socket(target, family), target, family));
                }
            }
            while !stopped.load(Ordering::Relaxed) {
                streams.retain_mut(|(stream, pod, target)| {
                    let begin = Instant::now();
                    let answer = request(stream);
                    let same = answer.as_ref().is_ok_and(|answer| answer == pod);
                    if same {
                        return true;
                    }
                    if target.frontend == Frontend::NodePort
                        && self.history.was_interrupted(*target)
                    {
                        held.reset += 1;
                    } else {
                        let after = begin.elapsed();
                        held.broken
                            .push(format!("{target:?}: {answer:?} after {after:?}"));
                    }
                    false
                });
                let reachable = self.history.reachable();
                let used = sockets
                    .iter()
                    .filter(|(_, target, _)| reachable.contains(target));
                for (socket, target, family) in used {
                    attempts.push(ask(socket, *target, *family));
                }
                thread::sleep(Duration::from_secs(1));
            }
            (attempts, held)
        })
    }
}
