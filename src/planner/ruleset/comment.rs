//! The comment of an element: the Service port that it belongs to.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::FrontendLabel;
use crate::planner::model::{Protocol, ServiceName};

/// The maximum length of an nft comment in bytes (`NFTNL_UDATA_COMMENT_MAXLEN`).
const MAX_LEN: usize = 128;

/// The last character of a truncated comment; no Kubernetes name contains it.
const ELLIPSIS: char = '…';

/// The Service port of an element, as `namespace/name:port-name`.
///
/// The nft comment has the first 128 bytes. kube-dnat stores the rest in a separate attribute of
/// the element, and there the label of a frontend, too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comment {
    /// The whole name, or the part of it that is known.
    name: Arc<str>,
    /// The kind and policy of the frontend, if the element has them.
    label: Option<FrontendLabel>,
}

impl Comment {
    /// Returns the comment of a Service port; a port without a name has the Service's name.
    #[must_use]
    pub fn new(service: &ServiceName, port: &str) -> Self {
        let text = match port {
            "" => service.to_string(),
            port => format!("{service}:{port}"),
        };
        Self::from(&*text)
    }

    /// Returns the comment with a label, which its text does not show.
    #[must_use]
    pub fn labelled(self, label: Option<FrontendLabel>) -> Self {
        Self { label, ..self }
    }

    /// Returns the label of the frontend; `None` if the element has none.
    #[must_use]
    pub fn label(&self) -> Option<FrontendLabel> {
        self.label
    }

    /// Splits the text into the nft comment and the rest that does not fit it.
    #[must_use]
    pub fn parts(&self) -> (&str, Option<&str>) {
        if self.is_truncated() {
            return (self.untruncated(), None);
        }
        // Kubernetes names are ASCII.
        match self.name.split_at_checked(MAX_LEN) {
            Some((comment, rest)) => (comment, Some(rest)),
            None => (&self.name, None),
        }
    }

    /// Joins the two parts of an element; an element that nft has loaded has no rest.
    #[must_use]
    pub fn from_parts(comment: &str, rest: Option<&str>) -> Self {
        let text = match rest {
            Some(rest) => format!("{comment}{rest}"),
            None if comment.len() >= MAX_LEN => format!("{comment}{ELLIPSIS}"),
            None => comment.to_owned(),
        };
        Self::from(&*text)
    }

    /// Returns whether the text is truncated.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.name.ends_with(ELLIPSIS)
    }

    /// Returns the text without the mark of truncation.
    #[must_use]
    pub fn untruncated(&self) -> &str {
        self.name.strip_suffix(ELLIPSIS).unwrap_or(&self.name)
    }

    /// Returns a name that is unique to the Service port, also if the text is truncated.
    ///
    /// A truncated name ends with the port and protocol.
    #[must_use]
    pub fn distinct(&self, protocol: Protocol, port: u16) -> String {
        if self.is_truncated() {
            format!("{self} {port}/{protocol}")
        } else {
            self.to_string()
        }
    }
}

impl From<&str> for Comment {
    fn from(name: &str) -> Self {
        Self {
            name: name.into(),
            label: None,
        }
    }
}

impl Deref for Comment {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Splits the text of a comment into `namespace/name` and the port's name, which may be empty.
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
            assert!(first.len() <= MAX_LEN);
            assert_eq!(Comment::from_parts(first, rest), comment);
            assert!(!comment.is_truncated());
            assert_eq!(comment.distinct(Protocol::Tcp, 80), *comment);
        }
    }

    #[test]
    fn ports_with_a_truncated_name_are_distinct_by_number() {
        let truncated = Comment::from_parts(&"n".repeat(MAX_LEN), None);
        assert!(truncated.is_truncated());
        assert_eq!(truncated.parts(), (&*"n".repeat(MAX_LEN), None));
        let name = truncated.distinct(Protocol::Udp, 53);
        assert_eq!(name, format!("{}… 53/udp", "n".repeat(MAX_LEN)));
        assert_ne!(name, truncated.distinct(Protocol::Tcp, 53));
    }
}
