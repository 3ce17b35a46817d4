//! Hears of new connections from connection tracking, while somebody wants to.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};

use super::Error;
use super::attribute::{Attributes, messages};
use crate::model::Protocol;

/// `1 << (NFNLGRP_CONNTRACK_NEW - 1)`. Without a listener the kernel makes no such messages
/// (`nf_conntrack_events` 2).
const NEW: u32 = 1;

/// Bytes of messages that may wait: some 60,000 connections.
const QUEUE: usize = 16 * 1024 * 1024;

/// Bytes of one datagram.
const RECEIVE: usize = 64 * 1024;

// `linux/netfilter/nfnetlink_conntrack.h`.
const CTA_TUPLE_ORIG: i32 = 1;
const CTA_TUPLE_REPLY: i32 = 2;
const CTA_TUPLE_IP: i32 = 1;
const CTA_TUPLE_PROTO: i32 = 2;
const CTA_IP_SRC: [i32; 2] = [1, 3];
const CTA_IP_DST: [i32; 2] = [2, 4];
const CTA_PROTO_NUM: i32 = 1;
const CTA_PROTO_SRC_PORT: i32 = 2;
const CTA_PROTO_DST_PORT: i32 = 3;

/// A connection that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol.
    pub protocol: Protocol,
    /// What it was addressed to.
    pub to: SocketAddr,
    /// Who answers it.
    pub answered_by: SocketAddr,
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
    let original = attributes.get(CTA_TUPLE_ORIG)?.nested();
    let reply = attributes.get(CTA_TUPLE_REPLY)?.nested();
    let number = original.get(CTA_TUPLE_PROTO)?.nested();
    let number = number.get(CTA_PROTO_NUM)?.value.first()?;
    Some(Connection {
        protocol: Protocol::from_number(*number)?,
        to: end(&original, CTA_IP_DST, CTA_PROTO_DST_PORT)?,
        answered_by: end(&reply, CTA_IP_SRC, CTA_PROTO_SRC_PORT)?,
    })
}

fn end(tuple: &Attributes<'_>, [ipv4, ipv6]: [i32; 2], port: i32) -> Option<SocketAddr> {
    let addresses = tuple.get(CTA_TUPLE_IP)?.nested();
    let address = match addresses.get(ipv4) {
        Some(address) => IpAddr::from(<[u8; 4]>::try_from(address.value).ok()?),
        None => IpAddr::from(<[u8; 16]>::try_from(addresses.get(ipv6)?.value).ok()?),
    };
    let ports = tuple.get(CTA_TUPLE_PROTO)?.nested();
    let port = ports.get(port)?.value.try_into().ok()?;
    Some(SocketAddr::new(address, u16::from_be_bytes(port)))
}
