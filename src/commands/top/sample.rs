//! Samples the counters of frontends, and receives the new connections of endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::table::{FrontendCounter, FrontendId, NewByEndpoint, Sample};
use crate::commands::inspect_table;
use crate::netlink::{Connection, Delivery, Kernel, NewConnections};
use crate::planner::model::Address;
use crate::planner::ruleset::SetName;

/// A reader of counters and receiver of conntrack events.
pub(super) struct Sampler {
    /// The socket for the counters.
    kernel: Kernel,
    /// The socket for conntrack events.
    connections: NewConnections,
}

/// The time between two reads of conntrack events, short enough that the buffer of the socket does
/// not overflow.
pub(super) const RECEIVE_INTERVAL: Duration = Duration::from_millis(100);

impl Sampler {
    /// Starts to receive conntrack events. Returns `None` if there are no kube-dnat tables.
    pub(super) fn open() -> anyhow::Result<Option<Self>> {
        let mut kernel = Kernel::open()?;
        let ipv4 = inspect_table::<Ipv4Addr>(&mut kernel)?.is_some();
        let ipv6 = inspect_table::<Ipv6Addr>(&mut kernel)?.is_some();
        if !ipv4 && !ipv6 {
            return Ok(None);
        }
        Ok(Some(Self {
            kernel,
            connections: NewConnections::open()?,
        }))
    }

    /// Reads the counters. The tables can be deleted and recreated between two samples.
    pub(super) fn counters(&mut self) -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        self.read::<Ipv4Addr>(&mut sample)?;
        self.read::<Ipv6Addr>(&mut sample)?;
        Ok(sample)
    }

    /// Adds the counters of family `A`.
    fn read<A: Address>(&mut self, sample: &mut Sample) -> anyhow::Result<()> {
        for (set, counted) in self.kernel.connection_counters::<A>()? {
            let Some((protocol, address, port)) = counted.key.frontend() else {
                continue;
            };
            let name = counted.comment.map(|name| name.distinct(protocol, port));
            let counter = FrontendCounter {
                service: name.unwrap_or_default(),
                chain: counted.chain,
                connections: 0,
            };
            let frontend = (protocol, address.map(Into::into), port);
            // A node port is in the tables of both families.
            if let Some(denial) = counted.denial {
                let denied = sample.denied.entry((frontend, denial));
                denied.or_insert_with(|| counter.clone()).connections += counted.packets;
            }
            if SetName::OF_FRONTENDS.contains(&set) {
                let frontends = sample.frontends.entry(frontend);
                frontends.or_insert(counter).connections += counted.packets;
            }
        }
        Ok(())
    }

    /// Receives the pending conntrack events. Counts the connections to these frontends.
    pub(super) fn receive(
        &mut self,
        frontends: &Sample,
        received: &mut NewByEndpoint,
    ) -> anyhow::Result<()> {
        let delivery = self.connections.drain(|connection| {
            if let Some(service) = service(&connection, frontends) {
                let endpoint = (service.to_owned(), connection.reply_source);
                *received.connections.entry(endpoint).or_insert(0) += 1;
            }
        })?;
        received.events_lost |= delivery == Delivery::Lossy;
        Ok(())
    }
}

/// Returns the Service whose frontend is the destination of a connection.
fn service<'a>(connection: &Connection, frontends: &'a Sample) -> Option<&'a str> {
    let Connection {
        protocol,
        to,
        reply_source,
    } = *connection;
    let find = |address: Option<IpAddr>, port: u16| -> Option<&FrontendCounter> {
        let frontend: FrontendId = (protocol, address, port);
        frontends.frontends.get(&frontend)
    };
    // A connection to a port of another machine with the number of a node port, or to a port outside
    // the ranges of an address, is not translated.
    let is_translated = to != reply_source;
    let others = || find(Some(to.ip()), 0).or_else(|| find(None, to.port()));
    let counter = find(Some(to.ip()), to.port()).or_else(|| others().filter(|_| is_translated))?;
    Some(&counter.service)
}
