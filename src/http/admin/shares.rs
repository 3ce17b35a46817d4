//! The endpoints' shares of new connections, sampled from connection tracking.
//!
//! Connection tracking sends a notification for every new connection while somebody listens. So a thread
//! listens only while somebody reads the counters, and only until it has seen enough: on a busy node for
//! some milliseconds of each period, on an idle one for most of it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::netlink::{Connection, Error, NewConnections};
use crate::planner::model::Protocol;

/// The interval between the starts of two samples.
const PERIOD: Duration = Duration::from_secs(5);

/// The longest sample.
const WINDOW: Duration = Duration::from_secs(4);

/// The connections after which a sample ends.
const ENOUGH: usize = 1000;

/// The pause between two reads of the notifications of a sample.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// The time after which nobody reads the counters any more.
const WANTED: Duration = Duration::from_mins(2);

/// The maximum number of destinations and endpoints of samples that are not read yet.
const MAX_FLOWS: usize = 10_000;

/// The maximum number of endpoints with a sampled connection.
const MAX_ENDPOINTS: usize = 10_000;

/// The time after which an endpoint without a sampled connection is left out.
const FORGET: Duration = Duration::from_hours(1);

/// The frontends of all Services with their names; a node port has no address.
type Frontends = BTreeMap<(Protocol, Option<IpAddr>, u16), String>;

/// The sampled connections of each endpoint.
pub(super) struct EndpointShares {
    sampler: Arc<Mutex<Sampler>>,
    /// The number of connections of each Service port and endpoint, and when one was last sampled.
    counts: BTreeMap<(String, SocketAddr), (u64, Instant)>,
}

/// What the thread has sampled since the last reading.
#[derive(Default)]
struct Sampler {
    /// The last reading.
    read: Option<Instant>,
    /// The number of connections by protocol, destination and endpoint.
    flows: BTreeMap<(Protocol, SocketAddr, SocketAddr), u64>,
}

fn lock(sampler: &Mutex<Sampler>) -> MutexGuard<'_, Sampler> {
    sampler.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EndpointShares {
    /// Starts the thread. It ends after the value is dropped.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start() -> io::Result<Self> {
        let sampler = Arc::default();
        let weak = Arc::downgrade(&sampler);
        let thread = thread::Builder::new().name("shares".to_owned());
        thread.spawn(move || follow(&weak))?;
        Ok(Self {
            sampler,
            counts: BTreeMap::new(),
        })
    }

    /// Returns the sampled connections of each Service port and endpoint. The thread goes on sampling
    /// for two minutes.
    pub(super) fn read(&mut self, frontends: &Frontends) -> BTreeMap<(String, SocketAddr), u64> {
        let now = Instant::now();
        let mut sampler = lock(&self.sampler);
        sampler.read = Some(now);
        let flows = std::mem::take(&mut sampler.flows);
        drop(sampler);
        self.add(flows, frontends, now);
        let counts = self.counts.iter();
        counts
            .map(|(endpoint, (count, _))| (endpoint.clone(), *count))
            .collect()
    }

    /// Adds flows to the endpoints of the Services that they belong to.
    fn add(
        &mut self,
        flows: BTreeMap<(Protocol, SocketAddr, SocketAddr), u64>,
        frontends: &Frontends,
        now: Instant,
    ) {
        for ((protocol, to, endpoint), count) in flows {
            let find = |address, port| frontends.get(&(protocol, address, port));
            let at_address = Some(to.ip());
            let name = find(at_address, to.port())
                .or_else(|| find(at_address, 0))
                .or_else(|| find(None, to.port()));
            let Some(name) = name else {
                continue;
            };
            let key = (name.clone(), endpoint);
            if self.counts.len() < MAX_ENDPOINTS || self.counts.contains_key(&key) {
                let (total, last) = self.counts.entry(key).or_insert((0, now));
                *total += count;
                *last = now;
            }
        }
        let is_recent = |last: Instant| now.saturating_duration_since(last) < FORGET;
        self.counts.retain(|_, (_, last)| is_recent(*last));
    }
}

/// Samples until the counters are dropped.
fn follow(weak: &Weak<Mutex<Sampler>>) {
    let mut has_failed = false;
    while let Some(sampler) = weak.upgrade() {
        let started = Instant::now();
        let is_wanted = lock(&sampler)
            .read
            .is_some_and(|read| read.elapsed() < WANTED);
        if is_wanted {
            let sampled = sample(&sampler);
            if let Err(error) = &sampled
                && !has_failed
            {
                debug!(%error, "cannot sample connection tracking; retrying");
            }
            has_failed = sampled.is_err();
        }
        drop(sampler);
        thread::sleep(PERIOD.saturating_sub(started.elapsed()));
    }
}

/// Listens for new connections until it has seen enough of them.
fn sample(sampler: &Mutex<Sampler>) -> Result<(), Error> {
    let mut connections = NewConnections::open()?;
    let (started, mut seen) = (Instant::now(), 0);
    while seen < ENOUGH && started.elapsed() < WINDOW {
        thread::sleep(READ_INTERVAL);
        let mut sampler = lock(sampler);
        // A lossy delivery loses connections of all endpoints alike.
        let _lossy = connections.drain(|connection| seen += sampler.add(&connection))?;
    }
    Ok(())
}

impl Sampler {
    /// Adds a connection that was translated; returns how many that are.
    fn add(&mut self, connection: &Connection) -> usize {
        let Connection {
            protocol,
            to,
            reply_source,
        } = *connection;
        let key = (protocol, to, reply_source);
        let has_room = self.flows.len() < MAX_FLOWS || self.flows.contains_key(&key);
        if to == reply_source || !has_room {
            return 0;
        }
        *self.flows.entry(key).or_default() += 1;
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_connections_belong_to_the_service_of_their_destination() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let mut sampler = Sampler::default();
        let mut add = |to, reply_source| {
            let (to, reply_source) = (at(to), at(reply_source));
            sampler.add(&Connection {
                protocol: Protocol::Tcp,
                to,
                reply_source,
            })
        };
        assert_eq!(add("10.96.0.1:80", "10.244.1.9:8080"), 1);
        assert_eq!(add("10.96.0.1:80", "10.244.1.9:8080"), 1);
        assert_eq!(add("192.168.0.2:30080", "10.244.1.9:8080"), 1);
        assert_eq!(add("192.0.2.7:443", "192.0.2.7:443"), 0, "not translated");
        assert_eq!(
            add("192.0.2.7:443", "10.0.0.1:443"),
            1,
            "of another program"
        );
        let cart = "shop/cart:http".to_owned();
        let frontends = Frontends::from([
            (
                (Protocol::Tcp, Some(at("10.96.0.1:80").ip()), 80),
                cart.clone(),
            ),
            ((Protocol::Tcp, None, 30_080), cart.clone()),
        ]);
        let mut shares = EndpointShares {
            sampler: Arc::default(),
            counts: BTreeMap::new(),
        };
        let now = Instant::now();
        shares.add(sampler.flows, &frontends, now);
        let counts = shares.read(&frontends);
        assert_eq!(counts, [((cart, at("10.244.1.9:8080")), 3)].into());
        shares.add(BTreeMap::new(), &frontends, now + FORGET);
        assert!(shares.counts.is_empty());
    }
}
