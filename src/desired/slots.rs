//! Slots: which of a frontend's endpoints `numgen random mod N` draws by which number.

use std::collections::BTreeSet;

/// An endpoint: address and port.
pub type Endpoint<A> = (A, u16);

/// Gives each of the `wanted` endpoints a slot 0..N-1, changing as few of the slots `before` as
/// can be: who stays keeps its slot, who is new takes a free one, and when there are fewer slots
/// than before, the endpoints of the last ones move into the holes.
///
/// At most two slots change for each endpoint that came or went.
#[must_use]
pub fn settle<A: Copy + Ord>(
    before: &[Endpoint<A>],
    wanted: &BTreeSet<Endpoint<A>>,
) -> Vec<Endpoint<A>> {
    let mut homeless = wanted.clone();
    let slots: Vec<_> = before
        .iter()
        .take(wanted.len())
        // `remove` also keeps an endpoint from having two slots.
        .map(|endpoint| homeless.remove(endpoint).then_some(*endpoint))
        .chain(std::iter::repeat(None))
        .take(wanted.len())
        .collect();
    slots
        .into_iter()
        .filter_map(|slot| slot.or_else(|| homeless.pop_first()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(before: &[u8], wanted: &[u8]) -> Vec<u8> {
        let before: Vec<_> = before.iter().map(|address| (*address, 80)).collect();
        let wanted = wanted.iter().map(|address| (*address, 80)).collect();
        let slots = settle(&before, &wanted);
        slots.into_iter().map(|(address, _)| address).collect()
    }

    #[test]
    fn slots_are_stable() {
        type Case = (&'static str, &'static [u8], &'static [u8], &'static [u8]);
        let cases: [Case; 8] = [
            ("a first list is in order", &[], &[3, 1, 2], &[1, 2, 3]),
            ("nothing changes", &[3, 1, 2], &[1, 2, 3], &[3, 1, 2]),
            (
                "one is replaced in its slot",
                &[3, 1, 2],
                &[3, 9, 2],
                &[3, 9, 2],
            ),
            ("the last moves into the hole", &[3, 1, 2], &[1, 2], &[2, 1]),
            ("the last goes", &[3, 1, 2], &[3, 1], &[3, 1]),
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
}
