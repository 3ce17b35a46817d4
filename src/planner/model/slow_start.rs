//! The new endpoints of Services with slow start, whose share of connections grows
//! (`kube-dnat.io/slow-start`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::ServiceName;

/// The steps in which the share of a new endpoint grows; after the last one it is whole.
const STEPS: u16 = 4;

/// The endpoints of the Services with slow start, and the shares of new ones.
///
/// Time is the time since any moment that stays the same.
#[derive(Debug, Default)]
pub(super) struct SlowStarts {
    services: BTreeMap<ServiceName, ReadyEndpoints>,
    /// Whether an endpoint that becomes ready is new. Those of the first lists are not.
    has_begun: bool,
}

/// The endpoints of a Service with slow start.
#[derive(Debug)]
struct ReadyEndpoints {
    /// The time in which the share of a new endpoint grows.
    window: Duration,
    /// The addresses of the ready endpoints.
    ready: BTreeSet<IpAddr>,
    /// The new ones of them.
    new: NewEndpoints,
}

/// The addresses of the new endpoints of a Service, each with its share.
#[derive(Debug, Default)]
pub struct NewEndpoints(BTreeMap<IpAddr, Growth>);

/// The share of a new endpoint.
#[derive(Debug)]
struct Growth {
    /// The time since when the endpoint is ready; `None` until the next step.
    since: Option<Duration>,
    /// The number of the step, from 0.
    step: u16,
}

impl NewEndpoints {
    /// The share of an endpoint that is not new.
    pub const WHOLE: u16 = STEPS + 1;

    /// Returns the share of an endpoint, of [`Self::WHOLE`].
    #[must_use]
    pub fn share(&self, address: IpAddr) -> u16 {
        let growth = self.0.get(&address);
        growth.map_or(Self::WHOLE, |growth| growth.step + 1)
    }
}

impl Growth {
    /// Returns the number of the step at a time.
    fn step_at(&self, now: Duration, window: Duration) -> u16 {
        let since = self.since.unwrap_or(now);
        let is_over = |step: &u16| since + window * u32::from(*step) / u32::from(STEPS) <= now;
        (1..=STEPS).rev().find(is_over).unwrap_or(0)
    }
}

impl SlowStarts {
    /// Updates the time in which shares grow and the ready endpoints of a Service; `None` if it has
    /// no slow start.
    ///
    /// The endpoints of a Service that had no slow start are not new.
    pub(super) fn update(
        &mut self,
        service: &ServiceName,
        endpoints: Option<(Duration, BTreeSet<IpAddr>)>,
    ) {
        let Some((window, ready)) = endpoints else {
            self.services.remove(service);
            return;
        };
        let Some(known) = self.services.get_mut(service) else {
            let new = NewEndpoints::default();
            let endpoints = ReadyEndpoints { window, ready, new };
            self.services.insert(service.clone(), endpoints);
            return;
        };
        known.window = window;
        known.new.0.retain(|address, _| ready.contains(address));
        if self.has_begun {
            let growth = |address: &IpAddr| {
                let (since, step) = (None, 0);
                (*address, Growth { since, step })
            };
            let new = ready.difference(&known.ready).map(growth);
            known.new.0.extend(new);
        }
        known.ready = ready;
    }

    /// Advances to this time; returns the Services whose endpoints have other shares now.
    ///
    /// From the first call on, an endpoint that becomes ready is new.
    pub(super) fn advance(&mut self, now: Duration) -> BTreeSet<ServiceName> {
        self.has_begun = true;
        let mut changed = BTreeSet::new();
        for (name, ReadyEndpoints { window, new, .. }) in &mut self.services {
            new.0.retain(|_, growth| {
                growth.since.get_or_insert(now);
                let step = growth.step_at(now, *window);
                if step != growth.step {
                    growth.step = step;
                    changed.insert(name.clone());
                }
                step < STEPS
            });
        }
        changed
    }

