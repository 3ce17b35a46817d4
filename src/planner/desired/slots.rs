//! Slots: the numbers by which a rule chooses an endpoint of a frontend.

/// The address and port of an endpoint.
pub type EndpointAddr<A> = (A, u16);

/// A list of endpoints in which each of the slots from 0 to N-1 has an endpoint.
///
/// An endpoint has one slot, or several if it has a weight or if a hash selects the slot. The list is
/// sorted by endpoint, then by slot, so that two lists are compared in one pass. A slot fits 16 bits,
/// because a list has at most 65,536 slots.
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
    /// The maximum number of slots in a list.
    pub const MAX: usize = 65536;

    /// Assigns each slot the endpoint at its position.
    ///
    /// Endpoints beyond [`Self::MAX`] are ignored.
    #[must_use]
    pub fn in_order(endpoints: impl IntoIterator<Item = EndpointAddr<A>>) -> Self {
        let mut slots: Vec<_> = endpoints.into_iter().zip(0..=u16::MAX).collect();
        slots.sort_unstable();
        Self(slots.into())
    }

    /// Returns the number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the list has no endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns each endpoint with each of its slots, in the order of the endpoints.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointAddr<A>, u16)> {
        self.0.iter().copied()
    }

    /// Returns the endpoints, in order, each once.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.shares().map(|(endpoint, _)| endpoint)
    }

    /// Returns the endpoints, in order, each with the number of its slots.
    pub fn shares(&self) -> impl Iterator<Item = (EndpointAddr<A>, usize)> {
        let of_endpoints = self.0.chunk_by(|(one, _), (other, _)| one == other);
        of_endpoints.filter_map(|slots| Some((slots.first()?.0, slots.len())))
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
        let lost = self.difference(other).into_iter();
        let mut removed: Vec<_> = lost
            .map(|(endpoint, _)| endpoint)
            .filter(|endpoint| !other.contains(*endpoint))
            .collect();
        removed.dedup();
        removed
    }

    /// Reassigns the slots so that as few as possible differ from those of the list `before`.
    ///
    /// An endpoint that stays keeps its slots, as many as it has now, and others get free ones. If
    /// there are fewer slots than before, the endpoints of the last slots move to the free ones. At
    /// most two slots change for each slot that an endpoint gains or loses.
    #[must_use]
    pub fn keep_slots_of(mut self, before: &Self) -> Self {
        let count = self.len();
        let mut taken = vec![false; count];
        let mut unassigned = Vec::new();
        let mut before = before.0.iter().peekable();
        for (position, (endpoint, slot)) in self.0.iter_mut().enumerate() {
            let mut kept = None;
            while kept.is_none()
                && let Some((old, number)) = before.next_if(|(old, _)| old <= endpoint)
            {
                let is_free = |taken: &&mut bool| old == endpoint && !**taken;
                let free = taken.get_mut(usize::from(*number)).filter(is_free);
                kept = free.map(|taken| (taken, *number));
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
        // The slots of one endpoint may be out of order now: the stable sort merges such runs.
        self.0.sort();
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
        let cases: [Case; 10] = [
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
                "an endpoint loses a slot",
                &[1, 1, 2],
                &[1, 2, 3],
                &[1, 3, 2],
            ),
            (
                "an endpoint gets more slots",
                &[2, 1, 3],
                &[1, 1, 1, 2, 3],
                &[2, 1, 3, 1, 1],
            ),
            (
                "weights change in place",
                &[1, 2, 1, 1],
                &[1, 2, 2, 2],
                &[1, 2, 2, 2],
            ),
        ];
        for (what, before, wanted, after) in cases {
            assert_eq!(reassigned(before, wanted), after, "{what}");
        }
    }

    #[test]
    fn an_endpoint_with_several_slots_is_one_endpoint() {
        let list = slots(&[2, 1, 2, 2]);
        assert_eq!(list.len(), 4);
        let shares: Vec<_> = list.shares().collect();
        assert_eq!(shares, [((1, 80), 1), ((2, 80), 3)]);
        assert!(list.endpoints().eq([(1, 80), (2, 80)]));
        assert_eq!(list.removed_in(&slots(&[1])), [(2, 80)]);
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
