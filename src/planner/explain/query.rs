//! The query of `explain`: a frontend, an address, or a Service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::planner::model::Protocol;
use crate::planner::ruleset::{Comment, service_and_port};

/// The query on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A frontend, as `ADDRESS:PORT[/PROTOCOL]`.
    Frontend(Target),
    /// All frontends at an address, as `ADDRESS`.
    Address(IpAddr),
    /// A Service or a port of it, as `[NAMESPACE/]NAME[:PORT]`.
    Service(ServiceQuery),
}

impl Query {
    /// Returns the address in the query.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Frontend(target) => Some(target.address),
            Self::Address(address) => Some(*address),
            Self::Service(_) => None,
        }
    }
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
    /// The namespace; `None`: any.
    pub namespace: Option<String>,
    /// The name of the Service.
    pub name: String,
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
        let (service, name) = service_and_port(comment);
        let is_service_truncated = is_truncated && !comment.contains(':');
        self.is_service(service, is_service_truncated) && port_matches(name)
    }

    /// Returns whether the query names a Service `namespace/name`.
    #[must_use]
    pub fn names(&self, service: &str) -> bool {
        self.is_service(service, false)
    }

    /// Returns whether a Service `namespace/name` matches, or the beginning of its name.
    fn is_service(&self, service: &str, is_truncated: bool) -> bool {
        let Some((namespace, name)) = service.split_once('/') else {
            return false;
        };
        let matches_namespace = self.namespace.as_deref().is_none_or(|own| own == namespace);
        let matches_name = name == self.name || (is_truncated && self.name.starts_with(name));
        matches_namespace && matches_name
    }
}

/// What a Service is given as.
const EXPECTED_SERVICE: &str = "expected [NAMESPACE/]NAME[:PORT]";

impl FromStr for ServiceQuery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port.to_owned())),
            None => (text, None),
        };
        let (namespace, name) = match service.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, service),
        };
        let is_name = |name: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            !name.is_empty() && name.bytes().all(is_allowed)
        };
        if !namespace.is_none_or(is_name) || !is_name(name) || port.as_deref() == Some("") {
            return Err(EXPECTED_SERVICE.to_owned());
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ServiceQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for Query {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "expected ADDRESS[:PORT], ADDRESS:PORT/udp, [ADDRESS]:PORT or [NAMESPACE/]NAME[:PORT]";
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
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if to.parse::<SocketAddr>().is_ok() {
            return Err(format!("{EXPECTED}; the protocols are tcp, udp and sctp"));
        }
        let query: ServiceQuery = text.parse().map_err(|_error| EXPECTED)?;
        let is_address = |name: &str| name.parse::<IpAddr>().is_ok();
        if is_address(&query.name) || query.namespace.as_deref().is_some_and(is_address) {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self::Service(query))
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
    fn addresses() {
        for text in ["10.96.0.1", "fd00::1", "[fd00::1]", "::ffff:10.96.0.1"] {
            assert!(matches!(text.parse(), Ok(Query::Address(_))), "{text}");
        }
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
        assert!(is("cart", "shop/cart:http"));
        assert!(is("cart:http", "shop/cart:http"));
        assert!(!is("shop", "shop/cart:http"));
        assert!(!is("other/cart", "shop/cart:http"));
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
            "10.96.0.1:443/icmp",
            "10.96.0.1/udp",
            "10.96.0.1:",
            "a/b:",
            "a:",
            "/b",
            "a/b c",
        ] {
            assert!(text.parse::<Query>().is_err(), "{text}");
        }
    }
}
