//! What was said of which object, so that it is said once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use tracing::warn;

use crate::events::{EventReason, NewEvent};
use crate::logging::LogEvent;
use crate::planner::model::{ObjectKey, ObjectKind, ServiceName};

/// Something that an operator must hear about one object, once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Of what.
    pub subject: DiagnosticSubject,
    /// Of which sort.
    pub sort: EventReason,
    /// What is wrong.
    pub reason: String,
}

/// What is complained of. What an object says and how it is served are apart: that one is mended
/// says nothing of the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiagnosticSubject {
    /// What an object says.
    Text(ObjectKey),
    /// How a Service is served.
    Served(ServiceName),
    /// What the kernel says of a Service.
    Programmed(ServiceName),
    /// Whether anything is known of our Node.
    Node(Arc<str>),
}

impl fmt::Display for DiagnosticSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(object) => object.fmt(f),
            Self::Served(service) => write!(f, "Service {service} as served"),
            Self::Programmed(service) => write!(f, "Service {service} in the kernel"),
            Self::Node(name) => write!(f, "Node {name}"),
        }
    }
}

impl Diagnostic {
    /// Logs the diagnostic with the object, the reason and the note of its Event.
    pub fn log(&self) {
        let ObjectKey { kind, name } = self.object();
        let object = format!("{kind} {name}");
        let (reason, note) = (self.sort.name(), &self.reason);
        match self.subject {
            DiagnosticSubject::Programmed(_) => warn!(
                event = %LogEvent::ServiceSkipped,
                object, %reason, note, "Service skipped"
            ),
            DiagnosticSubject::Node(_) => warn!(
                event = %LogEvent::NodeUnknown,
                object, %reason, note, "no Node object has the name of this node"
            ),
            DiagnosticSubject::Text(_) | DiagnosticSubject::Served(_) => warn!(
                event = %LogEvent::ObjectPartlyProgrammed,
                object, %reason, note, "{kind} only partly programmed"
            ),
        }
    }

    fn note(&self) -> String {
        match self.subject {
            DiagnosticSubject::Programmed(_) => format!("skipped: {}", self.reason),
            DiagnosticSubject::Node(_) => self.reason.clone(),
            DiagnosticSubject::Text(_) | DiagnosticSubject::Served(_) => {
                format!("only partly programmed: {}", self.reason)
            }
        }
    }

    fn object(&self) -> ObjectKey {
        match &self.subject {
            DiagnosticSubject::Text(object) => object.clone(),
            DiagnosticSubject::Served(service) | DiagnosticSubject::Programmed(service) => {
                ObjectKey::service(service)
            }
            DiagnosticSubject::Node(name) => ObjectKey {
                kind: ObjectKind::Node,
                name: Arc::clone(name),
            },
        }
    }

    /// Turns the diagnostic into the Event that users see.
    #[must_use]
    pub fn event(self) -> NewEvent {
        NewEvent {
            object: self.object(),
            reason: self.sort,
            note: self.note(),
        }
    }
}

/// What is wrong, each with its sort.
pub(super) type DiagnosticReasons = BTreeMap<String, EventReason>;

/// Adds what is wrong as it is said.
pub(super) fn worded<'a, R>(wrong: impl IntoIterator<Item = &'a R>) -> DiagnosticReasons
where
    R: fmt::Display + 'a,
    EventReason: From<&'a R>,
{
    let wrong = wrong.into_iter();
    wrong
        .map(|wrong| (wrong.to_string(), EventReason::from(wrong)))
        .collect()
}

fn sorts(reasons: &DiagnosticReasons) -> BTreeSet<EventReason> {
    reasons.values().copied().collect()
}

/// What is wrong now with each object, as last said.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    said: BTreeMap<DiagnosticSubject, DiagnosticReasons>,
    /// How many objects there are with something wrong of each sort.
    objects: BTreeMap<EventReason, usize>,
}

