//! What cannot be served over HTTP now, for `/debug/problems`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use crate::planner::model::ServiceName;
use crate::relay::RelayProblems;

/// The failed listeners with their errors, shared by the servers and `/debug/problems`.
#[derive(Clone, Debug, Default)]
pub(super) struct FailedListeners {
    /// Those of HTTP.
    http: Arc<Mutex<Failed>>,
    /// Those of node ports at localhost.
    relay: RelayProblems,
}

/// The failed listeners of health checks and of the daemon's own ports.
#[derive(Debug, Default)]
struct Failed {
    /// The errors of the health checks of each Service.
    checks: BTreeMap<ServiceName, BTreeSet<String>>,
    /// The error of each own port, by its endpoints and address.
    ports: BTreeMap<(&'static str, SocketAddr), String>,
}

impl FailedListeners {
    /// Creates the failed listeners with those of the relay.
    pub(super) fn new(relay: RelayProblems) -> Self {
        Self {
            http: Arc::default(),
            relay,
        }
    }

    /// Locks the state.
    fn failed(&self) -> MutexGuard<'_, Failed> {
        self.http.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the health checks that are not served at all their addresses, with the errors.
    pub(super) fn set_health_checks(&self, checks: BTreeMap<ServiceName, BTreeSet<String>>) {
        self.failed().checks = checks;
    }

    /// Sets or clears the error of one of the daemon's own ports.
    pub(super) fn set_port(&self, what: &'static str, at: SocketAddr, error: Option<String>) {
        let mut failed = self.failed();
        match error {
            Some(error) => failed.ports.insert((what, at), error),
            None => failed.ports.remove(&(what, at)),
        };
    }

    /// Adds the errors to the problems of each object.
    pub(super) fn add_to(&self, problems: &mut Map<String, Value>) {
        let failed = self.failed();
        let ports = failed
            .ports
            .iter()
            .map(|((what, at), error)| (format!("{what} at {at}"), vec![error.clone()]));
        let checks = failed.checks.iter().map(|(service, reasons)| {
            let reasons = reasons.iter().cloned().collect();
            (format!("Service {service}"), reasons)
        });
        let relayed = self.relay.list().into_iter();
        let relayed = relayed.map(|(service, reasons)| (format!("Service {service}"), reasons));
        for (object, reasons) in ports.chain(checks).chain(relayed) {
            let all = problems
                .entry(object)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(all) = all {
                all.extend(reasons.into_iter().map(Value::String));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn failed_listeners_are_added_to_the_other_problems_of_an_object() {
        let failed = FailedListeners::default();
        let (cart, web) = (
            ServiceName::new("shop", "cart"),
            ServiceName::new("shop", "web"),
        );
        let reasons = |reason: &str| BTreeSet::from([reason.to_owned()]);
        failed.set_health_checks([(cart, reasons("in use")), (web, reasons("no memory"))].into());
        let at = SocketAddr::from(([0, 0, 0, 0], 10_256));
        failed.set_port("health", at, Some("in use".to_owned()));
        let before = json!({"Service shop/cart": ["it has no address"]});
        let added = || {
            let mut problems = before.as_object().cloned().unwrap_or_default();
            failed.add_to(&mut problems);
            Value::Object(problems)
        };
        let expected = json!({
            "Service shop/cart": ["it has no address", "in use"],
            "Service shop/web": ["no memory"],
            "health at 0.0.0.0:10256": ["in use"],
        });
        assert_eq!(added(), expected);
        failed.set_health_checks(BTreeMap::new());
        failed.set_port("health", at, None);
        assert_eq!(added(), before);
    }
}
