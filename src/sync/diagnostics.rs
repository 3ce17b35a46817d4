//! Diagnostics: the problems of each object, each reported once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use tracing::warn;

use crate::events::{EventReason, NewEvent};
use crate::logging::LogEvent;
use crate::planner::model::{ObjectKey, ObjectKind, ServiceName};

/// A diagnostic is a problem of one object that an operator must see once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The subject that has the problem.
    pub subject: DiagnosticSubject,
    /// The reason of the Event.
    pub reason: EventReason,
    /// The problem in words.
    pub problem: String,
}

/// The subject of a diagnostic.
///
/// An object has several subjects, since its problems are fixed independently of each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiagnosticSubject {
    /// The content of an object.
    Object(ObjectKey),
    /// A Service, of which the planner programs only a part.
    Service(ServiceName),
    /// A Service that is skipped, since the kernel rejected an operation of it.
    Skipped(ServiceName),
    /// The Node object of this node.
    Node(Arc<str>),
}

impl fmt::Display for DiagnosticSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => object.fmt(f),
            Self::Service(service) => write!(f, "Service {service} (partly programmed)"),
            Self::Skipped(service) => write!(f, "Service {service} (skipped)"),
            Self::Node(name) => write!(f, "Node {name}"),
        }
    }
}

impl Diagnostic {
    /// Logs the diagnostic with the object, the reason and the note of its Event.
    pub fn log(&self) {
        let ObjectKey { kind, name } = self.object();
        let object = format!("{kind} {name}");
        let (reason, note) = (self.reason.name(), &self.problem);
        match self.subject {
            DiagnosticSubject::Skipped(_) => warn!(
                event = %LogEvent::ServiceSkipped,
                object, %reason, note, "Service skipped"
            ),
            DiagnosticSubject::Node(_) => warn!(
                event = %LogEvent::NodeUnknown,
                object, %reason, note, "no Node object has the name of this node"
            ),
            DiagnosticSubject::Object(_) | DiagnosticSubject::Service(_) => warn!(
                event = %LogEvent::ObjectPartlyProgrammed,
                object, %reason, note, "{kind} only partly programmed"
            ),
        }
    }

    fn note(&self) -> String {
        match self.subject {
            DiagnosticSubject::Skipped(_) => format!("skipped: {}", self.problem),
            DiagnosticSubject::Node(_) => self.problem.clone(),
            DiagnosticSubject::Object(_) | DiagnosticSubject::Service(_) => {
                format!("only partly programmed: {}", self.problem)
            }
        }
    }

    fn object(&self) -> ObjectKey {
        match &self.subject {
            DiagnosticSubject::Object(object) => object.clone(),
            DiagnosticSubject::Service(service) | DiagnosticSubject::Skipped(service) => {
                ObjectKey::service(service)
            }
            DiagnosticSubject::Node(name) => ObjectKey {
                kind: ObjectKind::Node,
                name: Arc::clone(name),
            },
        }
    }

    /// Converts the diagnostic into the Event that users see.
    #[must_use]
    pub fn event(self) -> NewEvent {
        NewEvent {
            object: self.object(),
            reason: self.reason,
            note: self.note(),
        }
    }
}

/// The problems of one subject, each with the reason of its Event.
pub(super) type ObjectProblems = BTreeMap<String, EventReason>;

/// Returns problems with their wording and the reason of their Events.
pub(super) fn worded<'a, P>(problems: impl IntoIterator<Item = &'a P>) -> ObjectProblems
where
    P: fmt::Display + 'a,
    EventReason: From<&'a P>,
{
    problems
        .into_iter()
        .map(|problem| (problem.to_string(), EventReason::from(problem)))
        .collect()
}

fn reasons(problems: &ObjectProblems) -> BTreeSet<EventReason> {
    problems.values().copied().collect()
}

/// The current problems of each subject, as they were reported.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    problems: BTreeMap<DiagnosticSubject, ObjectProblems>,
    /// The number of subjects with a problem, by reason.
    objects: BTreeMap<EventReason, usize>,
}

