//! SCTP without SCTP sockets: crafted INIT packets and their receivers.
//!
//! The kernel tracks SCTP connections wherever it tracks TCP connections, but the module of SCTP
//! sockets is often missing. A raw socket sees a packet after DNAT and masquerade.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::probe::uninterrupted;
use super::{Family, Host, Namespace};

/// An INIT that a host received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Init {
    /// The sender as the receiver sees it.
    pub(crate) from: SocketAddr,
    /// The destination port.
    pub(crate) port: u16,
}

/// Receives the INITs that arrive at a host in one family.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: UdpSocket,
    /// The length of the IP header, which a raw socket receives in IPv4 only.
    header: usize,
}

impl Receiver {
    /// Starts to receive INITs.
    pub(crate) fn start(host: &Host, family: Family) -> Self {
        let address = host.ip(family);
        let socket = raw_socket(&host.namespace, address);
        socket
            .bind(&SocketAddr::new(address, 0).into())
            .expect("bind a raw socket");
        let header = if address.is_ipv4() { 20 } else { 0 };
        Self {
            socket: socket.into(),
            header,
        }
    }

    /// Returns the next INIT, if one arrives in time. A kernel with the SCTP module answers INITs
    /// with ABORTs, which arrive too.
    pub(crate) fn receive(&self, deadline: Duration) -> Option<Init> {
        let until = Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket
                .set_read_timeout(Some(left))
                .expect("a read timeout");
            let mut buffer = [0; 256];
            let (len, from) = uninterrupted(|| self.socket.recv_from(&mut buffer)).ok()?;
            let packet = buffer.get(self.header..len).unwrap_or_default();
            if let Some(init) = init_of(packet, from.ip()) {
                return Some(init);
            }
        }
    }
}

/// Parses an SCTP packet as an INIT. An INIT chunk is the only chunk of its packet.
fn init_of(packet: &[u8], from: IpAddr) -> Option<Init> {
    let [s1, s2, d1, d2] = *packet.first_chunk()?;
    (*packet.get(CHUNKS)? == INIT).then_some(Init {
        from: SocketAddr::new(from, u16::from_be_bytes([s1, s2])),
        port: u16::from_be_bytes([d1, d2]),
    })
}

/// The offset of the first chunk of a packet. A chunk starts with its type.
const CHUNKS: usize = 12;

/// The type of an INIT chunk.
const INIT: u8 = 1;

/// Sends an INIT from a namespace with this source port.
pub(crate) fn send_init(from: &Namespace, source_port: u16, to: (IpAddr, u16)) {
    let (address, port) = to;
    let socket = UdpSocket::from(raw_socket(from, address));
    let sent = socket.send_to(&init(source_port, port), SocketAddr::new(address, 0));
    sent.unwrap_or_else(|error| panic!("send an SCTP INIT to {address}: {error}"));
}

fn raw_socket(namespace: &Namespace, address: IpAddr) -> Socket {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    namespace
        .run(|| Socket::new(domain, Type::RAW, Some(Protocol::SCTP)))
        .expect("a raw SCTP socket")
}

/// Builds an SCTP packet with one INIT chunk (RFC 9260, sections 3.1 and 3.3.2). Connection
/// tracking ignores a packet with a wrong checksum.
fn init(source_port: u16, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source_port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0; 4]); // verification tag: 0 in an INIT
    packet.extend([0; 4]); // checksum
    packet.extend([INIT, 0, 0, 20]); // chunk, no flags, length
    packet.extend([0, 0, 0, 1]); // initiate tag
    packet.extend(65_536_u32.to_be_bytes()); // advertised receiver window
    packet.extend([0, 1, 0, 1]); // streams, out and in
    packet.extend([0, 0, 0, 1]); // initial TSN
    let checksum = crc32c(&packet).to_le_bytes();
    packet.splice(8..12, checksum);
    packet
}

/// Computes the checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let next = |crc: u32, byte: &u8| {
        let shift = |crc: u32, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        };
        (0..8).fold(crc ^ u32::from(*byte), shift)
    };
    !bytes.iter().fold(!0, next)
}

pub(crate) fn an_init_and_an_abort_are_distinguished() {
    let from = IpAddr::from([192, 0, 2, 1]);
    let mut packet = init(1024, 3868);
    let expected = Init {
        from: SocketAddr::new(from, 1024),
        port: 3868,
    };
    assert_eq!(init_of(&packet, from), Some(expected));
    packet[CHUNKS] = 6;
    assert_eq!(init_of(&packet, from), None);
    assert_eq!(init_of(&packet[..CHUNKS], from), None);
}

pub(crate) fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
