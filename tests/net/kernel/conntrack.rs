//! Entries of the kernel's connection tracking, read and deleted.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};

use kube_dnat::conntrack::Entry;
use kube_dnat::netlink::Conntrack;
use libtest_mimic::Trial;

use crate::lab::{Namespace, nft};
use crate::trials;

pub(super) fn tests() -> Vec<Trial> {
    use super::conntrack;
    trials![conntrack: stale_udp_entries_are_deleted_and_no_others]
}

/// How many UDP entries there are.
const ENTRIES: u32 = 5_000;

/// The n-th address that is sent to; they are all the loopback's.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0000 + number)
}

fn stale_udp_entries_are_deleted_and_no_others() {
    let namespace = Namespace::new("conntrack");
    namespace.ip("link set lo up\n");
    // Without a rule that asks for it nothing is tracked. Odd addresses are in a zone.
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
            // Nobody listens there: of that the socket may tell.
            let _refused = sender.send_to(b"?", SocketAddrV4::new(address(number), 53));
        }
        let listener = TcpListener::bind((address(0), 53)).expect("a listener");
        let connection = TcpStream::connect((address(0), 53)).expect("a connection");
        (
            (listener, connection),
            Conntrack::open().expect("conntrack"),
        )
    });
    let mut read = |stale: &dyn Fn(&Entry<Ipv4Addr>) -> bool| {
        let seen = std::cell::RefCell::new(BTreeSet::new());
        let cleaned = conntrack.delete(|entry: &Entry<Ipv4Addr>| {
            assert_eq!(entry.source, (Ipv4Addr::LOCALHOST, 10_000));
            assert_eq!(entry.answered_to, entry.source);
            assert_eq!(entry.answered_by, entry.destination);
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
