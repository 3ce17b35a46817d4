//! Tables of slots that follow from the endpoints alone, so that all nodes have the same.
//!
//! A table is filled as in "Maglev: A Fast and Reliable Software Network Load Balancer"
//! (NSDI 2016), section 3.4: each endpoint has an order of all slots, which follows from a hash of
//! its address and port. The endpoints take turns; in each turn one takes the first slot of its
//! order that is free. If one endpoint goes, most others have the same slots as before.

use super::EndpointAddr;
use crate::planner::model::Address;

/// An endpoint, and its weight from 1.
pub(super) type WeightedEndpoint<A> = (EndpointAddr<A>, u16);

/// What the order of an endpoint's slots follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotOrder {
    /// Its address and port.
    OfEndpoint,
    /// Its address alone, so that all ports of the address have the same slots.
    OfAddress,
}

/// The numbers of slots. Each is prime, so that any step visits all slots.
const SIZES: [u32; 5] = [251, 1021, 4093, 16381, 65521];

/// The minimum number of slots of the endpoint with the lowest weight.
///
/// Equal endpoints have at most one slot more than others, which is five percent of 20.
const MIN_SLOTS: u64 = 20;

/// The table of a list needs more slots than the largest one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManySlots;

/// Returns the endpoint of each of `size` slots; none without endpoints.
///
/// The table depends only on the endpoints, which are sorted, their weights, `size` and `order`.
pub(super) fn table<A: Address>(
    endpoints: &[WeightedEndpoint<A>],
    size: u32,
    order: SlotOrder,
) -> Vec<EndpointAddr<A>> {
    let mut turns: Vec<_> = endpoints
        .iter()
        .map(|(endpoint, weight)| Turns::new(*endpoint, *weight, size, order))
        .collect();
    let heaviest = turns.iter().map(|turns| turns.weight).max().unwrap_or(1);
    let mut slots = vec![None; size.try_into().unwrap_or(0)];
    let mut free = if turns.is_empty() { 0 } else { slots.len() };
    while free > 0 {
        for turns in &mut turns {
            if free > 0 && turns.has_turn(heaviest) {
                turns.take(&mut slots);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// Returns the number of slots of a table for these endpoints.
///
/// # Errors
/// The endpoints need more than `limit` slots, or more than the largest table has.
pub(super) fn size<A>(
    endpoints: &[WeightedEndpoint<A>],
    limit: usize,
) -> Result<u32, TooManySlots> {
    let weights = endpoints.iter().map(|(_, weight)| u64::from(*weight));
    let (all, least) = (weights.clone().sum::<u64>(), weights.min().unwrap_or(1));
    let needed = (MIN_SLOTS * all).div_ceil(least.max(1));
    let is_enough = |size: &u32| u64::from(*size) >= needed;
    let size = SIZES.into_iter().find(is_enough);
    let is_allowed = |size: &u32| usize::try_from(*size).is_ok_and(|size| size <= limit);
    size.filter(is_allowed).ok_or(TooManySlots)
}

/// The turns of an endpoint, in which it takes slots.
struct Turns<A> {
    endpoint: EndpointAddr<A>,
    weight: u32,
    /// The share of a turn that the endpoint has collected, in units of weight.
    collected: u32,
    /// The next slot in the order of the endpoint.
    next: u32,
    /// The distance from one slot to the next one in the order.
    step: u32,
    /// The number of slots.
    size: u32,
}

impl<A: Address> Turns<A> {
    /// Returns the turns of an endpoint that has no slot yet.
    fn new(endpoint: EndpointAddr<A>, weight: u16, size: u32, order: SlotOrder) -> Self {
        let (address, _) = endpoint;
        let hash = match order {
            SlotOrder::OfEndpoint => hash(endpoint),
            SlotOrder::OfAddress => hash((address, 0)),
        };
        let below = |half: u64, limit: u32| {
            u32::try_from((half & u64::from(u32::MAX)) % u64::from(limit)).unwrap_or(0)
        };
        Self {
            endpoint,
            weight: weight.into(),
            collected: 0,
            next: below(hash >> 32, size),
            step: below(hash, size - 1) + 1,
            size,
        }
    }

    /// Begins a round; returns whether the endpoint has a turn in it.
    fn has_turn(&mut self, heaviest: u32) -> bool {
        self.collected += self.weight;
        let has_turn = self.collected >= heaviest;
        if has_turn {
            self.collected -= heaviest;
        }
        has_turn
    }

    /// Takes the first slot in the order of the endpoint that is free; there is one.
    fn take(&mut self, slots: &mut [Option<EndpointAddr<A>>]) {
        let mut is_taken = false;
        while !is_taken {
            let slot = usize::try_from(self.next).ok();
            let slot = slot.and_then(|slot| slots.get_mut(slot));
            self.next = (self.next + self.step) % self.size;
            if let Some(slot @ None) = slot {
                *slot = Some(self.endpoint);
                is_taken = true;
            }
        }
    }
}

/// Returns a hash of an endpoint, on each machine and in each version the same: FNV-1a, finished as
/// in `MurmurHash3`, since the upper bits of FNV-1a are much alike for similar addresses.
fn hash<A: Address>((address, port): EndpointAddr<A>) -> u64 {
    let mut bytes = Vec::with_capacity(A::LEN + 2);
    address.push_bytes(&mut bytes);
    bytes.extend(port.to_be_bytes());
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mix = |hash: u64, factor: u64| (hash ^ (hash >> 33)).wrapping_mul(factor);
    let mixed = mix(mix(hash, 0xff51_afd7_ed55_8ccd), 0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn pods(count: u32) -> Vec<WeightedEndpoint<Ipv4Addr>> {
        let pod = |number| ((Ipv4Addr::from_bits(0x0af4_0000 + number), 8080), 1);
        (0..count).map(pod).collect()
    }

    /// Returns the table of the size that the endpoints need.
    fn table(pods: &[WeightedEndpoint<Ipv4Addr>]) -> Vec<EndpointAddr<Ipv4Addr>> {
        let size = size(pods, usize::MAX).unwrap();
        super::table(pods, size, SlotOrder::OfEndpoint)
    }

    fn counts(table: &[EndpointAddr<Ipv4Addr>]) -> BTreeMap<EndpointAddr<Ipv4Addr>, u32> {
        let mut counts = BTreeMap::new();
        for endpoint in table {
            *counts.entry(*endpoint).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn equal_endpoints_differ_by_one_slot_at_most() {
        for count in [1, 2, 3, 12, 13, 100, 819, 3276] {
            let counts = counts(&table(&pods(count)));
            let (least, most) = (counts.values().min(), counts.values().max());
            assert_eq!(counts.len(), usize::try_from(count).unwrap());
            assert!(most.unwrap() - least.unwrap() <= 1, "{count}: {counts:?}");
            assert!(*least.unwrap() >= 20 || count == 0);
        }
    }

    #[test]
    fn the_size_follows_from_the_number_of_endpoints() {
        let sizes = [
            (1, Ok(251)),
            (12, Ok(251)),
            (13, Ok(1021)),
            (51, Ok(1021)),
            (52, Ok(4093)),
            (204, Ok(4093)),
            (205, Ok(16381)),
            (819, Ok(16381)),
            (820, Ok(65521)),
            (3276, Ok(65521)),
            (3277, Err(TooManySlots)),
        ];
        assert_eq!(size(&pods(13), 1020), Err(TooManySlots));
        assert_eq!(table(&pods(0)), []);
        for (count, expected) in sizes {
            assert_eq!(size(&pods(count), usize::MAX), expected, "{count}");
        }
    }

    #[test]
    fn most_slots_stay_when_an_endpoint_goes() {
        for (count, percent) in [(3, 40), (10, 18), (12, 18), (100, 5)] {
            let all = pods(count);
            let before = table(&all);
            let after = table(&[&all[..1], &all[2..]].concat());
            let moved = before
                .iter()
                .zip(&after)
                .filter(|(one, other)| one != other);
            let limit = before.len() * percent / 100;
            assert!(moved.count() <= limit, "{count}");
        }
    }

    #[test]
    fn slots_follow_weights() {
        let mut pods = pods(4);
        for (pod, weight) in pods.iter_mut().zip([1, 2, 3, 30]) {
            pod.1 = weight;
        }
        let table = table(&pods);
        assert_eq!(table.len(), 1021);
        for ((pod, weight), count) in pods.into_iter().zip(counts(&table).into_values()) {
            let ideal = 1021 * u32::from(weight) / 36;
            assert!(count.abs_diff(ideal) <= 2, "{pod:?} {count} {ideal}");
        }
    }

    /// A table that changes with a version moves the flows that reach two versions in turn.
    #[test]
    fn the_table_is_the_same_in_each_version() {
        let ipv4 = hash((Ipv4Addr::new(10, 244, 1, 9), 8080));
        let ipv6 = hash(("fd00:10:244::9".parse::<Ipv6Addr>().unwrap(), 8080));
        assert_eq!(
            (ipv4, ipv6),
            (11_081_339_234_012_009_995, 1_514_425_539_396_127_266)
        );
    }
}
