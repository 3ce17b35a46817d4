//! Takes the samples.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::table::{FrontendCounter, FrontendId, Sample, ToEndpoints};
use crate::commands::inspect_table;
use crate::netlink::{Connection, Kernel, NewConnections};
use crate::planner::model::Address;
use crate::planner::ruleset::SetName;

/// Reads the counters, and hears of new connections.
pub(super) struct Sampler {
    kernel: Kernel,
    connections: NewConnections,
}

/// How often it is to hear, so that connections do not wait in the kernel until they are too many.
pub(super) const HEARING: Duration = Duration::from_millis(100);

/// What was heard since the last time.
#[derive(Default)]
pub(super) struct HeardConnections {
    pub(super) to: ToEndpoints,
    pub(super) missed: bool,
}

impl Sampler {
    /// Listens from now on. `None`: there are no tables of ours.
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

    /// The counters now. The tables may go and come meanwhile.
    pub(super) fn counters(&mut self) -> anyhow::Result<Sample> {
        let mut sample = Sample::new();
        self.read::<Ipv4Addr>(&mut sample)?;
        self.read::<Ipv6Addr>(&mut sample)?;
        Ok(sample)
    }

    fn read<A: Address>(&mut self, sample: &mut Sample) -> anyhow::Result<()> {
        for set in [SetName::Services, SetName::Nodeports] {
            for counted in self.kernel.counted::<A>(set)? {
                let Some((protocol, address, port)) = counted.key.frontend() else {
                    continue;
                };
                let name = counted.comment;
                let name = name.map(|name| name.distinct(protocol, port));
                let at = (protocol, address.map(Into::into), port);
                let counter = sample.entry(at).or_insert_with(|| FrontendCounter {
                    service: name.unwrap_or_default(),
                    chain: counted.chain,
                    connections: 0,
                });
                // A node port stands in the tables of both families.
                counter.connections += counted.packets;
            }
        }
        Ok(())
    }

    /// Hears of the connections to these frontends since it was last asked.
    pub(super) fn hear(
        &mut self,
        frontends: &Sample,
        heard: &mut HeardConnections,
    ) -> anyhow::Result<()> {
        heard.missed |= self.connections.drain(|connection| {
            if let Some(service) = service(&connection, frontends) {
                let to = (service.to_owned(), connection.answered_by);
                *heard.to.entry(to).or_insert(0) += 1;
            }
        })?;
        Ok(())
    }
}

/// Whose frontend a connection was addressed to.
fn service<'a>(connection: &Connection, frontends: &'a Sample) -> Option<&'a str> {
    let Connection {
        protocol,
        to,
        answered_by,
    } = *connection;
    let find = |address: Option<IpAddr>| -> Option<&FrontendCounter> {
        let at: FrontendId = (protocol, address, to.port());
        frontends.get(&at)
    };
    // A port of another machine may have the number of a node port: that is not translated.
    let node_port = || find(None).filter(|_| to != answered_by);
    let counter = find(Some(to.ip())).or_else(node_port)?;
    Some(&counter.service)
}
