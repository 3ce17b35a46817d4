//! The name of a Service's port beside an element: `namespace/name:port-name`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::planner::model::{Protocol, ServiceName};

/// nft prints and loads comments of at most 128 bytes (`NFTNL_UDATA_COMMENT_MAXLEN`).
const LONGEST: usize = 128;

/// Ends the text of a comment whose rest is not known. No name has it.
const CUT: char = '…';

/// What an operator reads beside an element: `namespace/name:port-name`. An nft comment holds the
/// first 128 bytes; an element carries the rest beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comment(Arc<str>);

impl Comment {
    /// Of this port of a Service; ports without a name go by that of the Service.
    #[must_use]
    pub fn new(service: &ServiceName, port: &str) -> Self {
        let text = match port {
            "" => service.to_string(),
            port => format!("{service}:{port}"),
        };
        Self(text.into())
    }

    /// As an element carries it: the nft comment, and what follows it if that is full.
    #[must_use]
    pub fn parts(&self) -> (&str, Option<&str>) {
        if self.is_cut() {
            return (self.known(), None);
        }
        // Names are ASCII.
        match self.0.split_at_checked(LONGEST) {
            Some((comment, rest)) => (comment, Some(rest)),
            None => (&self.0, None),
        }
    }

    /// From what an element carries. Elements that nft loaded have no rest.
    #[must_use]
    pub fn from_parts(comment: &str, rest: Option<&str>) -> Self {
        let text = match rest {
            Some(rest) => format!("{comment}{rest}"),
            None if comment.len() >= LONGEST => format!("{comment}{CUT}"),
            None => comment.to_owned(),
        };
        Self(text.into())
    }

    /// Whether its end is not known.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.ends_with(CUT)
    }

    /// The part that is known.
    #[must_use]
    pub fn known(&self) -> &str {
        self.0.strip_suffix(CUT).unwrap_or(&self.0)
    }

    /// A name that ports share only if they are one: where it is cut, its protocol and number say
    /// which it is.
    #[must_use]
    pub fn distinct(&self, protocol: Protocol, port: u16) -> String {
        if self.is_cut() {
            format!("{self} {port}/{protocol}")
        } else {
            self.to_string()
        }
    }
}

impl From<&str> for Comment {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl Deref for Comment {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// The Service, `namespace/name`, and the name of its port (empty if it has none) that a comment
/// names.
#[must_use]
pub fn service_and_port(comment: &str) -> (&str, &str) {
    comment.split_once(':').unwrap_or((comment, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_is_whole_in_two_parts() {
        let service = ServiceName::new(&"n".repeat(63), &"s".repeat(63));
        for port in ["", "h", "http-a", &"p".repeat(63)] {
            let comment = Comment::new(&service, port);
            let (first, rest) = comment.parts();
            assert!(first.len() <= LONGEST);
            assert_eq!(Comment::from_parts(first, rest), comment);
            assert!(!comment.is_cut());
            assert_eq!(comment.distinct(Protocol::Tcp, 80), *comment);
        }
    }

    #[test]
    fn ports_of_a_cut_name_are_told_apart_by_number() {
        let cut = Comment::from_parts(&"n".repeat(LONGEST), None);
        assert!(cut.is_cut());
        assert_eq!(cut.parts(), (&*"n".repeat(LONGEST), None));
        let name = cut.distinct(Protocol::Udp, 53);
        assert_eq!(name, format!("{}… 53/udp", "n".repeat(LONGEST)));
        assert_ne!(name, cut.distinct(Protocol::Tcp, 53));
    }
}
