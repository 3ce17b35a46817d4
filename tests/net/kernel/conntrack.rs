//! Conntrack entries are dumped, and stale ones deleted.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};

use kube_dnat::netlink::Conntrack;
use kube_dnat::planner::conntrack::ConntrackEntry;
use kube_dnat::planner::model::Protocol;
use libtest_mimic::Trial;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::lab::{Namespace, nft, sctp, wait_until};
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::conntrack;
    trials![conntrack:
        stale_udp_entries_are_deleted_and_others_stay,
        tcp_and_sctp_entries_can_be_stale_only_if_they_were_never_answered,
    ]
}

/// The number of UDP entries.
const ENTRIES: u32 = 5_000;

/// Returns the n-th destination, an address of the loopback interface.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0000 + number)
}

fn stale_udp_entries_are_deleted_and_others_stay() {
    let namespace = Namespace::new("conntrack");
    namespace.ip("link set lo up\n");
    // Without a rule that needs conntrack, the kernel tracks nothing. Odd addresses are in a zone.
    let rules = "table ip t {\n\
         chain out {\n\
           type filter hook output priority raw;\n\
           ip daddr & 0.0.0.1 == 0.0.0.1 udp dport 53 ct zone set 7\n\
         }\n\
         chain in {\n\
           type filter hook input priority filter;\n\
           ct state new accept\n\
         }\n\
       }\n";
    nft::load(&namespace, rules);
    let (_connection, mut conntrack) = namespace.run(|| {
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 10_000)).expect("a socket");
        for number in 0..ENTRIES {
            // No process listens there, so the socket may report an ICMP error.
            let _rejected = sender.send_to(b"?", SocketAddrV4::new(address(number), 53));
        }
        let listener = TcpListener::bind((address(0), 53)).expect("a listener");
        let connection = TcpStream::connect((address(0), 53)).expect("a connection");
        (
            (listener, connection),
            Conntrack::open().expect("conntrack"),
        )
    });
    let mut read = |stale: &dyn Fn(&ConntrackEntry<Ipv4Addr>) -> bool| {
        let seen = std::cell::RefCell::new(BTreeSet::new());
        let cleaned =
            conntrack.delete(&Protocol::Udp.into(), |entry: &ConntrackEntry<Ipv4Addr>| {
                assert_eq!(entry.source, (Ipv4Addr::LOCALHOST, 10_000));
                assert_eq!(entry.reply_destination, entry.source);
                assert_eq!(entry.reply_source, entry.destination);
                assert_eq!(entry.destination.1, 53);
                seen.borrow_mut().insert(entry.destination.0);
                stale(entry)
            });
        (cleaned.expect("a dump"), seen.into_inner())
    };
    let all: BTreeSet<_> = (0..ENTRIES).map(address).collect();
    let (cleaned, seen) = read(&|entry| entry.destination.0 < address(ENTRIES / 2));
    assert_eq!(seen, all);
    assert_eq!(cleaned.deleted, all.len() / 2);
    let kept: BTreeSet<_> = (ENTRIES / 2..ENTRIES).map(address).collect();
    let (cleaned, seen) = read(&|_| false);
    assert_eq!((cleaned.deleted, cleaned.entries), (0, kept.len()));
    assert_eq!(seen, kept);
    let tcp = namespace.command("conntrack", &["-L", "-p", "tcp"]);
    assert!(tcp.contains("dst=127.1.0.0"), "{tcp}");
}

fn tcp_and_sctp_entries_can_be_stale_only_if_they_were_never_answered() {
    let namespace = Namespace::new("half-open");
    namespace.ip("link set lo up\n");
    let rules = "table ip t {\n\
         chain in {\n\
           type filter hook input priority filter;\n\
           ct state new accept\n\
         }\n\
       }\n";
    nft::load(&namespace, rules);
    namespace.ip("link add out type veth peer name out-peer\n\
         addr add 192.0.2.1/24 dev out\n\
         link set out up\n\
         link set out-peer up\n\
         neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev out\n");
    let (_open, mut conntrack) = namespace.run(|| {
        let listener = TcpListener::bind((address(0), 80)).expect("a listener");
        let answered = TcpStream::connect((address(0), 80)).expect("a connection");
        let unanswered = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        unanswered.set_nonblocking(true).expect("a socket");
        let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 80);
        let connecting = unanswered.connect(&SockAddr::from(to));
        assert!(connecting.is_err(), "the connection is not established");
        (
            (listener, answered, unanswered),
            Conntrack::open().expect("conntrack"),
        )
    });
    sctp::send_init(&namespace, 5000, (Ipv4Addr::new(192, 0, 2, 9).into(), 3868));
    let listing = || namespace.command("conntrack", &["-L"]);
    wait_until("entries of both", || {
        let listing = listing();
        listing.contains("SYN_SENT") && listing.contains("sctp")
    });
    for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Sctp, 3868)] {
        let cleaned = conntrack.delete(&protocol.into(), |entry: &ConntrackEntry<Ipv4Addr>| {
            entry.protocol == protocol
        });
        let cleaned = cleaned.expect("a dump");
        let destinations: Vec<_> = cleaned
            .stale
            .iter()
            .map(|entry| entry.destination)
            .collect();
        assert_eq!(destinations, [(Ipv4Addr::new(192, 0, 2, 9), port)]);
        assert_eq!((cleaned.entries, cleaned.deleted), (1, 1));
    }
    let listing = listing();
    assert!(listing.contains("ESTABLISHED"), "{listing}");
    assert!(!listing.contains("dst=192.0.2.9"), "{listing}");
}
