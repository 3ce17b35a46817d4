//! The node's own addresses when no Node object names them: those of the interface with the
//! default route.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "rtnetlink's attributes are an open list, of which a few matter"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

/// The addresses of the interfaces with the default routes, at most one of each family: the
/// route's preferred source, else the interface's first global address.
///
/// # Errors
/// If rtnetlink cannot be reached.
pub async fn of_default_route() -> Result<Vec<IpAddr>, rtnetlink::Error> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let mut found = Vec::new();
    let ipv4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let ipv6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for (request, family) in [(ipv4, AddressFamily::Inet), (ipv6, AddressFamily::Inet6)] {
        found.extend(of_family(&handle, request, family).await?);
    }
    connection.abort();
    Ok(found)
}

async fn of_family(
    handle: &Handle,
    request: RouteMessage,
    family: AddressFamily,
) -> Result<Option<IpAddr>, rtnetlink::Error> {
    let routes = handle.route().get(request).execute();
    let routes: Vec<_> = routes.try_collect().await?;
    let default = routes
        .iter()
        .filter(|route| route.header.destination_prefix_length == 0)
        .filter(|route| route.header.table == RouteHeader::RT_TABLE_MAIN)
        .min_by_key(|route| priority(route));
    let Some((route, link)) = default.and_then(|route| Some((route, link(route)?))) else {
        return Ok(None);
    };
    if let Some(address) = preferred_source(route) {
        return Ok(Some(address));
    }
    let addresses = handle.address().get().set_link_index_filter(link).execute();
    let addresses: Vec<_> = addresses.try_collect().await?;
    let mut global = addresses
        .iter()
        .filter(|address| address.header.family == family)
        .filter(|address| address.header.scope == AddressScope::Universe);
    Ok(global.find_map(address_of))
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

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut attributes = message.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })
}