/// The outcome of a removal from [`Diagnostics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// The subject had problems before.
    HadProblems,
    /// The subject had no problem.
    HadNone,
}

impl Diagnostics {
    /// Replaces the problems of a subject; returns a diagnostic of each new one.
    pub(super) fn replace(
        &mut self,
        subject: DiagnosticSubject,
        problems: ObjectProblems,
    ) -> Vec<Diagnostic> {
        if problems.is_empty() {
            self.resolve(&subject);
            return Vec::new();
        }
        let before = self.problems.get(&subject);
        let is_new = |problem: &String| before.is_none_or(|before| !before.contains_key(problem));
        let diagnostics = problems
            .iter()
            .filter(|(problem, _)| is_new(problem))
            .map(|(problem, reason)| Diagnostic {
                subject: subject.clone(),
                reason: *reason,
                problem: problem.clone(),
            })
            .collect();
        for reason in reasons(&problems) {
            *self.objects.entry(reason).or_insert(0) += 1;
        }
        if let Some(before) = self.problems.insert(subject, problems) {
            self.uncount(&before);
        }
        diagnostics
    }

    /// Whether a subject has a problem.
    pub(super) fn has(&self, subject: &DiagnosticSubject) -> bool {
        self.problems.contains_key(subject)
    }

    /// Returns the problems of every subject that has any.
    pub(super) fn all(&self) -> impl Iterator<Item = (&DiagnosticSubject, &ObjectProblems)> {
        self.problems.iter()
    }

    /// Removes the problems of a subject that is deleted or fixed.
    pub(super) fn resolve(&mut self, subject: &DiagnosticSubject) -> Resolved {
        match self.problems.remove(subject) {
            Some(before) => {
                self.uncount(&before);
                Resolved::HadProblems
            }
            None => Resolved::HadNone,
        }
    }

    fn uncount(&mut self, problems: &ObjectProblems) {
        for reason in reasons(problems) {
            if let Some(count) = self.objects.get_mut(&reason) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Returns the number of subjects with a problem, by each reason that occurred.
    pub(super) fn objects(&self) -> &BTreeMap<EventReason, usize> {
        &self.objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(diagnostics: Vec<Diagnostic>) -> Vec<String> {
        diagnostics
            .into_iter()
            .map(|diagnostic| diagnostic.problem)
            .collect()
    }

    #[test]
    fn a_problem_is_reported_once_until_it_is_fixed() {
        let mut diagnostics = Diagnostics::default();
        let mut replace = |list: &[&str]| {
            let list = list
                .iter()
                .map(|problem| ((*problem).to_owned(), EventReason::InvalidObject))
                .collect();
            let subject = DiagnosticSubject::Service(ServiceName::new("shop", "cart"));
            problems(diagnostics.replace(subject, list))
        };
        assert_eq!(replace(&["port"]), ["port"]);
        assert_eq!(replace(&["port"]), [""; 0]);
        assert_eq!(replace(&["port", "address"]), ["address"]);
        assert_eq!(replace(&[]), [""; 0]);
        assert_eq!(replace(&["port"]), ["port"]);
    }

    #[test]
    fn an_object_counts_once_for_each_reason_until_it_is_fixed() {
        let mut diagnostics = Diagnostics::default();
        let subject = || DiagnosticSubject::Service(ServiceName::new("shop", "cart"));
        let mut replace = |list: &[(&str, EventReason)]| {
            let list = list
                .iter()
                .map(|(problem, reason)| ((*problem).to_owned(), *reason));
            diagnostics.replace(subject(), list.collect());
            diagnostics.objects().clone()
        };
        let (conflict, endpoint) = (EventReason::FrontendConflict, EventReason::InvalidEndpoint);
        let two = [
            ("port", conflict),
            ("address", conflict),
            ("endpoint", endpoint),
        ];
        assert_eq!(replace(&two), [(conflict, 1), (endpoint, 1)].into());
        assert_eq!(replace(&two[1..2]), [(conflict, 1), (endpoint, 0)].into());
        assert_eq!(replace(&[]), [(conflict, 0), (endpoint, 0)].into());
    }
}
