//! What cannot be served over HTTP now, for `/debug/problems`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use crate::planner::model::ServiceName;

/// The addresses that are in use, or whatever else keeps us from them. Shared by who listens and who reports.
#[derive(Clone, Debug, Default)]
pub(super) struct FailedListeners(Arc<Mutex<Failed>>);

#[derive(Debug, Default)]
struct Failed {
    checks: BTreeMap<ServiceName, BTreeSet<String>>,
    ports: BTreeMap<(&'static str, SocketAddr), String>,
}

impl FailedListeners {
    fn failed(&self) -> MutexGuard<'_, Failed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are all health checks of Services that are not served everywhere, with the reasons.
    pub(super) fn health_checks(&self, checks: BTreeMap<ServiceName, BTreeSet<String>>) {
        self.failed().checks = checks;
    }

    /// One of the daemon's own ports is not served, or is (`None`).
    pub(super) fn port(&self, what: &'static str, at: SocketAddr, why: Option<String>) {
        let mut failed = self.failed();
        match why {
            Some(why) => failed.ports.insert((what, at), why),
            None => failed.ports.remove(&(what, at)),
        };
    }

    /// Adds all of it to the reasons of each object.
    pub(super) fn add_to(&self, wrong: &mut Map<String, Value>) {
        let failed = self.failed();
        let ports = failed.ports.iter();
        let ports = ports.map(|((what, at), why)| (format!("{what} at {at}"), vec![why.clone()]));
        let checks = failed.checks.iter().map(|(service, reasons)| {
            let reasons = reasons.iter().cloned().collect();
            (format!("Service {service}"), reasons)
        });
        for (object, reasons) in ports.chain(checks) {
            let all = wrong
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
    fn what_fails_is_added_to_what_else_is_wrong_with_an_object() {
        let failed = FailedListeners::default();
        let (cart, web) = (
            ServiceName::new("shop", "cart"),
            ServiceName::new("shop", "web"),
        );
        let reasons = |reason: &str| BTreeSet::from([reason.to_owned()]);
        failed.health_checks([(cart, reasons("in use")), (web, reasons("no memory"))].into());
        let at = SocketAddr::from(([0, 0, 0, 0], 10_256));
        failed.port("health", at, Some("in use".to_owned()));
        let before = json!({"Service shop/cart": ["it has no address"]});
        let added = || {
            let mut wrong = before.as_object().cloned().unwrap_or_default();
            failed.add_to(&mut wrong);
            Value::Object(wrong)
        };
        let expected = json!({
            "Service shop/cart": ["it has no address", "in use"],
            "Service shop/web": ["no memory"],
            "health at 0.0.0.0:10256": ["in use"],
        });
        assert_eq!(added(), expected);
        failed.health_checks(BTreeMap::new());
        failed.port("health", at, None);
        assert_eq!(added(), before);
    }
}
