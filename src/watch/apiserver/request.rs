//! The requests of a kind: a list as a stream or in pages, and a watch.

use std::time::Duration;

use form_urlencoded::Serializer;
use http::{HeaderValue, Request, header};
use kube::client::Body;

use super::content;
use super::kinds::Watched;
use super::version::ResourceVersion;
use crate::config::AcceptedTypes;

/// The version from which a list is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListStart {
    /// Whatever the API server has in its cache, which costs etcd nothing.
    Cached,
    /// This version or a newer one.
    NotOlderThan(ResourceVersion),
    /// The newest version of etcd.
    Newest,
}

impl ListStart {
    /// Returns the `resourceVersion` of the request.
    fn version(&self) -> Option<&str> {
        match self {
            Self::Cached => Some("0"),
            Self::NotOlderThan(version) => Some(version.as_str()),
            Self::Newest => None,
        }
    }
}

/// The parts that all requests of a reader share.
pub(super) struct Requests<'a> {
    /// The name of this node.
    pub(super) our_node: &'a str,
    /// The formats of answers.
    pub(super) accepted: AcceptedTypes,
    /// The duration of the next watch, in seconds.
    pub(super) seconds: u32,
}

impl Requests<'_> {
    /// Returns the time after which the API server has closed a watch.
    pub(super) fn longest_watch(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds) + 10)
    }

    /// Returns the time before which the API server does not close a watch, unless it ends itself.
    pub(super) fn shortest_watch(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds.saturating_sub(5)))
    }

    /// Builds the request of a streaming list (KEP-3157), which continues as a watch.
    pub(super) fn streaming_list<W: Watched>(&self, start: &ListStart) -> Request<Body> {
        let mut query = self.watch_query::<W>();
        query.append_pair("sendInitialEvents", "true");
        query.append_pair("resourceVersionMatch", "NotOlderThan");
        if let Some(version) = start.version() {
            query.append_pair("resourceVersion", version);
        }
        get::<W>(query, content::of_watch(self.accepted))
    }

    /// Builds the request of a watch that continues after a version.
    pub(super) fn watch<W: Watched>(&self, after: &ResourceVersion) -> Request<Body> {
        let mut query = self.watch_query::<W>();
        query.append_pair("resourceVersion", after.as_str());
        get::<W>(query, content::of_watch(self.accepted))
    }

    /// Builds the request of a page of a list, with at most `limit` objects.
    ///
    /// The API server serves a cached list from its cache, and as one page.
    pub(super) fn page<W: Watched>(
        &self,
        start: &ListStart,
        limit: u32,
        token: Option<&str>,
    ) -> Request<Body> {
        let mut query = self.query::<W>();
        query.append_pair("limit", &limit.to_string());
        match (token, start.version()) {
            // The token has a version.
            (Some(token), _) => drop(query.append_pair("continue", token)),
            (None, Some(version)) => drop(query.append_pair("resourceVersion", version)),
            (None, None) => {}
        }
        get::<W>(query, content::of_list(self.accepted))
    }

    /// Returns the parameters that every watch has.
    fn watch_query<W: Watched>(&self) -> Serializer<'static, String> {
        let mut query = self.query::<W>();
        query.append_pair("watch", "true");
        query.append_pair("timeoutSeconds", &self.seconds.to_string());
        query.append_pair("allowWatchBookmarks", "true");
        query
    }

    /// Returns the selectors of the kind.
    fn query<W: Watched>(&self) -> Serializer<'static, String> {
        let mut query = Serializer::new(String::new());
        if let Some(selector) = W::field_selector(self.our_node) {
            query.append_pair("fieldSelector", &selector);
        }
        if let Some(selector) = W::LABEL_SELECTOR {
            query.append_pair("labelSelector", selector);
        }
        query
    }
}

/// Builds the request; the client adds the address of the server.
fn get<W: Watched>(mut query: Serializer<'static, String>, accept: HeaderValue) -> Request<Body> {
    let path = format!("{}?{}", path::<W>(), query.finish());
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = parse(&path);
    request.headers_mut().insert(header::ACCEPT, accept);
    request
}

/// Returns the path of all objects of the kind.
fn path<W: Watched>() -> String {
    let (group, plural) = (W::GROUP, W::PLURAL);
    if group.is_empty() {
        format!("/api/v1/{plural}")
    } else {
        format!("/apis/{group}/v1/{plural}")
    }
}

/// Parses a path with a query.
#[expect(
    clippy::expect_used,
    reason = "the path is of letters, and the query is percent-encoded"
)]
fn parse(path: &str) -> http::Uri {
    path.parse().expect("a path and an encoded query are a URI")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::model::wire::{WireEndpointSlice, WireNode, WireService, WireServiceCidr};

    const REQUESTS: Requests<'static> = Requests {
        our_node: "node-1",
        accepted: AcceptedTypes::ProtobufFirst,
        seconds: 290,
    };

    fn version() -> ResourceVersion {
        ResourceVersion::new(Some("42")).unwrap()
    }

    #[test]
    fn paths_are_those_of_the_api_server() {
        assert_eq!(path::<WireService>(), "/api/v1/services");
        assert_eq!(
            path::<WireEndpointSlice>(),
            "/apis/discovery.k8s.io/v1/endpointslices"
        );
        assert_eq!(path::<WireNode>(), "/api/v1/nodes");
        assert_eq!(
            path::<WireServiceCidr>(),
            "/apis/networking.k8s.io/v1/servicecidrs"
        );
    }

    #[test]
    fn a_streaming_list_starts_where_it_should() {
        for (start, end) in [
            (ListStart::Cached, "&resourceVersion=0"),
            (ListStart::NotOlderThan(version()), "&resourceVersion=42"),
            (ListStart::Newest, ""),
        ] {
            let request = REQUESTS.streaming_list::<WireNode>(&start);
            assert_eq!(
                request.uri().to_string(),
                format!(
                    "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-1&watch=true\
                     &timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true\
                     &resourceVersionMatch=NotOlderThan{end}"
                )
            );
        }
    }

    #[test]
    fn a_watch_accepts_protobuf_as_a_stream_and_json() {
        let request = REQUESTS.watch::<WireService>(&version());
        assert_eq!(
            request.headers()[header::ACCEPT],
            "application/vnd.kubernetes.protobuf;stream=watch,application/json"
        );
        let query = request.uri().query().unwrap();
        assert!(query.ends_with("&resourceVersion=42"), "{query}");
        assert!(!query.contains("sendInitialEvents"), "{query}");
    }

    #[test]
    fn a_page_has_a_limit_and_a_token() {
        let page = |start, token| REQUESTS.page::<WireServiceCidr>(&start, 500, token);
        let request = page(ListStart::Cached, Some("a b"));
        assert_eq!(request.uri().query(), Some("limit=500&continue=a+b"));
        let first = page(ListStart::Cached, None);
        assert_eq!(first.uri().query(), Some("limit=500&resourceVersion=0"));
        let newest = page(ListStart::Newest, None);
        assert_eq!(newest.uri().query(), Some("limit=500"));
        assert_eq!(
            request.headers()[header::ACCEPT],
            "application/vnd.kubernetes.protobuf,application/json"
        );
    }
}
