//! The limit on connections over all ports, and the choice of the connection to close.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The number of connections that other hosts can hold at once.
///
/// A request usually arrives with its connection and is answered at once, so only a flood closes a
/// connection before its request arrives.
const MAX_OTHER: usize = 384;

/// The number of connections that are reserved for the node itself, since a failed probe of the
/// kubelet restarts the container.
const MAX_OWN: usize = 128;

/// The slots of all open connections.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    /// The slots in use, behind a lock.
    held: Mutex<HeldSlots>,
}

/// The slots that are in use.
#[derive(Debug)]
struct HeldSlots {
    /// The number of the next slot.
    next_number: u64,
    /// The slots of this node.
    own: SlotShare,
    /// The slots of other hosts.
    other: SlotShare,
}

/// The slots of one kind of peer, each with a sender whose drop closes the connection.
///
/// Numbers increase, so the first slot is the oldest.
#[derive(Debug)]
struct SlotShare {
    /// The maximum number of connections.
    limit: usize,
    /// The connections whose request has not arrived.
    idle: BTreeMap<u64, oneshot::Sender<()>>,
    /// The connections whose request is being answered.
    active: BTreeMap<u64, oneshot::Sender<()>>,
}

impl SlotShare {
    /// Builds an empty share.
    fn new(limit: usize) -> Self {
        Self {
            limit,
            idle: BTreeMap::new(),
            active: BTreeMap::new(),
        }
    }

    /// Returns whether all slots of the share are in use.
    fn is_full(&self) -> bool {
        self.idle.len() + self.active.len() >= self.limit
    }

    /// Closes the oldest idle connection, or else the oldest active one.
    fn close_oldest(&mut self) -> Result<(), NoConnection> {
        let closed = self.idle.pop_first().or_else(|| self.active.pop_first());
        closed.map(drop).ok_or(NoConnection)
    }
}

/// There is no connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoConnection;

/// The kind of peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The peer is this node itself.
    ThisNode,
    /// The peer is another host.
    Other,
}

impl HeldSlots {
    /// Returns the share of a kind of peer.
    fn share(&mut self, peer: Peer) -> &mut SlotShare {
        match peer {
            Peer::ThisNode => &mut self.own,
            Peer::Other => &mut self.other,
        }
    }
}

impl ConnectionSlots {
    /// Builds the slots without connections.
    pub(super) fn new() -> Arc<Self> {
        Self::with_limits(MAX_OWN, MAX_OTHER)
    }

    /// Builds the slots with limits for this node and other hosts.
    fn with_limits(own: usize, other: usize) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::new(HeldSlots {
                next_number: 0,
                own: SlotShare::new(own),
                other: SlotShare::new(other),
            }),
        })
    }

    /// Locks the slots.
    fn held(&self) -> MutexGuard<'_, HeldSlots> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for a new connection; closes the oldest connection of this kind of peer if all
    /// slots are in use.
    pub(super) fn take(self: &Arc<Self>, peer: Peer) -> ConnectionSlot {
        let mut held = self.held();
        let number = held.next_number;
        held.next_number += 1;
        let share = held.share(peer);
        let has_closed_other = share.is_full() && share.close_oldest().is_ok();
        let (close, closed) = oneshot::channel();
        share.idle.insert(number, close);
        drop(held);
        let holder = SlotHolder {
            slots: Arc::clone(self),
            peer,
            number,
            has_request: AtomicBool::new(false),
        };
        ConnectionSlot {
            holder: Arc::new(holder),
            closed,
            has_closed_other,
        }
    }

    /// Closes the oldest connection of another host, or else of this node.
    pub(super) fn close_oldest(&self) -> Result<(), NoConnection> {
        let mut held = self.held();
        held.other
            .close_oldest()
            .or_else(|NoConnection| held.own.close_oldest())
    }
}

/// Returns the kind of a peer from its address and the local address.
///
/// The kernel uses the destination as the source of a connection to itself, and no packet from
/// outside has this source.
pub(super) fn peer(remote: SocketAddr, local: SocketAddr) -> Peer {
    let remote = remote.ip().to_canonical();
    if remote.is_loopback() || remote == local.ip().to_canonical() {
        Peer::ThisNode
    } else {
        Peer::Other
    }
}

