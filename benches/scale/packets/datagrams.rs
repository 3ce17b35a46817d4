//! The cost of a datagram through the node: the first of a connection, and a later one.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use super::super::cluster::{ENDPOINT_PORT, PORT};
use super::rounds::{Random, Values, interleaved};
use super::sender::{BATCH, Flusher, Packet, Sender};
use super::subjects::Lane;
use super::testbed::{NODE, POD};

/// The first source port.
const FIRST_PORT: u16 = 20_000;

/// The number of connections whose later packets are measured.
const FLOWS: u32 = 64;

/// The sender of datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Pod,
    Node,
}

/// The destination of datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// One of this number of Services, at random.
    Services(u32),
    /// Addresses that no Service has.
    Elsewhere,
}

struct Sending<'a> {
    lane: &'a Lane,
    sender: Sender,
    flusher: Flusher,
    sent: u64,
}

impl<'a> Sending<'a> {
    fn new(lane: &'a Lane, from: From) -> Self {
        let (namespace, source) = match from {
            From::Pod => (&lane.bed.pod, POD),
            From::Node => (&lane.bed.node, NODE),
        };
        Self {
            lane,
            sender: Sender::new(namespace, source),
            flusher: Flusher::new(&lane.bed.node),
            sent: lane.bed.arrived(),
        }
    }

    fn send(&mut self, packets: &[Packet]) -> f64 {
        let took = self.sender.send(packets);
        self.sent += packets.len() as u64;
        took
    }

    /// Asserts that every packet passed the node: none was dropped, rejected or queued.
    fn assert_all_arrived(&self) {
        assert_eq!(self.lane.bed.arrived(), self.sent, "{}", self.lane.name);
    }
}

/// Measures the first packet of a connection on each lane, in nanoseconds.
pub(crate) fn first_packet(lanes: &[Lane], from: From, to: To) -> Vec<Values> {
    let mut sending: Vec<_> = lanes.iter().map(|lane| Sending::new(lane, from)).collect();
    let values = interleaved(&mut sending, |sending, round| {
        sending.flusher.flush();
        let mut random = Random::new(round);
        let batch = u16::try_from(BATCH).expect("fewer than ports");
        let packets = (0..batch).map(|number| {
            let address = match to {
                To::Services(used) => sending.lane.cluster.frontend(random.below(used)),
                // 198.18.0.0/15 is for benchmarks (RFC 2544).
                To::Elsewhere => Ipv4Addr::from(0xc612_0000 + random.below(0x1_0000)),
            };
            Packet {
                source_port: FIRST_PORT + number,
                to: SocketAddrV4::new(address, PORT),
            }
        });
        let packets: Vec<_> = packets.collect();
        sending.send(&packets)
    });
    sending.iter().for_each(Sending::assert_all_arrived);
    values
}

/// Measures a packet of an established connection on each lane, in nanoseconds.
///
/// Arriving datagrams are dropped after the connections are established.
pub(crate) fn established(lanes: &[Lane]) -> Vec<Values> {
    for lane in lanes {
        establish(lane);
        lane.bed.drop_arriving_datagrams();
    }
    let mut sending: Vec<_> = lanes
        .iter()
        .map(|lane| Sending::new(lane, From::Pod))
        .collect();
    let values = interleaved(&mut sending, |sending, _| {
        let packets = flows(sending.lane).cycle().take(BATCH);
        let packets: Vec<_> = packets.collect();
        sending.send(&packets)
    });
    sending.iter().for_each(Sending::assert_all_arrived);
    values
}

fn flows(lane: &Lane) -> impl Iterator<Item = Packet> + Clone {
    let used = FLOWS.min(lane.cluster.services);
    let cluster = lane.cluster;
    (0..FLOWS)
        .zip(FIRST_PORT..)
        .map(move |(flow, source_port)| Packet {
            source_port,
            to: SocketAddrV4::new(cluster.frontend(flow % used), PORT),
        })
}

/// Sends a datagram of each connection, and answers it.
fn establish(lane: &Lane) {
    let servers = lane.bed.endpoints.run(|| {
        // The port of endpoints, and the port of Services for subjects that do not translate it.
        [ENDPOINT_PORT, PORT].map(|port| {
            let server = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port");
            setsockopt(&server, sockopt::Ipv4PacketInfo, &true).expect("IP_PKTINFO");
            server.set_nonblocking(true).expect("a socket");
            server
        })
    });
    lane.bed.pod.run(|| {
        for Packet { source_port, to } in flows(lane) {
            let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, source_port)).expect("a port");
            let second = Duration::from_secs(1);
            client.set_read_timeout(Some(second)).expect("a socket");
            client.connect(to).expect("a route");
            client.send(b"?").expect("a datagram");
            servers.iter().for_each(answer);
            let answered = client.recv(&mut [0; 8]);
            answered.unwrap_or_else(|error| panic!("{}: {to} does not answer: {error}", lane.name));
        }
    });
}

/// Answers a datagram, if there is one, from its destination address.
fn answer(server: &UdpSocket) {
    let mut datagram = [0; 8];
    let mut place = [IoSliceMut::new(&mut datagram)];
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo);
    let (socket, none) = (server.as_raw_fd(), MsgFlags::empty());
    let received = recvmsg::<SockaddrIn>(socket, &mut place, Some(&mut control), none);
    let received = match received.map_err(std::io::Error::from) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return,
        received => received.expect("a datagram"),
    };
    let info = received.cmsgs().expect("it fits").find_map(|message| {
        let ControlMessageOwned::Ipv4PacketInfo(info) = message else {
            return None;
        };
        Some(info)
    });
    let control = [ControlMessage::Ipv4PacketInfo(&info.expect("IP_PKTINFO"))];
    let to = received.address;
    let answer = [std::io::IoSlice::new(b"!")];
    sendmsg(socket, &answer, &control, none, to.as_ref()).expect("an answer");
}
