//! Clients: what came back from an address, and what the server saw.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::{Flow, Namespace};

/// A transport protocol of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

impl From<Protocol> for &'static str {
    /// The protocol's name in Kubernetes' objects.
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str((*self).into())
    }
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What the server calls itself.
    pub(crate) server: String,
    /// The client as the server saw it.
    pub(crate) seen_from: SocketAddr,
    /// The client as it is.
    pub(crate) local: SocketAddr,
}

impl Answer {
    /// Whether the server saw the client's own address. The port may be another: conntrack gives a
    /// connection a new one if two frontends lead the same source port to one endpoint.
    pub(crate) fn keeps_source(&self) -> bool {
        self.seen_from.ip() == self.local.ip()
    }

    /// Reads the line that a server writes.
    pub(crate) fn parse(line: &str, local: SocketAddr) -> Self {
        let (server, peer) = line
            .trim_end()
            .split_once(' ')
            .unwrap_or_else(|| panic!("no server wrote {line:?}"));
        Self {
            server: server.to_owned(),
            seen_from: peer.parse().expect("a peer"),
            local,
        }
    }
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A server answered.
    Answered(Answer),
    /// The connection was refused (TCP reset, or ICMP port unreachable), this long after the probe was sent.
    Refused(Duration),
    /// Nothing came back until the deadline.
    TimedOut,
    /// The network said that there is no way there.
    Unreachable,
    /// Anything else: a connection that broke after it was established.
    Broken(ErrorKind),
}

impl Outcome {
    pub(super) fn of_error(error: &io::Error, since: Instant) -> Self {
        let kind = error.kind();
        if kind == ErrorKind::ConnectionRefused {
            Self::Refused(since.elapsed())
        } else if [ErrorKind::TimedOut, ErrorKind::WouldBlock].contains(&kind) {
            Self::TimedOut
        } else if [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable].contains(&kind) {
            Self::Unreachable
        } else {
            Self::Broken(kind)
        }
    }

    /// The answer; panics if there is none.
    #[track_caller]
    pub(crate) fn answer(self) -> Answer {
        let Self::Answered(answer) = self else {
            panic!("no answer: {self:?}")
        };
        answer
    }

    /// The name of the server that answered.
    pub(crate) fn server(&self) -> Option<&str> {
        match self {
            Self::Answered(answer) => Some(&answer.server),
            Self::Refused(_) | Self::TimedOut | Self::Unreachable | Self::Broken(_) => None,
        }
    }

    /// Whether the probe was refused without waiting for a second attempt: a SYN is repeated after
    /// one second.
    pub(crate) fn is_refused_at_once(&self) -> bool {
        matches!(self, Self::Refused(after) if *after < Duration::from_millis(700))
    }
}

/// Reads again when a signal interrupted it.
pub(super) fn uninterrupted<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// One connection, or one datagram from a socket of its own, to be sent to an address.
#[derive(Clone, Debug)]
pub(crate) struct Probe<'a> {
    pub(super) from: &'a Namespace,
    pub(super) protocol: Protocol,
    pub(super) to: SocketAddr,
    pub(super) source: Option<SocketAddr>,
    pub(super) deadline: Duration,
}

impl<'a> Probe<'a> {
    /// A probe of an address and port from inside a namespace. An answer is awaited for two
    /// seconds, unless [`deadline`](Self::deadline) says otherwise.
    pub(crate) fn new(from: &'a Namespace, protocol: Protocol, to: (IpAddr, u16)) -> Self {
        Self {
            from,
            protocol,
            to: to.into(),
            source: None,
            deadline: Duration::from_secs(2),
        }
    }

    /// Sends from this address of the namespace.
    pub(crate) fn source_ip(mut self, ip: IpAddr) -> Self {
        self.source = Some((ip, self.source.map_or(0, |source| source.port())).into());
        self
    }

    /// Sends from this address and port of the namespace.
    pub(crate) fn source(mut self, ip: IpAddr, port: u16) -> Self {
        self.source = Some((ip, port).into());
        self
    }

    /// Awaits an answer this long.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// For what is expected to be dropped: long enough to see a refusal or an answer, shorter than
    /// a SYN's repetition.
    pub(crate) fn briefly(self) -> Self {
        self.deadline(Duration::from_millis(400))
    }

    /// Whether it is sent in UDP.
    pub(crate) fn is_udp(&self) -> bool {
        self.protocol == Protocol::Udp
    }

    /// Sends it once.
    pub(crate) fn send(&self) -> Outcome {
        self.from.run(|| self.send_here())
    }

    /// Sends it `n` times, each from another source port.
    pub(crate) fn send_times(&self, n: usize) -> Tally {
        let mut attempts = 0..n;
        self.send_while(|| attempts.next().is_some())
    }

    /// Sends it again and again, each time from another source port. Ends early when some have
    /// failed: each may take its whole deadline.
    pub(crate) fn send_while(&self, mut more: impl FnMut() -> bool + Send) -> Tally {
        self.from.run(|| {
            let mut tally = Tally::default();
            while tally.failures.len() < 5 && more() {
                tally.add(self.send_here());
            }
            tally
        })
    }

    /// Sends probes all at the same time; what came of each.
    pub(crate) fn send_all(probes: &[Self]) -> Vec<Outcome> {
        thread::scope(|scope| {
            let sent: Vec<_> = probes
                .iter()
                .map(|probe| scope.spawn(|| probe.send()))
                .collect();
            sent.into_iter()
                .map(|probe| probe.join().expect("a probe"))
                .collect()
        })
    }

    /// Sends it from the namespace that the thread is in.
    fn send_here(&self) -> Outcome {
        match Flow::open_here(self) {
            Ok(mut flow) => flow.greeting(),
            Err(outcome) => outcome,
        }
    }
}

impl fmt::Display for Probe<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {} -> {}",
            self.protocol,
            self.from.name(),
            self.to
        )?;
        self.source
            .map_or(Ok(()), |source| write!(formatter, " (from {source})"))
    }
}

/// What came of many probes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// How often each server answered.
    pub(crate) servers: BTreeMap<String, usize>,
    /// How many of them saw the client's own address.
    pub(crate) sources_kept: usize,
    /// What was not answered.
    pub(crate) failures: Vec<Outcome>,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        if let Outcome::Answered(answer) = outcome {
            self.sources_kept += usize::from(answer.keeps_source());
            *self.servers.entry(answer.server).or_default() += 1;
        } else {
            self.failures.push(outcome);
        }
    }
}
