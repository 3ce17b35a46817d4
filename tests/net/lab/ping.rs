//! ICMP echo requests.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::probe::uninterrupted;
use super::{Namespace, Outcome};

/// The outcome of an echo request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ping {
    /// An echo reply arrived.
    Replied,
    /// The request failed as a probe does; `Refused` is an ICMP port unreachable.
    Failed(Outcome),
}

/// Sends one echo request and waits for the outcome.
pub(crate) fn ping(from: &Namespace, to: IpAddr, deadline: Duration) -> Ping {
    let address = SocketAddr::new(to, 0);
    let (protocol, echo_request) = match to {
        IpAddr::V4(_) => (Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Protocol::ICMPV6, 128),
    };
    let socket = from
        .run(|| Socket::new(Domain::for_address(address), Type::DGRAM, Some(protocol)))
        .expect("a socket of ICMP echo");
    socket
        .set_read_timeout(Some(deadline))
        .expect("a read timeout");
    let sent = Instant::now();
    let exchange = || {
        socket.connect(&SockAddr::from(address))?;
        // Type, code, checksum and identifier (which the kernel fills in), sequence number.
        let sent = (&socket).write_all(&[echo_request, 0, 0, 0, 0, 0, 0, 1]);
        // A rule of this host rejected or dropped the request; reading shows which.
        sent.or_else(|error| {
            if error.kind() == ErrorKind::PermissionDenied {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        uninterrupted(|| (&socket).read(&mut [0; 64]))
    };
    exchange().map_or_else(
        |error| Ping::Failed(Outcome::of_error(&error, sent)),
        |_| Ping::Replied,
    )
}
