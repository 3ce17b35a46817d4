//! Who holds a connection to one of our ports, over all of them, and who gives way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many connections others may hold at once. A request mostly comes with its connection and is
/// answered at once, so it takes a flood to push out one that is about to ask.
const OTHERS: usize = 384;

/// How many this node itself may hold. Others never take these: a probe of the kubelet decides
/// whether our container is killed.
const OWN: usize = 128;

/// The connections that there are.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    held: Mutex<HeldSlots>,
}

#[derive(Debug)]
struct HeldSlots {
    next: u64,
    own: SlotShare,
    others: SlotShare,
}

/// Those of one kind of peer, each with what closes it when it is dropped. Numbers grow, so the first
/// is the oldest.
#[derive(Debug)]
struct SlotShare {
    limit: usize,
    /// Their request has not arrived.
    idle: BTreeMap<u64, oneshot::Sender<()>>,
    /// They are being answered.
    asking: BTreeMap<u64, oneshot::Sender<()>>,
}

impl SlotShare {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            idle: BTreeMap::new(),
            asking: BTreeMap::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.idle.len() + self.asking.len() >= self.limit
    }

    /// Closes the one that is idle for longest, or else is answered for longest.
    fn close_one(&mut self) -> bool {
        let closed = self.idle.pop_first().or_else(|| self.asking.pop_first());
        closed.is_some()
    }
}

impl HeldSlots {
    fn share(&mut self, is_own: bool) -> &mut SlotShare {
        if is_own {
            &mut self.own
        } else {
            &mut self.others
        }
    }
}

impl ConnectionSlots {
    /// Nobody holds one.
    pub(super) fn new() -> Arc<Self> {
        Self::of(OWN, OTHERS)
    }

    fn of(own: usize, others: usize) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::new(HeldSlots {
                next: 0,
                own: SlotShare::new(own),
                others: SlotShare::new(others),
            }),
        })
    }

    fn held(&self) -> MutexGuard<'_, HeldSlots> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a new connection. If there is none, the one of its share that is idle for longest
    /// gives way, and the answer says so.
    pub(super) fn take(self: &Arc<Self>, is_own: bool) -> (ConnectionSlot, bool) {
        let mut held = self.held();
        let number = held.next;
        held.next += 1;
        let share = held.share(is_own);
        let crowded = share.is_full() && share.close_one();
        let (close, closed) = oneshot::channel();
        share.idle.insert(number, close);
        drop(held);
        let holder = SlotHolder {
            slots: Arc::clone(self),
            is_own,
            number,
            has_asked: AtomicBool::new(false),
        };
        let slot = ConnectionSlot {
            holder: Arc::new(holder),
            closed,
        };
        (slot, crowded)
    }

    /// Closes one connection, of others if there is any. `false` if there is none.
    pub(super) fn close_one(&self) -> bool {
        let mut held = self.held();
        held.others.close_one() || held.own.close_one()
    }
}

/// Whether a peer is this node itself. The kernel takes the address that is connected to as the
/// source of a connection to itself, and no packet from outside bears it.
pub(super) fn is_own(from: SocketAddr, at: SocketAddr) -> bool {
    let from = from.ip().to_canonical();
    from.is_loopback() || from == at.ip().to_canonical()
}

/// The slot of one connection.
pub(super) struct ConnectionSlot {
    pub(super) holder: Arc<SlotHolder>,
    /// Ends when the connection has to give way.
    pub(super) closed: oneshot::Receiver<()>,
}

/// Holds the slot until it is dropped.
pub(super) struct SlotHolder {
    slots: Arc<ConnectionSlots>,
    is_own: bool,
    number: u64,
    has_asked: AtomicBool,
}

impl SlotHolder {
    /// The whole request is here.
    pub(super) fn asks(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
        let mut held = self.slots.held();
        let share = held.share(self.is_own);
        if let Some(close) = share.idle.remove(&self.number) {
            share.asking.insert(self.number, close);
        }
    }

    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }
}

impl Drop for SlotHolder {
    fn drop(&mut self) {
        let mut held = self.slots.held();
        let share = held.share(self.is_own);
        share.idle.remove(&self.number);
        share.asking.remove(&self.number);
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
    fn the_longest_idle_gives_way_before_one_that_asked() {
        let slots = ConnectionSlots::of(1, 3);
        let mut taken: Vec<_> = (0..3).map(|_| slots.take(false).0).collect();
        taken[0].holder.asks();
        let (fourth, crowded) = slots.take(false);
        assert!(crowded);
        taken.push(fourth);
        let open =
            |taken: &mut Vec<ConnectionSlot>| taken.iter_mut().map(is_open).collect::<Vec<_>>();
        assert_eq!(open(&mut taken), [true, false, true, true]);
        // One that ended makes room.
        drop(taken.remove(2));
        let (fifth, crowded) = slots.take(false);
        assert!(!crowded);
        taken.push(fifth);
        assert_eq!(open(&mut taken), [true, false, true, true]);
        for slot in &taken {
            slot.holder.asks();
        }
        assert!(slots.take(false).1);
        assert_eq!(open(&mut taken), [false, false, true, true]);
    }

    #[test]
    fn others_never_take_what_is_kept_for_the_node() {
        let slots = ConnectionSlots::of(1, 2);
        let (mut own, crowded) = slots.take(true);
        assert!(!crowded);
        let others: Vec<_> = (0..10).map(|_| slots.take(false).0).collect();
        assert!(is_open(&mut own));
        // Without file descriptors others give way first, then all.
        assert_eq!([(); 3].map(|()| slots.close_one()), [true; 3]);
        assert!(!is_open(&mut own));
        assert!(!slots.close_one());
        drop(others);
    }

    #[test]
    fn a_peer_is_the_node_itself_by_its_address() {
        let own = |from: &str, at: &str| is_own(from.parse().unwrap(), at.parse().unwrap());
        assert!(own("127.0.0.1:40000", "127.0.0.1:10256"));
        assert!(own("[::ffff:192.0.2.1]:40000", "192.0.2.1:10256"));
        assert!(own("[::ffff:127.0.0.1]:40000", "[::ffff:192.0.2.1]:10256"));
        assert!(own("[2001:db8::1]:40000", "[2001:db8::1]:10256"));
        assert!(!own("192.0.2.2:40000", "192.0.2.1:10256"));
        assert!(!own("[2001:db8::2]:40000", "[2001:db8::1]:10256"));
    }
}