    /// Returns the time of the next step of any endpoint.
    pub(super) fn next_step(&self) -> Option<Duration> {
        let services = self.services.values();
        let steps = services.flat_map(|service| {
            let new = service.new.0.values();
            new.filter_map(|growth| {
                let next = u32::from(growth.step + 1);
                Some(growth.since? + service.window * next / u32::from(STEPS))
            })
        });
        steps.min()
    }

    /// Returns the new endpoints of a Service; `None` if it has none.
    pub(super) fn new_endpoints(&self, service: &ServiceName) -> Option<&NewEndpoints> {
        let new = &self.services.get(service)?.new;
        (!new.0.is_empty()).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const WINDOW: Duration = Duration::from_mins(1);

    fn pod(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 244, 1, last).into()
    }

    fn cart() -> ServiceName {
        ServiceName::new("shop", "cart")
    }

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn update(starts: &mut SlowStarts, ready: &[u8]) {
        let ready = ready.iter().copied().map(pod).collect();
        starts.update(&cart(), Some((WINDOW, ready)));
    }

    fn shares(starts: &SlowStarts) -> [u16; 3] {
        let new = starts.new_endpoints(&cart());
        [1, 2, 3].map(|last| new.map_or(NewEndpoints::WHOLE, |new| new.share(pod(last))))
    }

    /// Returns a Service whose endpoints 1 and 2 are not new.
    fn starts() -> SlowStarts {
        let mut starts = SlowStarts::default();
        update(&mut starts, &[1]);
        update(&mut starts, &[1, 2]);
        assert_eq!(starts.advance(second(100)), BTreeSet::new());
        starts
    }

    #[test]
    fn the_share_of_a_new_endpoint_grows_until_it_is_whole() {
        let mut starts = starts();
        assert_eq!((shares(&starts), starts.next_step()), ([5, 5, 5], None));
        update(&mut starts, &[1, 2, 3]);
        assert_eq!(shares(&starts), [5, 5, 1]);
        assert_eq!(starts.advance(second(101)), BTreeSet::new());
        for (now, share, next) in [
            (115, 1, Some(116)),
            (116, 2, Some(131)),
            (120, 2, Some(131)),
            (131, 3, Some(146)),
            (159, 4, Some(161)),
            (161, 5, None),
            (300, 5, None),
        ] {
            let before = shares(&starts);
            let changed = starts.advance(second(now));
            assert_eq!(shares(&starts), [5, 5, share], "{now}");
            assert_eq!(changed.is_empty(), before == shares(&starts), "{now}");
            assert_eq!(starts.next_step(), next.map(second), "{now}");
        }
    }

    #[test]
    fn an_endpoint_that_is_ready_again_is_new_again() {
        let mut starts = starts();
        update(&mut starts, &[1]);
        assert_eq!(shares(&starts), [5, 5, 5]);
        update(&mut starts, &[1, 2]);
        assert_eq!(starts.advance(second(101)), BTreeSet::new());
        assert_eq!(shares(&starts), [5, 1, 5]);
        update(&mut starts, &[1, 2, 3]);
        assert_eq!(starts.advance(second(131)), [cart()].into());
        assert_eq!(shares(&starts), [5, 3, 1]);
    }

    #[test]
    fn a_late_step_skips_the_others() {
        let mut starts = starts();
        update(&mut starts, &[1, 2, 3]);
        starts.advance(second(101));
        assert_eq!(starts.advance(second(1000)), [cart()].into());
        assert_eq!(shares(&starts), [5, 5, 5]);
    }

    #[test]
    fn the_end_of_a_slow_start_and_a_shorter_window_take_effect() {
        let mut starts = starts();
        update(&mut starts, &[1, 2, 3]);
        starts.advance(second(101));
        starts.update(&cart(), Some((second(4), [pod(1), pod(3)].into())));
        assert_eq!(starts.next_step(), Some(second(102)));
        assert_eq!(starts.advance(second(103)), [cart()].into());
        assert_eq!(shares(&starts), [5, 5, 3]);
        starts.update(&cart(), None);
        assert_eq!((shares(&starts), starts.next_step()), ([5, 5, 5], None));
    }
}