/// The slot of one connection.
pub(super) struct ConnectionSlot {
    /// The holder of the slot.
    pub(super) holder: Arc<SlotHolder>,
    /// The receiver that ends when the connection must be closed.
    pub(super) closed: oneshot::Receiver<()>,
    /// Whether another connection was closed for this one.
    pub(super) has_closed_other: bool,
}

/// The holder of a slot, which frees it when it is dropped.
pub(super) struct SlotHolder {
    /// The slots that it belongs to.
    slots: Arc<ConnectionSlots>,
    /// The kind of peer.
    peer: Peer,
    /// The number of the slot.
    number: u64,
    /// Whether the whole request arrived.
    has_request: AtomicBool,
}

impl SlotHolder {
    /// Marks the connection as active, since its whole request arrived.
    pub(super) fn request_arrived(&self) {
        self.has_request.store(true, Ordering::Relaxed);
        let mut held = self.slots.held();
        let share = held.share(self.peer);
        if let Some(close) = share.idle.remove(&self.number) {
            share.active.insert(self.number, close);
        }
    }

    /// Returns whether the whole request arrived.
    pub(super) fn has_request(&self) -> bool {
        self.has_request.load(Ordering::Relaxed)
    }
}

impl Drop for SlotHolder {
    fn drop(&mut self) {
        let mut held = self.slots.held();
        let share = held.share(self.peer);
        share.idle.remove(&self.number);
        share.active.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn is_open(slot: &mut ConnectionSlot) -> bool {
        slot.closed.try_recv() == Err(TryRecvError::Empty)
    }

    #[test]
    fn the_oldest_idle_connection_is_closed_before_an_active_one() {
        let slots = ConnectionSlots::with_limits(1, 3);
        let mut taken: Vec<_> = (0..3).map(|_| slots.take(Peer::Other)).collect();
        taken[0].holder.request_arrived();
        let fourth = slots.take(Peer::Other);
        assert!(fourth.has_closed_other);
        taken.push(fourth);
        let open =
            |taken: &mut Vec<ConnectionSlot>| taken.iter_mut().map(is_open).collect::<Vec<_>>();
        assert_eq!(open(&mut taken), [true, false, true, true]);
        // A connection that ended frees its slot.
        drop(taken.remove(2));
        let fifth = slots.take(Peer::Other);
        assert!(!fifth.has_closed_other);
        taken.push(fifth);
        assert_eq!(open(&mut taken), [true, false, true, true]);
        for slot in &taken {
            slot.holder.request_arrived();
        }
        assert!(slots.take(Peer::Other).has_closed_other);
        assert_eq!(open(&mut taken), [false, false, true, true]);
    }

    #[test]
    fn other_hosts_never_take_the_slots_of_the_node() {
        let slots = ConnectionSlots::with_limits(1, 2);
        let mut own = slots.take(Peer::ThisNode);
        assert!(!own.has_closed_other);
        let others: Vec<_> = (0..10).map(|_| slots.take(Peer::Other)).collect();
        assert!(is_open(&mut own));
        // Without file descriptors, connections of other hosts are closed first, then all.
        assert_eq!([(); 3].map(|()| slots.close_oldest()), [Ok(()); 3]);
        assert!(!is_open(&mut own));
        assert_eq!(slots.close_oldest(), Err(NoConnection));
        drop(others);
    }

    #[test]
    fn a_peer_is_this_node_by_its_address() {
        let own = |remote: &str, local: &str| {
            peer(remote.parse().unwrap(), local.parse().unwrap()) == Peer::ThisNode
        };
        assert!(own("127.0.0.1:40000", "127.0.0.1:10256"));
        assert!(own("[::ffff:192.0.2.1]:40000", "192.0.2.1:10256"));
        assert!(own("[::ffff:127.0.0.1]:40000", "[::ffff:192.0.2.1]:10256"));
        assert!(own("[2001:db8::1]:40000", "[2001:db8::1]:10256"));
        assert!(!own("192.0.2.2:40000", "192.0.2.1:10256"));
        assert!(!own("[2001:db8::2]:40000", "[2001:db8::1]:10256"));
    }
}
