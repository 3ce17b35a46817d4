//! A sender of datagrams with little overhead, so that the measured time is that of the packets.
//!
//! Headers are built beforehand, and one system call sends many packets.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, NetlinkAddr, SockFlag, SockProtocol, SockType,
    SockaddrIn, bind, recv, sendmmsg, sendto, socket,
};

use super::testbed::Namespace;

/// The maximum number of packets in a system call, `UIO_MAXIOV` (include/uapi/linux/uio.h).
pub(crate) const BATCH: usize = 1_000;

/// The source port and destination of a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) source_port: u16,
    pub(crate) to: SocketAddrV4,
}

const IPV4_HEADER: usize = 20;
const LENGTH: usize = IPV4_HEADER + 8 + 4;

impl Packet {
    /// Returns the packet with its IPv4 header (RFC 791, RFC 768).
    ///
    /// The kernel sets length and checksum of the header. A UDP checksum of zero means none.
    fn bytes(self, source: Ipv4Addr) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let udp_length = u16::try_from(LENGTH - IPV4_HEADER).expect("it is short");
        let fields: [(usize, &[u8]); 7] = [
            (0, &[0x45]),
            (8, &[64, 17]),
            (12, &source.octets()),
            (16, &self.to.ip().octets()),
            (20, &self.source_port.to_be_bytes()),
            (22, &self.to.port().to_be_bytes()),
            (24, &udp_length.to_be_bytes()),
        ];
        for (at, field) in fields {
            let place = bytes.get_mut(at..at + field.len());
            place.expect("a field of the header").copy_from_slice(field);
        }
        bytes
    }
}

/// A raw socket in a namespace.
pub(crate) struct Sender {
    socket: OwnedFd,
    source: Ipv4Addr,
    headers: MultiHeaders<SockaddrIn>,
}

impl Sender {
    /// Returns a sender with this source address, which the namespace has.
    pub(crate) fn new(namespace: &Namespace, source: Ipv4Addr) -> Self {
        // IPPROTO_RAW: packets include their IPv4 header (raw(7)).
        let open = || {
            let raw = SockProtocol::Raw;
            socket(
                AddressFamily::Inet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                raw,
            )
        };
        Self {
            socket: namespace.run(open).expect("a raw socket"),
            source,
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Sends at most [`BATCH`] packets; returns the nanoseconds per packet.
    pub(crate) fn send(&mut self, packets: &[Packet]) -> f64 {
        let bytes: Vec<_> = packets
            .iter()
            .map(|packet| packet.bytes(self.source))
            .collect();
        let slices: Vec<_> = bytes.iter().map(|bytes| [IoSlice::new(bytes)]).collect();
        let to: Vec<_> = packets
            .iter()
            .map(|packet| Some(SockaddrIn::from(SocketAddrV4::new(*packet.to.ip(), 0))))
            .collect();
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let started = Instant::now();
        let sent = sendmmsg(socket, &mut self.headers, &slices, &to, [], flags);
        let took = started.elapsed();
        assert_eq!(sent.expect("sendmmsg").count(), packets.len());
        let count = u32::try_from(packets.len()).expect("a batch");
        took.as_secs_f64() * 1e9 / f64::from(count)
    }
}

/// A netlink socket that deletes all conntrack entries of a namespace.
pub(crate) struct Flusher(OwnedFd);

impl Flusher {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let netfilter = SockProtocol::NetlinkNetFilter;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, netfilter)
                .expect("a netlink socket");
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("a netlink socket");
            socket
        };
        Self(namespace.run(open))
    }

    pub(crate) fn flush(&self) {
        // struct nlmsghdr: length, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST
        // | NLM_F_ACK; struct nfgenmsg: any family. Without attributes it deletes all entries
        // (net/netfilter/nf_conntrack_netlink.c, ctnetlink_del_conntrack).
        let mut message = [0_u8; 20];
        for (at, value) in [(0, 20_u16), (4, 0x0102), (6, 0x0005)] {
            let place = message.get_mut(at..at + 2).expect("a field");
            place.copy_from_slice(&value.to_ne_bytes());
        }
        let (socket, none) = (self.0.as_raw_fd(), MsgFlags::empty());
        sendto(socket, &message, &NetlinkAddr::new(0, 0), none).expect("a netlink message");
        let mut answer = [0; 64];
        let length = recv(socket, &mut answer, none).expect("a netlink answer");
        // struct nlmsgerr begins with the error.
        assert!(length >= 20, "a netlink answer");
        assert_eq!(
            answer.get(16..20),
            Some(&[0; 4][..]),
            "the table is not empty"
        );
    }
}
