//! The addresses of this node, from rtnetlink, and their changes.

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

/// The time in which changes are collected, since one change of an interface is several messages.
const SETTLE_TIME: Duration = Duration::from_millis(20);

/// The time between a failure and the retry.
const RETRY: Duration = Duration::from_secs(1);

/// The multicast groups that report changes of addresses and routes.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Reads the addresses of this node.
///
/// # Errors
/// If rtnetlink cannot be reached.
pub async fn own() -> Result<OwnAddresses, rtnetlink::Error> {
    Rtnetlink::open(&[])?.own_addresses().await
}

/// Sends the addresses of this node, now and after each change, until the receiver is dropped.
///
/// After a failure it retries; until then the addresses that were sent last remain valid.
pub async fn follow(events: mpsc::Sender<Events>) {
    loop {
        if let Err(error) = follow_connection(&events).await {
            warn!(event = %LogEvent::NodeAddressesWatchFailed, %error, "cannot watch the addresses of this node; retrying");
        }
        if events.is_closed() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Sends the addresses and their changes until the connection to rtnetlink ends.
async fn follow_connection(events: &mpsc::Sender<Events>) -> Result<(), rtnetlink::Error> {
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
        if let Err(ConnectionEnded) = rtnetlink.changed().await {
            return Ok(());
        }
    }
}

/// A connection to rtnetlink, with its notifications.
struct Rtnetlink {
    /// The handle for requests.
    handle: Handle,
    /// The notifications of the subscribed groups.
    notifications: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// The task that drives the connection.
    connection: JoinHandle<()>,
}

/// The connection to rtnetlink ended.
struct ConnectionEnded;

impl Drop for Rtnetlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Rtnetlink {
    /// Connects to rtnetlink, and subscribes to multicast groups.
    fn open(groups: &[MulticastGroup]) -> Result<Self, rtnetlink::Error> {
        let (connection, handle, notifications) = rtnetlink::new_multicast_connection(groups)
            .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
        let connection = tokio::spawn(connection);
        Ok(Self {
            handle,
            notifications,
            connection,
        })
    }

    /// Waits for a relevant change.
    ///
    /// # Errors
    /// If the connection ended.
    async fn changed(&mut self) -> Result<(), ConnectionEnded> {
        loop {
            match self.notifications.next().await {
                None => return Err(ConnectionEnded),
                Some((message, _)) if is_relevant(&message.payload) => break,
                Some(_) => {}
            }
        }
        sleep(SETTLE_TIME).await;
        while self.notifications.try_recv().is_ok() {}
        Ok(())
    }

    /// Reads all addresses and those of the default routes.
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
                .filter_map(local_address)
                .collect::<BTreeSet<_>>(),
        })
    }

    /// Returns the address of the interface with the default route: the preferred source of the
    /// route, or else the first global address of the interface.
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
        let interface = interface(&route);
        let mut global = addresses
            .iter()
            .filter(|address| Some(address.header.index) == interface)
            .filter(|address| address.header.family == family)
            .filter(|address| address.header.scope == AddressScope::Universe);
        Ok(preferred_source(&route).or_else(|| global.find_map(local_address)))
    }
}

/// Returns whether a message reports an address, a default route, or lost messages.
fn is_relevant(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
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

/// Returns whether a route is a default route of the main table.
fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.table == RouteHeader::RT_TABLE_MAIN
}

/// Returns the metric of a route.
fn priority(route: &RouteMessage) -> u32 {
    let priority = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
    // A route without RTA_PRIORITY has metric 0.
    priority.unwrap_or(0)
}

/// Returns the index of the interface of a route.
fn interface(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

/// Returns the preferred source address of a route.
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

/// Returns the address of the interface itself: with a peer, `IFA_ADDRESS` is the peer's
/// (`linux/if_addr.h`).
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
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
