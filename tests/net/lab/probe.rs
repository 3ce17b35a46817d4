//! Clients: the answer of an address, and the client's address as the server sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::patient;
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
    /// Both protocols.
    pub(crate) const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

impl From<Protocol> for &'static str {
    /// The protocol's name in Kubernetes objects.
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
    /// The server's name.
    pub(crate) server: String,
    /// The client's address and port as the server sees them.
    pub(crate) seen_from: SocketAddr,
    /// The client's own address and port.
    pub(crate) local: SocketAddr,
}

impl Answer {
    /// Returns whether the server sees the client's own address. The port can differ: conntrack
    /// changes it if two frontends send the same source port to one endpoint.
    pub(crate) fn keeps_source(&self) -> bool {
        self.seen_from.ip() == self.local.ip()
    }

    /// Parses the line that a server writes.
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

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A server answers.
    Answered(Answer),
    /// The connection is rejected with a TCP reset or ICMP port unreachable, this long after the
    /// probe is sent.
    Refused(Duration),
    /// No answer arrives before the deadline.
    TimedOut,
    /// The network reports that the destination is unreachable.
    Unreachable,
    /// Any other failure, such as a connection that breaks after it is established.
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

    /// Returns the answer. Panics if there is no answer.
    #[track_caller]
    pub(crate) fn answer(self) -> Answer {
        let Self::Answered(answer) = self else {
            panic!("no answer: {self:?}")
        };
        answer
    }

    /// Returns the name of the server that answers.
    pub(crate) fn server(&self) -> Option<&str> {
        match self {
            Self::Answered(answer) => Some(&answer.server),
            Self::Refused(_) | Self::TimedOut | Self::Unreachable | Self::Broken(_) => None,
        }
    }

    /// Returns whether the first packet of the probe is rejected. The kernel retransmits a SYN
    /// after one second.
    pub(crate) fn is_refused_at_once(&self) -> bool {
        matches!(self, Self::Refused(after) if *after < Duration::from_millis(700))
    }
}

/// Repeats a read that a signal interrupts.
pub(super) fn uninterrupted<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The deadline for a packet that should be dropped. It is long enough for a reject or an answer, and
/// shorter than the retransmission of a SYN.
pub(super) const BRIEFLY: Duration = Duration::from_millis(400);

/// One connection to an address, or one datagram to it from a socket of its own.
#[derive(Clone, Debug)]
pub(crate) struct Probe<'a> {
    pub(super) from: &'a Namespace,
    pub(super) protocol: Protocol,
    pub(super) to: SocketAddr,
    pub(super) source: Option<SocketAddr>,
    pub(super) deadline: Duration,
}

impl<'a> Probe<'a> {
    /// Creates a probe of an address and port from a namespace. It waits ten seconds for an
    /// answer, unless [`deadline`](Self::deadline) sets another time.
    pub(crate) fn new(from: &'a Namespace, protocol: Protocol, to: (IpAddr, u16)) -> Self {
        Self {
            from,
            protocol,
            to: to.into(),
            source: None,
            deadline: patient(Duration::from_secs(10)),
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

    /// Waits this long for an answer.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = patient(deadline);
        self
    }

    /// Sets the deadline for a packet that should be dropped ([`BRIEFLY`]).
    pub(crate) fn briefly(self) -> Self {
        Self {
            deadline: BRIEFLY,
            ..self
        }
    }

    /// Returns whether the probe uses UDP.
    pub(crate) fn is_udp(&self) -> bool {
        self.protocol == Protocol::Udp
    }

    /// Sends the probe once.
    pub(crate) fn send(&self) -> Outcome {
        self.from.run(|| self.send_here())
    }

    /// Sends the probe `n` times, each time from another source port.
    pub(crate) fn send_times(&self, n: usize) -> Tally {
        let mut attempts = 0..n;
        self.send_while(|| attempts.next().is_some())
    }

    /// Sends the probe repeatedly, each time from another source port. Stops early after some
    /// failures, because each failure can take its whole deadline.
    pub(crate) fn send_while(&self, mut more: impl FnMut() -> bool + Send) -> Tally {
        self.from.run(|| {
            let mut tally = Tally::default();
            while tally.failures.len() < 5 && more() {
                tally.add(self.send_here());
            }
            tally
        })
    }

    /// Sends all probes at the same time and returns the outcome of each.
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

    /// Sends the probe from the namespace of the current thread.
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

/// The outcomes of many probes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// The number of answers of each server.
    pub(crate) servers: BTreeMap<String, usize>,
    /// The number of answers whose server sees the client's own address.
    pub(crate) sources_kept: usize,
    /// The outcomes without an answer.
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
