//! Any bytes as the kernel's answers about connections and IP sets.
//!
//! The first byte chooses the reader, and the others are datagrams.

#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use kube_dnat::netlink::{Conntrack, Kernel, NewConnections};
use kube_dnat::planner::conntrack::EntryScope;
use kube_dnat::planner::model::{Address, Protocol};
use kube_dnat_fuzz::Answers;
use libfuzzer_sys::fuzz_target;

/// Deletes the entries of a protocol.
fn delete<A: Address>(answers: Answers, protocol: Protocol) {
    let mut conntrack = Conntrack::of(answers.socket);
    let scope = EntryScope {
        established_tcp: true,
        ..EntryScope::from(protocol)
    };
    if let Ok(cleaned) = conntrack.delete::<A>(&scope, |_| true) {
        assert!(cleaned.deleted <= cleaned.stale.len());
        assert!(cleaned.stale.len() <= cleaned.entries);
        assert!(cleaned.stale.iter().all(|entry| entry.protocol == protocol));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, datagrams)) = bytes.split_first() else {
        return;
    };
    let answers = Answers::queue(datagrams);
    match choice % 7 {
        0 => delete::<Ipv4Addr>(answers, Protocol::Tcp),
        1 => delete::<Ipv4Addr>(answers, Protocol::Udp),
        2 => delete::<Ipv4Addr>(answers, Protocol::Sctp),
        3 => delete::<Ipv6Addr>(answers, Protocol::Tcp),
        4 => delete::<Ipv6Addr>(answers, Protocol::Udp),
        5 => {
            let mut new = NewConnections::of(answers.socket);
            drop(new.drain(|connection| drop(connection.to.to_string())));
        }
        _ => drop(Kernel::of(answers.socket).ip_sets()),
    }
});
