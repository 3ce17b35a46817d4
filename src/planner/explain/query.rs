//! The query of `explain`: a frontend, or a Service.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::planner::model::Protocol;
use crate::planner::ruleset::Comment;

/// The query on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A frontend, as `ADDRESS:PORT[/PROTOCOL]`.
    Frontend(Target),
    /// A Service or a port of it, as `NAMESPACE/NAME[:PORT]`.
    Service(ServiceQuery),
}

/// The destination of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The transport protocol; TCP if the query names none.
    pub protocol: Protocol,
    /// The destination address.
    pub address: IpAddr,
    /// The destination port.
    pub port: u16,
}

/// A Service, or a port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceQuery {
    /// The Service, as `namespace/name`.
    pub service: String,
    /// The name of the port, or its number.
    pub port: Option<String>,
}

impl ServiceQuery {
    /// Returns whether a frontend with this port and comment (`namespace/name:port-name`) matches.
    ///
    /// A truncated comment matches every Service port that it may stand for.
    #[must_use]
    pub fn matches(&self, comment: &Comment, port: u16) -> bool {
        let is_truncated = comment.is_truncated();
        let comment = comment.untruncated();
        let port_matches = |name: &str| {
            self.port.as_deref().is_none_or(|wanted| {
                wanted == name
                    || wanted == port.to_string()
                    || (is_truncated && wanted.starts_with(name))
            })
        };
        match comment.split_once(':') {
            Some((service, name)) => service == self.service && port_matches(name),
            None if is_truncated => self.service.starts_with(comment) && port_matches(""),
            None => comment == self.service && port_matches(""),
        }
    }
}

impl FromStr for Query {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "expected ADDRESS:PORT, ADDRESS:PORT/udp, [ADDRESS]:PORT or NAMESPACE/NAME[:PORT]";
        let (to, protocol) = match text.rsplit_once('/') {
            Some((to, word)) => (to, protocol(word)),
            None => (text, Some(Protocol::Tcp)),
        };
        if let (Ok(to), Some(protocol)) = (to.parse::<SocketAddr>(), protocol) {
            return Ok(Self::Frontend(Target {
                protocol,
                address: to.ip().to_canonical(),
                port: to.port(),
            }));
        }
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port.to_owned())),
            None => (text, None),
        };
        let (namespace, name) = service.split_once('/').ok_or(EXPECTED)?;
        let is_name = |name: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            !name.is_empty() && name.bytes().all(is_allowed)
        };
        if !is_name(namespace) || !is_name(name) || port.as_deref() == Some("") {
            return Err(EXPECTED.to_owned());
        }
        if to.parse::<SocketAddr>().is_ok() || namespace.parse::<IpAddr>().is_ok() {
            return Err(format!("{EXPECTED}; the protocols are tcp, udp and sctp"));
        }
        Ok(Self::Service(ServiceQuery {
            service: service.to_owned(),
            port,
        }))
    }
}

/// Parses the name of a protocol, in any case.
fn protocol(word: &str) -> Option<Protocol> {
    let word = word.to_ascii_lowercase();
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.to_string() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontend(text: &str) -> (Protocol, String, u16) {
        match text.parse() {
            Ok(Query::Frontend(target)) => {
                (target.protocol, target.address.to_string(), target.port)
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn frontends() {
        let tcp = |address: &str, port| (Protocol::Tcp, address.to_owned(), port);
        assert_eq!(frontend("10.96.0.1:443"), tcp("10.96.0.1", 443));
        assert_eq!(frontend("10.96.0.10:53/UDP").0, Protocol::Udp);
        assert_eq!(frontend("10.96.0.10:53/sctp").0, Protocol::Sctp);
        assert_eq!(frontend("[fd00::1]:80"), tcp("fd00::1", 80));
        assert_eq!(frontend("[fd00::1]:80/udp").0, Protocol::Udp);
        assert_eq!(frontend("[::ffff:10.96.0.1]:80"), tcp("10.96.0.1", 80));
    }

    #[test]
    fn services() {
        let wanted = |text: &str| match text.parse() {
            Ok(Query::Service(wanted)) => wanted,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(wanted("shop/cart").port, None);
        assert_eq!(wanted("shop/cart:http").port.as_deref(), Some("http"));
        let is = |query: &str, name: &str| wanted(query).matches(&name.into(), 80);
        assert!(is("shop/cart", "shop/cart:http"));
        assert!(is("shop/cart:80", "shop/cart"));
        assert!(is("shop/cart:http", "shop/cart:http"));
        assert!(!is("shop/cart:https", "shop/cart:http"));
        assert!(!is("shop/cart", "shop/cart2:http"));
        let service = format!("shop/{}", "a".repeat(121));
        let long = |port: &str| format!("{service}:{port}");
        // A port of another name is another port, however long the names are.
        assert!(is(&long("http-a"), &long("http-a")));
        assert!(!is(&long("http-b"), &long("http-a")));
        assert!(is(&service, &long("http-a")));
        // One byte of the port's name is known.
        let cut = Comment::from_parts(&long("h"), None);
        let is_cut = |query: &str| wanted(query).matches(&cut, 80);
        assert!(is_cut(&long("http-a")));
        assert!(is_cut(&long("80")));
        assert!(!is_cut(&long("dns")));
    }

    #[test]
    fn text_that_is_neither_is_an_error() {
        for text in [
            "",
            "cart",
            "10.96.0.1",
            "10.96.0.1:443/icmp",
            "a/b:",
            "/b",
            "a/b c",
        ] {
            assert!(text.parse::<Query>().is_err(), "{text}");
        }
    }
}
