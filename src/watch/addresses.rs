//! The addresses of this machine, and that they change.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "rtnetlink's messages and attributes are open lists, of which a few matter"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::warn;

use crate::logging::LogEvent;
use crate::planner::model::{Event, Events, OwnAddresses};

/// How long changes are gathered: one of an interface is several messages.
const SETTLED: Duration = Duration::from_millis(20);

/// How long after a failure the kernel is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// The groups that tell of changes.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// The addresses of this machine.
///
/// # Errors
/// If rtnetlink cannot be reached.
pub async fn own() -> Result<OwnAddresses, rtnetlink::Error> {
    Rtnetlink::open(&[])?.own_addresses().await
}

/// Reports the addresses of this machine, and again whenever they change, until nobody listens.
/// What cannot be read is asked for again; until then what was reported last holds.
pub async fn follow(events: mpsc::Sender<Events>) {
    loop {
        if let Err(error) = follow_once(&events).await {
            warn!(event = %LogEvent::NodeAddressesWatchFailed, %error, "cannot watch the addresses of this node; retrying");
        }
        if events.is_closed() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Reports them for as long as the connection lasts.
async fn follow_once(events: &mpsc::Sender<Events>) -> Result<(), rtnetlink::Error> {
    let mut rtnetlink = Rtnetlink::open(&GROUPS)?;
    let mut last = None;
    loop {
        let now = rtnetlink.own_addresses().await?;
        if last.as_ref() != Some(&now) {
            last = Some(now.clone());
            if events.send(vec![Event::OwnAddresses(now)]).await.is_err() {
                return Ok(());
            }
        }
        if !rtnetlink.changed().await {
            return Ok(());
        }
    }
}

/// A connection to rtnetlink, and what it tells unasked.
struct Rtnetlink {
    handle: Handle,
    told: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl Drop for Rtnetlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Rtnetlink {
    fn open(groups: &[MulticastGroup]) -> Result<Self, rtnetlink::Error> {
        let (connection, handle, told) = rtnetlink::new_multicast_connection(groups)
            .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
        let connection = tokio::spawn(connection);
        Ok(Self {
            handle,
            told,
            connection,
        })
    }

    /// Waits until something changed that counts. `false` if the connection ended.
    async fn changed(&mut self) -> bool {
        loop {
            match self.told.next().await {
                None => return false,
                Some((message, _)) if counts(&message.payload) => break,
                Some(_) => {}
            }
        }
        sleep(SETTLED).await;
        while self.told.try_recv().is_ok() {}
        true
    }

    async fn own_addresses(&self) -> Result<OwnAddresses, rtnetlink::Error> {
        let addresses = self.handle.address().get().execute();
        let addresses: Vec<_> = addresses.try_collect().await?;
        let mut of_default_route = Vec::new();
        let ipv4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let ipv6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for (request, family) in [(ipv4, AddressFamily::Inet), (ipv6, AddressFamily::Inet6)] {
            of_default_route.extend(self.of_default_route(request, family, &addresses).await?);
        }
        Ok(OwnAddresses {
            of_default_route,
            all: addresses
                .iter()
                .filter_map(address_of)
                .collect::<BTreeSet<_>>(),
        })
    }

    /// The address of the interface with the default route: the route's preferred source, else the
    /// interface's first global address.
    async fn of_default_route(
        &self,
        request: RouteMessage,
        family: AddressFamily,
        addresses: &[AddressMessage],
    ) -> Result<Option<IpAddr>, rtnetlink::Error> {
        let routes = self.handle.route().get(request).execute();
        let mut routes = routes.try_filter(|route| std::future::ready(is_default(route)));
        let mut default: Option<RouteMessage> = None;
        while let Some(route) = routes.try_next().await? {
            if default
                .as_ref()
                .is_none_or(|best| priority(&route) < priority(best))
            {
                default = Some(route);
            }
        }
        let Some(route) = default else {
            return Ok(None);
        };
        let link = link(&route);
        let mut global = addresses
            .iter()
            .filter(|address| Some(address.header.index) == link)
            .filter(|address| address.header.family == family)
            .filter(|address| address.header.scope == AddressScope::Universe);
        Ok(preferred_source(&route).or_else(|| global.find_map(address_of)))
    }
}

/// Whether a message tells of an address or of a default route, or that messages were lost.
fn counts(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_),
        ) => true,
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => is_default(route),
        NetlinkPayload::InnerMessage(_) => false,
        _ => true,
    }
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.table == RouteHeader::RT_TABLE_MAIN
}

fn priority(route: &RouteMessage) -> u32 {
    let priority = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
    priority.unwrap_or(0)
}

fn link(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

fn preferred_source(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some((*address).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        })
}

/// The address of the interface itself: with a peer, `IFA_ADDRESS` is the peer's
/// (`linux/if_addr.h`).
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}
