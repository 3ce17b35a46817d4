//! The reasons why the daemon does not serve a Service as asked. The kernel does not know them.

use std::collections::BTreeMap;

use crate::commands::http_get::ask_daemon;
use crate::planner::explain::ServiceQuery;

/// Asks the daemon for the problems of the Services in a query. Returns none without a daemon.
pub(super) fn not_served(query: &ServiceQuery) -> BTreeMap<String, Vec<String>> {
    let runtime = crate::agent::runtime().ok();
    let answer = runtime.and_then(|runtime| runtime.block_on(ask_daemon("/debug/problems")).ok());
    let problems = answer.and_then(|body| serde_json::from_str(&body).ok());
    let mut problems: BTreeMap<String, Vec<String>> = problems.unwrap_or_default();
    problems.retain(|object, _| is_service_of(query, object));
    problems
}

/// Returns whether an object is a Service in the query: `Service shop/cart (skipped)`.
fn is_service_of(query: &ServiceQuery, object: &str) -> bool {
    let mut words = object.split_whitespace();
    words.next() == Some("Service") && words.next().is_some_and(|name| query.names(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_of_a_query_are_its_services() {
        let is = |query: &str, object| is_service_of(&query.parse().unwrap(), object);
        assert!(is("shop/cart", "Service shop/cart"));
        assert!(is("cart:http", "Service shop/cart (partly programmed)"));
        assert!(!is("shop/cart", "Service shop/cart2"));
        assert!(!is("shop/cart", "EndpointSlice shop/cart"));
    }
}
