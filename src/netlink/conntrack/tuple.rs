//! A direction of a connection in a message of connection tracking.

use std::net::{IpAddr, SocketAddr};

use crate::netlink::socket::attribute::{Attribute, Attributes, MalformedMessage};
use crate::netlink::uapi::conntrack::{
    CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_PROTO_DST_PORT, CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT, CTA_TUPLE_IP, CTA_TUPLE_PROTO,
};
use crate::planner::model::Protocol;

/// A direction of a connection: its protocol, its source and its destination.
pub(crate) struct Tuple {
    /// The protocol of the connection.
    pub(crate) protocol: Protocol,
    /// The address and port that packets of this direction come from.
    pub(crate) source: SocketAddr,
    /// The address and port that packets of this direction go to.
    pub(crate) destination: SocketAddr,
}

impl Tuple {
    /// Reads the tuple that an entry has as this attribute; `None` if a Service cannot have its
    /// protocol.
    pub(crate) fn parse(
        entry: &Attributes<'_>,
        kind: u16,
    ) -> Result<Option<Self>, MalformedMessage> {
        let tuple = entry.get(kind).ok_or(MalformedMessage)?.nested();
        let ips = tuple.get(CTA_TUPLE_IP).ok_or(MalformedMessage)?.nested();
        let transport = tuple.get(CTA_TUPLE_PROTO).ok_or(MalformedMessage)?.nested();
        let number = transport.get(CTA_PROTO_NUM).ok_or(MalformedMessage)?;
        let number = number.value.first().ok_or(MalformedMessage)?;
        let Some(protocol) = Protocol::from_number(*number) else {
            return Ok(None);
        };
        let end = |ipv4, ipv6, port_kind| {
            let ip = ips.get(ipv4).or_else(|| ips.get(ipv6)).and_then(ip)?;
            let port = transport.get(port_kind)?.value.try_into().ok()?;
            Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
        };
        let source = end(CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT);
        let destination = end(CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT);
        Ok(Some(Self {
            protocol,
            source: source.ok_or(MalformedMessage)?,
            destination: destination.ok_or(MalformedMessage)?,
        }))
    }
}

/// Reads an address of either family.
fn ip(attribute: Attribute<'_>) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(attribute.value).map(IpAddr::from);
    let ipv6 = <[u8; 16]>::try_from(attribute.value).map(IpAddr::from);
    ipv4.or(ipv6).ok()
}
