//! The base chains that close connections to removed endpoints (`kube-dnat.io/close-removed`).
//!
//! kube-dnat deletes the conntrack entry of such a connection. The next packet of its client is in
//! the middle of a connection that the kernel does not know, and gets a RST here. The kernel tracks
//! such a packet as a new connection, or not at all (`nf_conntrack_tcp_loose`).

use std::fmt;

use super::{Chain, ChainName, DynamicChain, Hook, LookupField, Rule, SetName, Statement};

/// How the kernel tracks a TCP packet in the middle of a connection that it does not know
/// (`tcp_new` in `nf_conntrack_proto_tcp.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpPickup {
    /// `nf_conntrack_tcp_loose` 1, the default: as the first packet of a connection, so that NAT
    /// chains see it.
    #[default]
    Loose,
    /// `nf_conntrack_tcp_loose` 0: as invalid. No NAT chain sees it.
    Strict,
}

/// The hooks where packets of clients arrive. A chain at prerouting requires the one at output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientHook {
    /// Packets of the node itself.
    Output,
    /// Incoming packets.
    Prerouting,
}

/// The priority of these chains: before those that send connections to endpoints.
const BEFORE_DSTNAT: i32 = super::DSTNAT - 1;

impl TcpPickup {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::Loose, Self::Strict];
}

impl ClientHook {
    /// Both hooks.
    pub(super) const ALL: [Self; 2] = [Self::Output, Self::Prerouting];
}

/// Returns the chain at a hook, which resets connections to the frontends in its sets.
pub(super) fn closed(pickup: TcpPickup, at: ClientHook) -> Chain {
    let hook = match at {
        ClientHook::Output => Hook::Output,
        ClientHook::Prerouting => Hook::Prerouting,
    };
    let lookup = |field: &[LookupField], set| Statement::Lookup {
        fields: field.to_vec(),
        set,
        inverted: false,
    };
    let refuse = || Statement::Goto(ChainName::Refuse);
    // The only rule that a packet of a tracked connection meets: ct state != invalid return
    let tracked = match pickup {
        TcpPickup::Loose => None,
        TcpPickup::Strict => Some(vec![Statement::CtStateNotInvalid, Statement::Return]),
    };
    let rules: [Rule; 2] = [
        // tcp flags ! syn,rst ip daddr . tcp dport @close-removed goto refuse
        vec![
            Statement::TcpMidstream,
            lookup(
                &[LookupField::Daddr, LookupField::TcpDport],
                SetName::CloseRemoved(pickup),
            ),
            refuse(),
        ],
        // tcp flags ! syn,rst ip daddr @node-ips tcp dport @close-removed-nodeports goto refuse
        vec![
            Statement::TcpMidstream,
            lookup(&[LookupField::Daddr], SetName::NodeIps),
            lookup(
                &[LookupField::TcpDport],
                SetName::CloseRemovedNodeports(pickup),
            ),
            refuse(),
        ],
    ];
    Chain {
        name: ChainName::Dynamic(DynamicChain::Closed(pickup, at)),
        hook: Some((hook, BEFORE_DSTNAT)),
        rules: tracked.into_iter().chain(rules).collect(),
    }
}

/// Writes the name of the chain at a hook.
pub(super) fn write_name(
    pickup: TcpPickup,
    at: ClientHook,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_str(match (pickup, at) {
        (TcpPickup::Loose, ClientHook::Prerouting) => "nat-prerouting-closed",
        (TcpPickup::Loose, ClientHook::Output) => "nat-output-closed",
        (TcpPickup::Strict, ClientHook::Prerouting) => "filter-prerouting-closed",
        (TcpPickup::Strict, ClientHook::Output) => "filter-output-closed",
    })
}
