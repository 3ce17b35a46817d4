//! Clients that keep their connection, or their source port.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::probe::{Answer, Outcome, Probe, Protocol, uninterrupted};

/// An open TCP connection, or a UDP socket with its source port.
#[derive(Debug)]
pub(crate) struct Flow {
    socket: Socket,
    protocol: Protocol,
    opened: Instant,
    local: SocketAddr,
}

impl Flow {
    /// Opens the connection of a probe. A UDP flow opens without a packet.
    ///
    /// # Errors
    ///
    /// Returns the outcome if the connection is not established.
    pub(crate) fn open(probe: &Probe<'_>) -> Result<Self, Outcome> {
        probe.from.run(|| Self::open_here(probe))
    }

    /// Does the same as [`open`](Self::open), in the namespace of the current thread.
    pub(super) fn open_here(probe: &Probe<'_>) -> Result<Self, Outcome> {
        let opened = Instant::now();
        let domain = Domain::for_address(probe.to);
        let kind = match probe.protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
        };
        let socket = Socket::new(domain, kind, None).expect("a socket");
        bind(&socket, probe);
        let connected = socket.connect_timeout(&SockAddr::from(probe.to), probe.deadline);
        connected.map_err(|error| Outcome::of_error(&error, opened))?;
        socket
            .set_read_timeout(Some(probe.deadline))
            .expect("a read timeout");
        let local = socket
            .local_addr()
            .expect("a local address")
            .as_socket()
            .expect("an IP address");
        Ok(Self {
            socket,
            protocol: probe.protocol,
            opened,
            local,
        })
    }

    /// Returns the first answer of the server: to an accepted TCP connection, or to a UDP datagram.
    pub(crate) fn greeting(&mut self) -> Outcome {
        match self.protocol {
            Protocol::Tcp => self.read(),
            Protocol::Udp => self.ask(),
        }
    }

    /// Sends a message and returns the server's answer.
    pub(crate) fn ask(&mut self) -> Outcome {
        self.opened = Instant::now();
        match (&self.socket).write_all(b"?\n") {
            Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                Outcome::of_error(&error, self.opened)
            }
            // A rule of this host stopped the datagram. The next read shows whether it was
            // rejected or dropped.
            Ok(()) | Err(_) => self.read(),
        }
    }

    /// Sends a keep-alive probe after each idle second, the shortest time that the kernel allows, and
    /// returns what the client sees next.
    pub(crate) fn keep_alive(&mut self) -> Outcome {
        let second = Duration::from_secs(1);
        let every_second = TcpKeepalive::new().with_time(second).with_interval(second);
        self.socket
            .set_tcp_keepalive(&every_second)
            .expect("keep-alive");
        self.read()
    }

    fn read(&self) -> Outcome {
        let mut buffer = [0; 256];
        match uninterrupted(|| (&self.socket).read(&mut buffer)) {
            Ok(0) => Outcome::Broken(ErrorKind::UnexpectedEof),
            Ok(length) => {
                let line =
                    String::from_utf8_lossy(buffer.get(..length).expect("no more than the buffer"));
                Outcome::Answered(Answer::parse(&line, self.local))
            }
            Err(error) => Outcome::of_error(&error, self.opened),
        }
    }
}

/// Binds to the probe's source. A UDP socket gets a source port that no recent socket used, because
/// the conntrack entry of an earlier flow would choose the endpoint.
fn bind(socket: &Socket, probe: &Probe<'_>) {
    let source = probe.source.unwrap_or_else(|| match probe.to {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    });
    if source.port() == 0 && probe.protocol == Protocol::Udp {
        let bound = (0..100).any(|_| {
            socket
                .bind(&SocketAddr::new(source.ip(), next_port()).into())
                .is_ok()
        });
        assert!(bound, "no free UDP port");
    } else if probe.source.is_some() {
        socket
            .bind(&source.into())
            .unwrap_or_else(|error| panic!("bind {source}: {error}"));
    }
}

/// Returns consecutive source ports, below the kernel's ephemeral ports.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000
}