impl Diagnostics {
    /// Takes in all that is wrong with `subject` now; returns what was not said before.
    pub(super) fn now(
        &mut self,
        subject: DiagnosticSubject,
        reasons: DiagnosticReasons,
    ) -> Vec<Diagnostic> {
        if reasons.is_empty() {
            self.forget(&subject);
            return Vec::new();
        }
        let before = self.said.get(&subject);
        let is_new = |reason: &String| before.is_none_or(|before| !before.contains_key(reason));
        let new = reasons.iter().filter(|(reason, _)| is_new(reason));
        let diagnostics = new.map(|(reason, sort)| Diagnostic {
            subject: subject.clone(),
            sort: *sort,
            reason: reason.clone(),
        });
        let diagnostics = diagnostics.collect();
        for sort in sorts(&reasons) {
            *self.objects.entry(sort).or_insert(0) += 1;
        }
        if let Some(before) = self.said.insert(subject, reasons) {
            self.uncount(&before);
        }
        diagnostics
    }

    /// Whether anything is wrong with `subject`.
    pub(super) fn has(&self, subject: &DiagnosticSubject) -> bool {
        self.said.contains_key(subject)
    }

    /// All that is wrong.
    pub(super) fn all(&self) -> impl Iterator<Item = (&DiagnosticSubject, &DiagnosticReasons)> {
        self.said.iter()
    }

    /// Takes in that `subject` is gone, or nothing is wrong with it any more. `false` if nothing was.
    pub(super) fn forget(&mut self, subject: &DiagnosticSubject) -> bool {
        let before = self.said.remove(subject);
        if let Some(before) = &before {
            self.uncount(before);
        }
        before.is_some()
    }

    fn uncount(&mut self, reasons: &DiagnosticReasons) {
        for sort in sorts(reasons) {
            if let Some(count) = self.objects.get_mut(&sort) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// How many objects there are with something wrong of each sort that there is or was.
    pub(super) fn objects(&self) -> &BTreeMap<EventReason, usize> {
        &self.objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(diagnostics: Vec<Diagnostic>) -> Vec<String> {
        diagnostics
            .into_iter()
            .map(|diagnostic| diagnostic.reason)
            .collect()
    }

    #[test]
    fn a_thing_is_said_once_until_it_is_mended() {
        let mut diagnostics = Diagnostics::default();
        let mut now = |list: &[&str]| {
            let list = list.iter().map(ToString::to_string);
            let list = list
                .map(|reason| (reason, EventReason::InvalidObject))
                .collect();
            let subject = DiagnosticSubject::Served(ServiceName::new("shop", "cart"));
            reasons(diagnostics.now(subject, list))
        };
        assert_eq!(now(&["port"]), ["port"]);
        assert_eq!(now(&["port"]), [""; 0]);
        assert_eq!(now(&["port", "address"]), ["address"]);
        assert_eq!(now(&[]), [""; 0]);
        assert_eq!(now(&["port"]), ["port"]);
    }

    #[test]
    fn an_object_counts_once_for_each_sort_until_it_is_mended() {
        let mut diagnostics = Diagnostics::default();
        let subject = || DiagnosticSubject::Served(ServiceName::new("shop", "cart"));
        let mut now = |list: &[(&str, EventReason)]| {
            let list = list
                .iter()
                .map(|(reason, sort)| ((*reason).to_owned(), *sort));
            diagnostics.now(subject(), list.collect());
            diagnostics.objects().clone()
        };
        let (conflict, endpoint) = (EventReason::FrontendConflict, EventReason::InvalidEndpoint);
        let two = [
            ("port", conflict),
            ("address", conflict),
            ("endpoint", endpoint),
        ];
        assert_eq!(now(&two), [(conflict, 1), (endpoint, 1)].into());
        assert_eq!(now(&two[1..2]), [(conflict, 1), (endpoint, 0)].into());
        assert_eq!(now(&[]), [(conflict, 0), (endpoint, 0)].into());
    }
}
