//! A direction of a connection, as connection tracking has it.

use std::net::{IpAddr, SocketAddr};

use crate::netlink::socket::attribute::Attributes;
use crate::netlink::uapi::{
    CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_PROTO_DST_PORT, CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT, CTA_TUPLE_IP, CTA_TUPLE_PROTO,
};
use crate::planner::model::Protocol;

/// Who sends what to whom.
pub(crate) struct Tuple {
    pub(crate) protocol: Protocol,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Tuple {
    /// `None` if it is not of a protocol that a Service can have.
    pub(crate) fn parse(tuple: &Attributes<'_>) -> Option<Self> {
        let ips = tuple.get(CTA_TUPLE_IP)?.nested();
        let transport = tuple.get(CTA_TUPLE_PROTO)?.nested();
        let number = transport.get(CTA_PROTO_NUM)?.value.first()?;
        let ip = |ipv4, ipv6| match ips.get(ipv4) {
            Some(ip) => Some(IpAddr::from(<[u8; 4]>::try_from(ip.value).ok()?)),
            None => Some(IpAddr::from(
                <[u8; 16]>::try_from(ips.get(ipv6)?.value).ok()?,
            )),
        };
        let port = |kind| {
            let port = transport.get(kind)?.value.try_into().ok()?;
            Some(u16::from_be_bytes(port))
        };
        Some(Self {
            protocol: Protocol::from_number(*number)?,
            source: SocketAddr::new(ip(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)?),
            destination: SocketAddr::new(
                ip(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
                port(CTA_PROTO_DST_PORT)?,
            ),
        })
    }
}
