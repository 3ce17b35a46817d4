//! Slots: which of a frontend's endpoints `numgen random mod N` draws by which number.

use std::cmp::Ordering;

/// An endpoint: address and port.
pub type EndpointAddr<A> = (A, u16);

/// A list's endpoints, each once and with a slot 0..N-1 of its own, in the order of the endpoints:
/// so that two lists are compared in one pass. A slot fits 16 bits, as there are at most 65,536.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots<A>(Vec<(EndpointAddr<A>, u16)>);

impl<A> Default for Slots<A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<A: Copy + Ord> Slots<A> {
    /// How many there can be.
    pub const MAX: usize = 65536;

    /// Each endpoint in the slot of its position; the first of equal ones counts, and none beyond
    /// [`Self::MAX`].
    #[must_use]
    pub fn in_order(endpoints: impl IntoIterator<Item = EndpointAddr<A>>) -> Self {
        let mut slots: Vec<_> = endpoints.into_iter().zip(0..=u16::MAX).collect();
        slots.sort_unstable();
        slots.dedup_by_key(|(endpoint, _)| *endpoint);
        Self(slots)
    }

    /// The number of endpoints.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each endpoint and its slot, in the order of the endpoints.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointAddr<A>, u16)> {
        self.0.iter().copied()
    }

    /// The endpoints, in order.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.iter().map(|(endpoint, _)| endpoint)
    }

    /// Whether the endpoint has a slot.
    #[must_use]
    pub fn holds(&self, endpoint: EndpointAddr<A>) -> bool {
        let known = self.0.binary_search_by(|(known, _)| known.cmp(&endpoint));
        known.is_ok()
    }

    /// What of it `other` has not, endpoint and slot.
    #[must_use]
    pub fn unlike(&self, other: &Self) -> Vec<(EndpointAddr<A>, u16)> {
        let mut unlike = Vec::new();
        let (mut own, mut others) = (self.0.as_slice(), other.0.as_slice());
        while let [first, rest @ ..] = own {
            match others {
                [equal, after @ ..] if equal == first => (own, others) = (rest, after),
                [less, after @ ..] if less < first => others = after,
                _ => {
                    unlike.push(*first);
                    own = rest;
                }
            }
        }
        unlike
    }

    /// The endpoints that `other` has in no slot.
    #[must_use]
    pub fn removed_in(&self, other: &Self) -> Vec<EndpointAddr<A>> {
        let missing = |endpoint: &EndpointAddr<A>| !other.holds(*endpoint);
        // Only what changed its slot can have gone.
        let unlike = self.unlike(other).into_iter();
        unlike
            .map(|(endpoint, _)| endpoint)
            .filter(missing)
            .collect()
    }

    /// Gives the endpoints of `wanted` slots that differ in as few as can be from these: who stays
    /// keeps its slot, who is new takes a free one, and when there are fewer slots than before, the
    /// endpoints of the last ones move into the holes.
    ///
    /// At most two slots change for each endpoint that came or went.
    #[must_use]
    pub fn assign_stable(&self, mut wanted: Self) -> Self {
        let count = wanted.len();
        let mut taken = vec![false; count];
        let mut unassigned = Vec::new();
        let mut before = self.0.iter().peekable();
        for (position, (endpoint, slot)) in wanted.0.iter_mut().enumerate() {
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
            if let Some((_, slot)) = wanted.0.get_mut(position) {
                *slot = number;
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(addresses: &[u8]) -> Slots<u8> {
        Slots::in_order(addresses.iter().map(|address| (*address, 80)))
    }

    /// The addresses in the order of their slots.
    fn settled(before: &[u8], wanted: &[u8]) -> Vec<u8> {
        let settled = slots(before).assign_stable(slots(wanted));
        let mut by_slot: Vec<_> = settled
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
            ("the last goes", &[3, 1, 2], &[1, 3], &[3, 1]),
            (
                "one is added at the end",
                &[3, 1, 2],
                &[0, 1, 2, 3],
                &[3, 1, 2, 0],
            ),
            ("all go", &[3, 1, 2], &[], &[]),
            (
                "a doubled endpoint gets one slot",
                &[1, 1, 2],
                &[1, 2, 3],
                &[1, 3, 2],
            ),
        ];
        for (what, before, wanted, after) in cases {
            assert_eq!(settled(before, wanted), after, "{what}");
        }
    }

    #[test]
    fn lists_are_compared_by_endpoint_and_by_slot() {
        let (one, other) = (slots(&[1, 2, 3, 5]), slots(&[1, 3, 2, 4]));
        assert_eq!(
            one.unlike(&other),
            [((2, 80), 1), ((3, 80), 2), ((5, 80), 3)]
        );
        assert_eq!(one.unlike(&one), []);
        assert_eq!(one.removed_in(&other), [(5, 80)]);
        assert_eq!(other.removed_in(&slots(&[])).len(), 4);
    }
}
