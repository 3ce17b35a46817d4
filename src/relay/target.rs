//! The endpoints of a node port, and the choice of one for a client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::planner::desired::LocalhostPort;

/// The endpoints of a node port, which its listener and its connections share.
#[derive(Debug)]
pub(super) struct Target(Mutex<Endpoints>);

/// The endpoints, and the one that session affinity keeps.
#[derive(Debug, Default)]
struct Endpoints {
    /// The endpoints, each with the same share of the clients.
    all: Arc<[SocketAddr]>,
    /// The session affinity timeout.
    affinity: Option<Duration>,
    /// The endpoint of the last client, and when that was. All clients of localhost have one address.
    pinned: Option<(SocketAddr, Instant)>,
}

impl Endpoints {
    /// Whether this is one of the endpoints, which are sorted.
    fn has(&self, endpoint: SocketAddr) -> bool {
        self.all.binary_search(&endpoint).is_ok()
    }

    /// Draws one of the endpoints except these.
    fn draw(&self, except: &[SocketAddr]) -> Option<SocketAddr> {
        if except.is_empty() {
            return fastrand::choice(self.all.iter().copied());
        }
        let others = self.all.iter().filter(|other| !except.contains(other));
        let others: Vec<_> = others.copied().collect();
        fastrand::choice(others)
    }
}

impl Target {
    /// Creates the target of a node port.
    pub(super) fn new(port: &LocalhostPort) -> Arc<Self> {
        let target = Self(Mutex::default());
        target.update(port);
        Arc::new(target)
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the endpoints. A pinned client keeps its endpoint while that exists.
    pub(super) fn update(&self, port: &LocalhostPort) {
        let mut endpoints = self.endpoints();
        endpoints.all = port.endpoints.as_slice().into();
        endpoints.affinity = port
            .affinity
            .map(|seconds| Duration::from_secs(seconds.into()));
    }

    /// Whether an endpoint still is one.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        self.endpoints().has(endpoint)
    }

    /// Chooses the endpoint of a new client, except these, which did not answer it.
    pub(super) fn choose(&self, now: Instant, except: &[SocketAddr]) -> Option<SocketAddr> {
        let mut endpoints = self.endpoints();
        let pinned = endpoints
            .pinned
            .zip(endpoints.affinity)
            .filter(|((_, at), timeout)| now.duration_since(*at) < *timeout)
            .map(|((endpoint, _), _)| endpoint)
            .filter(|endpoint| endpoints.has(*endpoint) && !except.contains(endpoint));
        let chosen = pinned.or_else(|| endpoints.draw(except))?;
        endpoints.pinned = Some((chosen, now));
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::planner::model::Protocol;

    fn port(last: impl IntoIterator<Item = u8>, affinity: Option<u32>) -> LocalhostPort {
        let endpoints = last.into_iter();
        LocalhostPort {
            protocol: Protocol::Tcp,
            port: 30_080,
            endpoints: endpoints
                .map(|last| SocketAddr::from(([10, 244, 1, last], 8080)))
                .collect(),
            affinity,
        }
    }

    fn chosen(target: &Target, now: Instant) -> BTreeSet<SocketAddr> {
        let choices = (0..200).map(|_| target.choose(now, &[]));
        choices.flatten().collect()
    }

    #[test]
    fn every_endpoint_is_chosen_except_those_that_did_not_answer() {
        let (target, now) = (Target::new(&port([1, 2, 3], None)), Instant::now());
        assert_eq!(chosen(&target, now).len(), 3);
        let [one, two, three] = [1, 2, 3].map(|last| SocketAddr::from(([10, 244, 1, last], 8080)));
        assert_eq!(target.choose(now, &[one, three]), Some(two));
        assert_eq!(target.choose(now, &[one, two, three]), None);
        target.update(&port([2], None));
        assert_eq!(chosen(&target, now), BTreeSet::from([two]));
        assert!(target.has(two) && !target.has(one));
    }

    #[test]
    fn session_affinity_keeps_one_endpoint_until_its_timeout() {
        let target = Target::new(&port(1..=200, Some(60)));
        let now = Instant::now();
        let first = target.choose(now, &[]).unwrap();
        // Each client extends the time.
        let mut later = now;
        for _ in 0..5 {
            later += Duration::from_secs(59);
            assert_eq!(chosen(&target, later), BTreeSet::from([first]));
        }
        let expired = (0..20).map(|_| {
            later += Duration::from_mins(1);
            target.choose(later, &[]).unwrap()
        });
        assert!(expired.collect::<BTreeSet<_>>().len() > 1);
        // An endpoint that is gone is not kept.
        target.update(&port([1, 2], Some(60)));
        let [one] = <[_; 1]>::try_from(Vec::from_iter(chosen(&target, later))).unwrap();
        target.update(&port(
            if one.ip().to_string().ends_with('1') {
                [2]
            } else {
                [1]
            },
            Some(60),
        ));
        assert!(!chosen(&target, later).contains(&one));
    }
}
