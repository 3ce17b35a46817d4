//! Hears of new connections from connection tracking, while somebody wants to.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};

use crate::netlink::Error;
use crate::netlink::conntrack::tuple::Tuple;
use crate::netlink::socket::attribute::{Attributes, messages};
use crate::netlink::uapi::{CTA_TUPLE_ORIG, CTA_TUPLE_REPLY};
use crate::planner::model::Protocol;

/// `1 << (NFNLGRP_CONNTRACK_NEW - 1)`. Without a listener the kernel makes no such messages
/// (`nf_conntrack_events` 2).
const NEW: u32 = 1;

/// Bytes of messages that may wait: some 60,000 connections.
const QUEUE: usize = 16 * 1024 * 1024;

/// Bytes of one datagram.
const RECEIVE: usize = 64 * 1024;

/// A connection that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol.
    pub protocol: Protocol,
    /// What it was addressed to.
    pub to: SocketAddr,
    /// Who answers it.
    pub reply_source: SocketAddr,
}

/// New connections of the network namespace that the calling thread was in when it was opened.
#[derive(Debug)]
pub struct NewConnections {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl NewConnections {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the kernel does not let it.
    pub fn open() -> Result<Self, Error> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, netfilter)
            .map_err(Error::errno("open for connections"))?;
        // Without the privilege the limit of the system holds, and some are missed sooner.
        if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &QUEUE).map_err(Error::errno("set up"))?;
        }
        match bind(socket.as_raw_fd(), &NetlinkAddr::new(0, NEW)) {
            Ok(()) => {}
            Err(Errno::EPERM) => return Err(Error::Permission),
            Err(errno) => return Err(Error::errno("hear of connections")(errno)),
        }
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE],
        })
    }

    /// Gives those that have begun since it was last asked to `each`; whether some were missed.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn drain(&mut self, mut each: impl FnMut(Connection)) -> Result<bool, Error> {
        let mut missed = false;
        loop {
            match recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(len) => {
                    let received = self.buffer.get(..len).unwrap_or_default();
                    messages(received)
                        .filter_map(|message| connection(&message.attributes()))
                        .for_each(&mut each);
                }
                Err(Errno::EAGAIN) => return Ok(missed),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => missed = true,
                Err(errno) => return Err(Error::errno("hear of connections")(errno)),
            }
        }
    }
}

fn connection(attributes: &Attributes<'_>) -> Option<Connection> {
    let original = Tuple::parse(&attributes.get(CTA_TUPLE_ORIG)?.nested())?;
    let reply = Tuple::parse(&attributes.get(CTA_TUPLE_REPLY)?.nested())?;
    Some(Connection {
        protocol: original.protocol,
        to: original.destination,
        reply_source: reply.source,
    })
}
