//! What was said of which object, so that it is said once.

use std::collections::BTreeMap;
use std::fmt;

use tracing::warn;

use crate::events::{Reason, Remark};
use crate::model::{ObjectKey, ServiceName};

/// Something that an operator must hear about one object, once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// Of what.
    pub subject: Subject,
    /// Of which sort.
    pub sort: Reason,
    /// What is wrong.
    pub reason: String,
}

/// What is complained of. What an object says and how it is served are apart: that one is mended
/// says nothing of the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// What an object says.
    Text(ObjectKey),
    /// How a Service is served.
    Served(ServiceName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(object) => object.fmt(f),
            Self::Served(service) => write!(f, "Service {service} as served"),
        }
    }
}

impl Complaint {
    /// Says it in the log.
    pub fn log(&self) {
        let object = self.subject.to_string();
        warn!(object, reason = self.reason, "not served as asked");
    }

    /// The same for users.
    #[must_use]
    pub fn remark(self) -> Remark {
        let object = match self.subject {
            Subject::Text(object) => object,
            Subject::Served(service) => ObjectKey::service(&service),
        };
        Remark {
            object,
            reason: self.sort,
            note: format!("not served as asked: {}", self.reason),
        }
    }
}

/// What is wrong, each with its sort.
pub(super) type Reasons = BTreeMap<String, Reason>;

/// Adds what is wrong as it is said.
pub(super) fn worded<'a, R>(wrong: impl IntoIterator<Item = &'a R>) -> Reasons
where
    R: fmt::Display + 'a,
    Reason: From<&'a R>,
{
    let wrong = wrong.into_iter();
    wrong
        .map(|wrong| (wrong.to_string(), Reason::from(wrong)))
        .collect()
}

/// What is wrong now with each object, as last said.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: BTreeMap<Subject, Reasons>,
}

impl Complaints {
    /// Takes in all that is wrong with `subject` now; returns what was not said before.
    pub(super) fn now(&mut self, subject: Subject, reasons: Reasons) -> Vec<Complaint> {
        if reasons.is_empty() {
            self.said.remove(&subject);
            return Vec::new();
        }
        let before = self.said.get(&subject);
        let is_new = |reason: &String| before.is_none_or(|before| !before.contains_key(reason));
        let new = reasons.iter().filter(|(reason, _)| is_new(reason));
        let complaints = new.map(|(reason, sort)| Complaint {
            subject: subject.clone(),
            sort: *sort,
            reason: reason.clone(),
        });
        let complaints = complaints.collect();
        self.said.insert(subject, reasons);
        complaints
    }

    /// All that is wrong.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Subject, &Reasons)> {
        self.said.iter()
    }

    /// Takes in that `subject` is gone.
    pub(super) fn forget(&mut self, subject: &Subject) {
        self.said.remove(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(complaints: Vec<Complaint>) -> Vec<String> {
        complaints
            .into_iter()
            .map(|complaint| complaint.reason)
            .collect()
    }

    #[test]
    fn a_thing_is_said_once_until_it_is_mended() {
        let mut complaints = Complaints::default();
        let mut now = |list: &[&str]| {
            let list = list.iter().map(ToString::to_string);
            let list = list.map(|reason| (reason, Reason::InvalidObject)).collect();
            let subject = Subject::Served(ServiceName::new("shop", "cart"));
            reasons(complaints.now(subject, list))
        };
        assert_eq!(now(&["port"]), ["port"]);
        assert_eq!(now(&["port"]), [""; 0]);
        assert_eq!(now(&["port", "address"]), ["address"]);
        assert_eq!(now(&[]), [""; 0]);
        assert_eq!(now(&["port"]), ["port"]);
    }
}
