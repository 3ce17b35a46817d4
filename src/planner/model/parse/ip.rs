//! The parser of addresses and ranges, which follows kube-proxy.
//!
//! Leading zeros of an IPv4 octet are ignored (`netutils.ParseIPSloppy`), and an IPv4-mapped IPv6
//! address is an IPv4 address.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::RejectReason;

/// Parses an address.
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    parse(text).map(|address| address.to_canonical())
}

/// Parses an address range, and clears its host bits.
#[must_use]
pub fn range(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let net = IpNet::new(parse(address)?, prefix.parse().ok()?).ok()?;
    Some(net.trunc())
}

/// Parses addresses, keeps their order, and removes duplicates.
pub(super) fn addresses<'a, F: FnOnce() -> String>(
    texts: impl Iterator<Item = (F, &'a str)>,
    rejected: &mut Vec<RejectReason>,
) -> Box<[IpAddr]> {
    let mut addresses = Vec::new();
    for (field, text) in texts {
        match address(text) {
            Some(address) if addresses.contains(&address) => {}
            Some(address) => addresses.push(address),
            None => rejected.push(RejectReason::Address {
                field: field().into(),
                value: text.into(),
                expected: "IP address",
            }),
        }
    }
    addresses.into()
}

/// Returns whether an address is valid for an endpoint.
///
/// The API server rejects others (`ValidateNonSpecialIP`), but manifests do not pass it.
pub(super) fn is_valid_endpoint(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Parses an address whose IPv4 octets may have leading zeros.
fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        let (before, v4) = match text.rfind(':') {
            Some(colon) => text.split_at(colon + 1),
            None => ("", text),
        };
        format!("{before}{}", sloppy_v4(v4)?).parse().ok()
    })
}

/// Parses an IPv4 address whose octets may have leading zeros.
fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kube_proxy_reads_them() {
        for (text, expected) in [
            ("10.1.2.3", Some("10.1.2.3")),
            ("010.001.2.003", Some("10.1.2.3")),
            ("0000000010.1.2.3", Some("10.1.2.3")),
            ("fd00::1", Some("fd00::1")),
            ("FD00:0:0::0001", Some("fd00::1")),
            ("::ffff:10.1.2.3", Some("10.1.2.3")),
            ("::ffff:010.1.2.3", Some("10.1.2.3")),
            ("10.1.2", None),
            ("10.1.2.3.4", None),
            ("10.1.2.256", None),
            ("10.1.2.+3", None),
            ("10.1..3", None),
            (" 10.1.2.3", None),
            ("fe80::1%eth0", None),
            ("fd00::12345", None),
            ("web-1", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(address(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_host_bits_of_a_range_are_cleared() {
        for (text, expected) in [
            ("10.96.0.0/12", Some("10.96.0.0/12")),
            ("010.96.7.7/12", Some("10.96.0.0/12")),
            ("fd00:10:96::/112", Some("fd00:10:96::/112")),
            ("10.96.0.0", None),
            ("10.96.0.0/33", None),
            ("10.96.0.0/+8", None),
            ("10.96.0.0/", None),
            ("fd00::/129", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(range(text), expected, "{text:?}");
        }
    }

    #[test]
    fn special_addresses_are_not_endpoints() {
        for (text, expected) in [
            ("10.244.1.5", true),
            ("192.0.2.1", true),
            ("fd00::5", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_valid_endpoint(text.parse().unwrap()), expected, "{text}");
        }
    }
}
