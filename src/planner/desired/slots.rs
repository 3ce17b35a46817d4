//! Slots: the numbers by which `numgen random mod N` chooses an endpoint of a frontend.

use std::cmp::Ordering;

/// The address and port of an endpoint.
pub type EndpointAddr<A> = (A, u16);

/// A list of endpoints in which each endpoint has its own slot from 0 to N-1.
///
/// The list is sorted by endpoint, so that two lists are compared in one pass. A slot fits 16 bits,
/// because a list has at most 65,536 endpoints.
///
/// # Examples
///
/// The list of a frontend with two endpoints becomes these elements:
///
/// ```text
/// $ nft list map ip kube-dnat endpoints
///     tcp . 10.96.0.80 . 80 . 0 comment "shop/web" : 10.244.1.12 . 8080,
///     tcp . 10.96.0.80 . 80 . 1 comment "shop/web" : 10.244.1.13 . 8080
/// ```
///
/// When 10.244.1.11 replaces 10.244.1.13, it gets the free slot, and one element changes:
///
/// ```
/// use std::net::Ipv4Addr;
///
/// use kube_dnat::planner::desired::Slots;
///
/// let pod = |last| (Ipv4Addr::new(10, 244, 1, last), 8080);
/// let before = Slots::in_order([pod(12), pod(13)]);
/// let after = Slots::in_order([pod(11), pod(12)]).keep_slots_of(&before);
///
/// assert_eq!(after.difference(&before), [(pod(11), 1)]);
/// assert_eq!(before.removed_in(&after), [pod(13)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots<A>(Box<[(EndpointAddr<A>, u16)]>);

impl<A> Default for Slots<A> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<A: Copy + Ord> Slots<A> {
    /// The maximum number of endpoints in a list.
    pub const MAX: usize = 65536;

    /// Assigns each endpoint the slot of its position.
    ///
    /// Duplicates and endpoints beyond [`Self::MAX`] are ignored.
    #[must_use]
    pub fn in_order(endpoints: impl IntoIterator<Item = EndpointAddr<A>>) -> Self {
        let mut slots: Vec<_> = endpoints.into_iter().zip(0..=u16::MAX).collect();
        slots.sort_unstable();
        slots.dedup_by_key(|(endpoint, _)| *endpoint);
        Self(slots.into())
    }

    /// Returns the number of endpoints.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the list has no endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns each endpoint with its slot, in the order of the endpoints.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointAddr<A>, u16)> {
        self.0.iter().copied()
    }

    /// Returns the endpoints, in order.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.iter().map(|(endpoint, _)| endpoint)
    }

    /// Returns whether an endpoint has a slot.
    #[must_use]
    pub fn contains(&self, endpoint: EndpointAddr<A>) -> bool {
        let position = self.0.binary_search_by(|(listed, _)| listed.cmp(&endpoint));
        position.is_ok()
    }

    /// Returns the endpoints and slots that `other` does not have.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Vec<(EndpointAddr<A>, u16)> {
        let mut difference = Vec::new();
        let (mut own, mut others) = (&*self.0, &*other.0);
        while let [first, rest @ ..] = own {
            match others {
                [equal, after @ ..] if equal == first => (own, others) = (rest, after),
                [less, after @ ..] if less < first => others = after,
                _ => {
                    difference.push(*first);
                    own = rest;
                }
            }
        }
        difference
    }

    /// Returns the endpoints that have no slot in `other`.
    #[must_use]
    pub fn removed_in(&self, other: &Self) -> Vec<EndpointAddr<A>> {
        self.difference(other)
            .into_iter()
            .map(|(endpoint, _)| endpoint)
            .filter(|endpoint| !other.contains(*endpoint))
            .collect()
    }

    /// Reassigns the slots so that as few as possible differ from those of the list `before`.
    ///
    /// An endpoint that stays keeps its slot, and a new endpoint gets a free one. If there are
    /// fewer slots than before, the endpoints of the last slots move to the free ones. At most two
    /// slots change for each endpoint that was added or removed.
    #[must_use]
    pub fn keep_slots_of(mut self, before: &Self) -> Self {
        let count = self.len();
        let mut taken = vec![false; count];
        let mut unassigned = Vec::new();
        let mut before = before.0.iter().peekable();
        for (position, (endpoint, slot)) in self.0.iter_mut().enumerate() {
            let mut kept = None;
            while let Some((old, number)) = before.next_if(|(old, _)| old <= endpoint) {
                if old.cmp(endpoint) == Ordering::Equal {
                    kept = taken
                        .get_mut(usize::from(*number))
                        .map(|taken| (taken, *number));
                }
            }
            if let Some((taken, number)) = kept {
                *taken = true;
                *slot = number;
            } else {
                unassigned.push(position);
            }
        }
        let free = (0..=u16::MAX).zip(taken).filter(|(_, taken)| !taken);
        for (position, (number, _)) in unassigned.into_iter().zip(free) {
            if let Some((_, slot)) = self.0.get_mut(position) {
                *slot = number;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(addresses: &[u8]) -> Slots<u8> {
        Slots::in_order(addresses.iter().map(|address| (*address, 80)))
    }

    /// Returns the addresses in the order of their slots.
    fn reassigned(before: &[u8], wanted: &[u8]) -> Vec<u8> {
        let reassigned = slots(wanted).keep_slots_of(&slots(before));
        let mut by_slot: Vec<_> = reassigned
            .iter()
            .map(|(endpoint, slot)| (slot, endpoint))
            .collect();
        by_slot.sort_unstable();
        by_slot
            .into_iter()
            .map(|(_, (address, _))| address)
            .collect()
    }

    #[test]
    fn slots_are_stable() {
        type Case = (&'static str, &'static [u8], &'static [u8], &'static [u8]);
        let cases: [Case; 8] = [
            ("a first list is in order", &[], &[1, 2, 3], &[1, 2, 3]),
            ("nothing changes", &[3, 1, 2], &[1, 2, 3], &[3, 1, 2]),
            (
                "one is replaced in its slot",
                &[3, 1, 2],
                &[2, 3, 9],
                &[3, 9, 2],
            ),
            ("the last moves into the hole", &[3, 1, 2], &[1, 2], &[2, 1]),
            ("the last is removed", &[3, 1, 2], &[1, 3], &[3, 1]),
            (
                "one is added at the end",
                &[3, 1, 2],
                &[0, 1, 2, 3],
                &[3, 1, 2, 0],
            ),
            ("all are removed", &[3, 1, 2], &[], &[]),
            (
                "a doubled endpoint gets one slot",
                &[1, 1, 2],
                &[1, 2, 3],
                &[1, 3, 2],
            ),
        ];
        for (what, before, wanted, after) in cases {
            assert_eq!(reassigned(before, wanted), after, "{what}");
        }
    }

    #[test]
    fn lists_are_compared_by_endpoint_and_by_slot() {
        let (one, other) = (slots(&[1, 2, 3, 5]), slots(&[1, 3, 2, 4]));
        assert_eq!(
            one.difference(&other),
            [((2, 80), 1), ((3, 80), 2), ((5, 80), 3)]
        );
        assert_eq!(one.difference(&one), []);
        assert_eq!(one.removed_in(&other), [(5, 80)]);
        assert_eq!(other.removed_in(&slots(&[])).len(), 4);
    }
}
