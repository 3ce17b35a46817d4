//! The clients of a run: new connections all the time, and connections that stay open.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::errno::Errno;
use socket2::SockRef;

use super::Settings;
use super::history::{Answered, Attempt, History};
use super::services::{Frontend, Pods, Side, Target};
use crate::lab::{Cluster, Family, Host, Protocol, patient};

/// The number of threads that connect, of each host.
const THREADS: u32 = 5;

/// The number of open connections of a thread.
const HELD_PER_THREAD: u32 = 10;

/// The time after which a client gives up. Linux sends a SYN again after 1, 3 and 7 seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// The time after which a client of UDP sends again, from the same port.
const RESEND: Duration = Duration::from_secs(1);

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
    let threads = hosts.len() * usize::try_from(THREADS).expect("a few");
    let pace = Duration::from_secs(1) * u32::try_from(threads).expect("a few") / settings.rate;
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
            for thread in 0..(settings.held / 3).div_ceil(HELD_PER_THREAD) {
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
                    let answer = stream.write_all(b"?\n").and_then(|()| line(stream));
                    let same = answer.as_ref().is_ok_and(|answer| pod_of(answer) == *pod);
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

/// Opens a connection, reads who answers, and closes it.
fn connection(target: Target, family: Family) -> Attempt {
    let begin = Instant::now();
    let answered = match open(target, family) {
        Ok((stream, pod)) => {
            // Without TIME_WAIT: there are more connections a minute than ports. The connection is
            // over, and it does not matter how.
            let _closed_slowly = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            answered_by(pod)
        }
        Err(error) => Answered::Nobody(name_of(&error)),
    };
    Attempt {
        target,
        family,
        protocol: Protocol::Tcp,
        begin,
        end: Instant::now(),
        answered,
    }
}

/// Sends datagrams from a new socket until one is answered.
fn datagram(target: Target, family: Family) -> Attempt {
    ask(&socket(target, family), target, family)
}

fn ask(socket: &UdpSocket, target: Target, family: Family) -> Attempt {
    let begin = Instant::now();
    let mut answered = Answered::Nobody("no answer");
    // The time of the last datagram: an answer comes from the endpoint of that time.
    let mut sent = begin;
    while begin.elapsed() < patient(PATIENCE) {
        sent = Instant::now();
        let mut buffer = [0; 256];
        // A failure to send is an ICMP error of the last datagram, or a full queue.
        let received = socket.send(b"?\n").and_then(|_| socket.recv(&mut buffer));
        match received {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                answered = answered_by(pod_of(&text));
                break;
            }
            Err(error) => {
                answered = Answered::Nobody(name_of(&error));
                thread::sleep(RESEND.saturating_sub(sent.elapsed()));
            }
        }
    }
    let is_answered = matches!(answered, Answered::By(_));
    Attempt {
        target,
        family,
        protocol: Protocol::Udp,
        begin: if is_answered { sent } else { begin },
        end: Instant::now(),
        answered,
    }
}

fn open(target: Target, family: Family) -> io::Result<(TcpStream, Pods)> {
    let to = SocketAddr::from(target.address(family));
    let mut stream = TcpStream::connect_timeout(&to, patient(PATIENCE))?;
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    let answer = line(&mut stream)?;
    Ok((stream, pod_of(&answer)))
}

fn socket(target: Target, family: Family) -> UdpSocket {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("a port");
    socket.connect(target.address(family)).expect("a route");
    socket
        .set_read_timeout(Some(patient(RESEND)))
        .expect("a time-out");
    socket
}

fn line(stream: &mut TcpStream) -> io::Result<String> {
    let mut buffer = [0; 256];
    match stream.read(&mut buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
    }
}

/// Returns the Pod that wrote `NAME:PORT PEER`; no Pod if another server did.
fn pod_of(answer: &str) -> Pods {
    Pods::named(answer.split(':').next().unwrap_or_default())
}

fn answered_by(pod: Pods) -> Answered {
    if pod.is_empty() {
        Answered::Other
    } else {
        Answered::By(pod)
    }
}

/// Returns the words of the kernel for the failure of a client.
fn name_of(error: &io::Error) -> &'static str {
    let words = error
        .raw_os_error()
        .map(|number| Errno::from_raw(number).desc());
    // A read that gets the end of the stream has no number.
    words.unwrap_or("the connection was closed")
}
