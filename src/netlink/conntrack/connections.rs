//! Notifications of connection tracking about new connections.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::SockProtocol;

use crate::netlink::Error;
use crate::netlink::conntrack::tuple::Tuple;
use crate::netlink::socket::attribute::{Attributes, MalformedMessage};
use crate::netlink::socket::{Delivery, open_socket, receive_queued};
use crate::netlink::uapi::GROUP_CONNTRACK_NEW;
use crate::netlink::uapi::conntrack::{CTA_TUPLE_ORIG, CTA_TUPLE_REPLY};
use crate::planner::model::Protocol;

/// The bytes of notifications that can be queued: some 60,000 connections.
const QUEUE: usize = 16 * 1024 * 1024;

/// The bytes of the buffer for one datagram.
const BUFFER: usize = 64 * 1024;

/// A new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The protocol of the connection.
    pub protocol: Protocol,
    /// The address and port that the client connected to.
    pub to: SocketAddr,
    /// The address and port that answer the client.
    pub reply_source: SocketAddr,
}

/// The new connections of the network namespace of the thread that opens it.
///
/// Without such a socket the kernel makes no notifications (`nf_conntrack_events` 2).
#[derive(Debug)]
pub struct NewConnections {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl NewConnections {
    /// Subscribes to new connections.
    ///
    /// # Errors
    /// The kernel does not open or subscribe the socket.
    pub fn open() -> Result<Self, Error> {
        let protocol = SockProtocol::NetlinkNetFilter;
        Ok(Self {
            socket: open_socket(protocol, GROUP_CONNTRACK_NEW, QUEUE)?,
            buffer: vec![0; BUFFER],
        })
    }

    /// Reads the notifications that a test has queued in the other end of a pair of sockets.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn of(socket: OwnedFd) -> Self {
        Self {
            socket,
            buffer: vec![0; BUFFER],
        }
    }

    /// Passes each connection since the last call to `each`; returns whether some were lost.
    ///
    /// # Errors
    /// The socket fails, or a notification is malformed.
    pub fn drain(&mut self, mut each: impl FnMut(Connection)) -> Result<Delivery, Error> {
        receive_queued(self.socket.as_fd(), &mut self.buffer, |message| {
            parse(&message.attributes())?
                .into_iter()
                .for_each(&mut each);
            Ok(())
        })
        .map_err(Error::errno("receive new connections"))
    }
}

/// Reads a new connection; `None` if a Service cannot have its protocol.
fn parse(attributes: &Attributes<'_>) -> Result<Option<Connection>, MalformedMessage> {
    let original = Tuple::parse(attributes, CTA_TUPLE_ORIG)?;
    let reply = Tuple::parse(attributes, CTA_TUPLE_REPLY)?;
    Ok(original.zip(reply).map(|(original, reply)| Connection {
        protocol: original.protocol,
        to: original.destination,
        reply_source: reply.source,
    }))
}
