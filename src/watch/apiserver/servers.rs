//! The API servers of a cluster, in the order of their health.

use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

/// The back-off of a server after its first failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The longest back-off of a server.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The time after which a failure does not count any more, so that a server that recovered gets its
/// share of the nodes again.
const MEMORY: Duration = Duration::from_mins(5);

/// The servers of one cluster, any of which can answer a request.
#[derive(Debug)]
pub(super) struct ServerList(Vec<Server>);

/// A server and its consecutive failures.
#[derive(Debug)]
struct Server {
    /// The address, `https://host:port` with an optional path.
    url: Uri,
    /// The number of consecutive failures, and the time of the last one.
    failed: Option<(u32, Instant)>,
    /// Whether the server has granted a request since its last failure.
    has_granted: bool,
}

impl Server {
    /// Returns the number of failures that still count.
    fn failures(&self, now: Instant) -> u32 {
        self.failed
            .filter(|(_, at)| now - *at < MEMORY)
            .map_or(0, |(failures, _)| failures)
    }

    /// Returns the end of the back-off if that is in the future.
    fn backs_off_until(&self, now: Instant) -> Option<Instant> {
        let (failures, at) = self.failed?;
        let doublings = failures.saturating_sub(1).min(16);
        let until = at + (FIRST_BACKOFF * 2_u32.pow(doublings)).min(LONGEST_BACKOFF);
        (until > now).then_some(until)
    }
}

impl ServerList {
    /// Creates a list of servers without failures. Of equally healthy servers the first is the best.
    pub(super) fn new(urls: Vec<Uri>) -> Self {
        let server = |url| Server {
            url,
            failed: None,
            has_granted: false,
        };
        Self(urls.into_iter().map(server).collect())
    }

    /// Replaces the servers; those that stay keep their failures.
    pub(super) fn replace(&mut self, urls: Vec<Uri>) {
        let mut new = Self::new(urls);
        for server in &mut new.0 {
            let known = self.0.iter().find(|known| known.url == server.url);
            server.failed = known.and_then(|known| known.failed);
            server.has_granted = known.is_some_and(|known| known.has_granted);
        }
        *self = new;
    }

    /// Returns whether a server is in the list.
    pub(super) fn contains(&self, url: &Uri) -> bool {
        self.0.iter().any(|server| server.url == *url)
    }

    /// Returns the servers, the healthiest first: those that do not back off by their number of
    /// failures, and then the others by the end of their back-off.
    pub(super) fn by_health(&self, now: Instant) -> Vec<Uri> {
        let mut servers: Vec<&Server> = self.0.iter().collect();
        servers.sort_by_key(|server| (server.backs_off_until(now), server.failures(now)));
        servers
            .into_iter()
            .map(|server| server.url.clone())
            .collect()
    }

    /// Returns whether a better server than `url` does not back off while `url` does.
    pub(super) fn has_better(&self, url: &Uri, now: Instant) -> bool {
        let backs_off = |server: &Server| server.backs_off_until(now).is_some();
        let this_one = self.0.iter().find(|server| server.url == *url);
        this_one.is_none_or(backs_off) && !self.0.iter().all(backs_off)
    }

    /// Records a failure of a server.
    pub(super) fn failed(&mut self, url: &Uri, now: Instant) {
        for server in self.0.iter_mut().filter(|server| server.url == *url) {
            server.failed = Some((server.failures(now) + 1, now));
            server.has_granted = false;
        }
    }

    /// Records that a server forbids a request. That is a failure of a server that has not granted
    /// any since it failed: for a moment after its start it has not loaded its RBAC rules. The others
    /// would forbid the request, too.
    pub(super) fn forbade(&mut self, url: &Uri, now: Instant) {
        let granted = |server: &Server| server.url == *url && server.has_granted;
        if !self.0.iter().any(granted) {
            self.failed(url, now);
        }
    }

    /// Records a success of a server.
    pub(super) fn succeeded(&mut self, url: &Uri) {
        for server in self.0.iter_mut().filter(|server| server.url == *url) {
            server.failed = None;
            server.has_granted = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(name: &str) -> Uri {
        format!("https://{name}:6443").parse().unwrap()
    }

    fn order(list: &ServerList, now: Instant) -> String {
        let hosts = list.by_health(now);
        hosts.iter().map(|url| url.host().unwrap()).collect()
    }

    fn list() -> ServerList {
        ServerList::new(vec![uri("a"), uri("b"), uri("c")])
    }

    #[test]
    fn healthy_servers_are_in_their_order() {
        assert_eq!(order(&list(), Instant::now()), "abc");
    }

    #[test]
    fn a_server_that_fails_is_last_and_then_after_the_healthy_ones() {
        let now = Instant::now();
        let mut list = list();
        list.failed(&uri("a"), now);
        assert_eq!(order(&list, now), "bca");
        list.failed(&uri("b"), now);
        list.failed(&uri("b"), now);
        assert_eq!(order(&list, now), "cab");
        list.failed(&uri("c"), now);
        assert_eq!(order(&list, now), "acb");
        assert_eq!(order(&list, now + Duration::from_secs(10)), "acb");
        list.succeeded(&uri("c"));
        assert_eq!(order(&list, now + Duration::from_secs(10)), "cab");
    }

    #[test]
    fn old_failures_do_not_count() {
        let now = Instant::now();
        let mut list = list();
        list.failed(&uri("a"), now);
        assert_eq!(order(&list, now + MEMORY), "abc");
    }

    #[test]
    fn the_back_off_doubles_up_to_its_limit() {
        let now = Instant::now();
        let mut server = Server {
            url: uri("a"),
            failed: None,
            has_granted: false,
        };
        for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (u32::MAX, 30)] {
            server.failed = Some((failures, now));
            let until = server.backs_off_until(now).unwrap();
            assert_eq!(until - now, Duration::from_secs(seconds), "{failures}");
            assert_eq!(server.backs_off_until(until), None);
        }
    }

    #[test]
    fn another_server_is_better_only_while_this_one_backs_off() {
        let now = Instant::now();
        let mut list = list();
        assert!(!list.has_better(&uri("c"), now));
        list.failed(&uri("c"), now);
        assert!(list.has_better(&uri("c"), now));
        assert!(!list.has_better(&uri("c"), now + FIRST_BACKOFF));
        list.failed(&uri("a"), now);
        list.failed(&uri("b"), now);
        assert!(!list.has_better(&uri("c"), now));
    }

    #[test]
    fn a_forbidden_request_is_a_failure_only_of_a_server_that_granted_none() {
        let now = Instant::now();
        let mut list = list();
        list.forbade(&uri("a"), now);
        assert_eq!(order(&list, now), "bca");
        list.succeeded(&uri("a"));
        list.forbade(&uri("a"), now);
        assert_eq!(order(&list, now), "abc");
        list.failed(&uri("a"), now);
        list.forbade(&uri("a"), now);
        assert_eq!(order(&list, now + Duration::from_secs(1)), "bca");
    }

    #[test]
    fn replaced_servers_keep_their_failures() {
        let now = Instant::now();
        let mut list = list();
        list.failed(&uri("b"), now);
        list.replace(vec![uri("b"), uri("d")]);
        assert_eq!(order(&list, now), "db");
        assert!(!list.contains(&uri("a")));
        assert!(list.has_better(&uri("a"), now));
    }
}
