//! The Events that users see at their objects.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube_dnat::events::{EventReason, NewEvent, WritePace};
use kube_dnat::http::{self, health_check};
use kube_dnat::logging::LogEvent;
use kube_dnat::metrics::{Metrics, TextFormat};
use kube_dnat::planner::desired::HealthCheck;
use kube_dnat::planner::desired::HealthCheckChange;
use kube_dnat::planner::model::addr::Family;
use kube_dnat::planner::model::{ObjectKey, ServiceName};
use kube_dnat::relay::RelayProblems;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{sleep, timeout};
use tracing::subscriber::DefaultGuard;

use super::node::{Node, PACE};
use super::objects::{node, service, slice};
use super::seen::{DEADLINE, OUR_NODE};
use super::server::{Fault, Server};

/// Builds a Service with an external IP, a uid and a time of creation.
fn external(name: &str, cluster_ip: &str, external_ip: &str, year: u16) -> Value {
    let mut service = identified(service(name, cluster_ip));
    service["spec"]["externalIPs"] = json!([external_ip]);
    service["metadata"]["creationTimestamp"] = json!(format!("{year}-01-01T00:00:00Z"));
    service
}

/// Adds a uid to an object.
fn identified(mut object: Value) -> Value {
    let name = object["metadata"]["name"].as_str().expect("a name");
    object["metadata"]["uid"] = json!(format!("uid-of-{name}"));
    object
}

fn conflict(server: &Server) {
    server.apply(external("shop/old", "10.96.0.1", "192.0.2.80", 2024));
    server.apply(external("shop/new", "10.96.0.2", "192.0.2.80", 2025));
}

/// Returns the Events with a reason.
fn events_with_reason(server: &Server, reason: &str) -> Vec<Value> {
    let events = server.events().into_iter();
    events.filter(|event| event["reason"] == reason).collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(DEADLINE, holds).await.is_ok(), "{what}");
}

/// Captures the log of this thread until the guard is dropped.
fn log() -> (DefaultGuard, impl Fn(LogEvent) -> Vec<String>) {
    let log = NamedTempFile::new().expect("a file");
    let file = log.reopen().expect("a file");
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .finish();
    let lines = move |event: LogEvent| {
        let log = std::fs::read_to_string(log.path()).expect("a file");
        let field = format!("event={event}");
        let has_field = |line: &&str| line.split_whitespace().any(|word| word == field);
        let lines = log.lines().filter(has_field);
        lines.map(str::to_owned).collect()
    };
    (tracing::subscriber::set_default(subscriber), lines)
}

#[tokio::test]
async fn a_conflict_is_recorded_for_the_service_that_loses() {
    let server = Server::start();
    server.apply(identified(node(OUR_NODE, "192.0.2.1")));
    conflict(&server);

    let _node = Node::started(&server, OUR_NODE, PACE).await;
    server.until_events(2).await;

    let events = server.events();
    let [starting, conflict] = &events[..] else {
        panic!("{events:#?}");
    };
    let of_node = json!({
        "apiVersion": "v1", "kind": "Node", "name": OUR_NODE, "uid": "uid-of-node-1",
    });
    assert_eq!(starting["regarding"], of_node);
    assert_eq!(
        (&starting["type"], &starting["reason"]),
        (&json!("Normal"), &json!("Starting"))
    );
    let of_service = json!({
        "apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "new",
        "uid": "uid-of-new",
    });
    assert_eq!(conflict["regarding"], of_service);
    let note = "only partly programmed: 192.0.2.80:80/tcp is in use by the older Service shop/old";
    for (field, value) in [
        ("type", "Warning"),
        ("reason", "FrontendConflict"),
        ("note", note),
        ("reportingController", "kube-dnat"),
        ("reportingInstance", OUR_NODE),
    ] {
        assert_eq!(conflict[field], value, "{field}");
    }
}

#[tokio::test]
async fn an_invalid_address_is_recorded_for_its_object() {
    let server = Server::start();
    server.apply(external("shop/cart", "10.96.0.1", "300.1.1.1", 2024));
    server.apply(identified(slice("shop/cart-1", "cart", "10.0.0.256")));

    let _node = Node::started(&server, OUR_NODE, PACE).await;
    server.until_events(3).await;

    let events = events_with_reason(&server, "InvalidAddress");
    let of = |kind: &str| {
        let mut events = events.iter();
        let event = events.find(|event| event["regarding"]["kind"] == kind);
        event.unwrap_or_else(|| panic!("{kind}"))
    };
    let note = |event: &Value| event["note"].as_str().unwrap().to_owned();
    let service = of("Service");
    assert_eq!(service["regarding"]["uid"], "uid-of-cart");
    assert!(
        note(service).contains("\"300.1.1.1\" is not an"),
        "{service}"
    );
    let slice = of("EndpointSlice");
    assert_eq!(slice["regarding"]["apiVersion"], "discovery.k8s.io/v1");
    assert_eq!(slice["regarding"]["uid"], "uid-of-cart-1");
    assert!(note(slice).contains("10.0.0.256"), "{slice}");
}

#[tokio::test]
async fn an_identical_event_is_not_written_again() {
    let server = Server::start();
    let bad = || external("shop/cart", "10.96.0.1", "300.1.1.1", 2024);
    server.apply(bad());
    let mut node = Node::started(&server, OUR_NODE, PACE).await;
    server.until_events(2).await;

    server.delete("services", "shop/cart");
    node.until_served(0).await;
    server.apply(bad());
    node.until_served(1).await;
    server.apply(external("shop/till", "10.96.0.2", "300.1.1.2", 2024));
    node.until_served(2).await;
    server.until_events(3).await;

    assert_eq!(server.events()[2]["regarding"]["name"], "till");
    assert_eq!(server.requests("events").len(), 3);
    assert_eq!(node.dropped(), 0);
}

#[tokio::test]
async fn all_nodes_share_one_event() {
    let server = Server::start();
    conflict(&server);
    let pace = WritePace {
        spread: Duration::from_millis(50),
        ..PACE
    };

    let mut nodes = Vec::new();
    for name in ["node-1", "node-2", "node-3"] {
        nodes.push(Node::started(&server, name, pace).await);
    }
    server.until_requested("events", 6).await;
    // Each node has received its answer before it writes its next Event.
    for node in &nodes {
        let end = "the end".to_owned();
        node.recorder
            .record_for_node(EventReason::RejectedByKernel, end);
    }
    server.until_requested("events", 9).await;

    assert_eq!(events_with_reason(&server, "Starting").len(), 3);
    assert_eq!(events_with_reason(&server, "FrontendConflict").len(), 1);
    let dropped: u64 = nodes.iter().map(Node::dropped).sum();
    assert_eq!(dropped, 0);
}

#[tokio::test]
async fn many_invalid_services_write_events_within_the_limits() {
    const MANY: usize = 10_000;
    let server = Server::start();
    for number in 0..MANY {
        let address = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        let name = format!("shop/service-{number}");
        server.apply(external(&name, &address, "300.1.1.1", 2024));
    }
    let begin = Instant::now();

    let mut node = Node::started(&server, OUR_NODE, PACE).await;
    node.until_served(MANY).await;
    server.until_events(30).await;

    let written = server.events().len();
    let elapsed = usize::try_from(begin.elapsed().as_millis()).unwrap();
    assert!(written <= 26 + elapsed / 100, "{written} in {elapsed} ms");
    // The queue holds at most 1000.
    let dropped = usize::try_from(node.dropped()).unwrap();
    assert!(
        dropped + server.requests("events").len() + 1000 >= MANY,
        "{dropped}"
    );
}

#[tokio::test]
async fn forbidden_events_are_logged_once_and_services_programmed() {
    let (_guard, logged) = log();
    let server = Server::start();
    server.bar("events", 403);
    conflict(&server);
    server.apply(external("shop/cart", "10.96.0.3", "300.1.1.1", 2024));

    let mut node = Node::started(&server, OUR_NODE, PACE).await;
    node.until_served(3).await;
    until("it is dropped", || node.dropped() == 3).await;
    server.apply(external("shop/till", "10.96.0.4", "300.1.1.1", 2024));
    node.until_served(4).await;
    until("it is dropped", || node.dropped() == 4).await;

    assert_eq!(server.requests("events").len(), 1);
    let said = logged(LogEvent::EventsForbidden);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("WARN") && said[0].contains("(403)"),
        "{said:?}"
    );
}

#[tokio::test]
async fn events_are_written_again_once_they_are_allowed() {
    let (_guard, logged) = log();
    let server = Server::start();
    server.bar("events", 403);
    let pace = WritePace {
        hold: Duration::from_millis(50),
        ..PACE
    };
    let mut node = Node::started(&server, OUR_NODE, pace).await;
    until("it is dropped", || node.dropped() == 1).await;

    server.admit("events");
    // The jitter adds up to the same time again.
    sleep(pace.hold * 2).await;
    server.apply(external("shop/cart", "10.96.0.1", "300.1.1.1", 2024));
    node.until_served(1).await;

    server.until_events(1).await;
    until("it is logged", || {
        logged(LogEvent::EventWritesRecovered).len() == 1
    })
    .await;
}

/// An API server that has just started answers 403 until it has loaded its RBAC rules.
#[tokio::test]
async fn events_that_are_forbidden_for_a_moment_are_written_within_seconds() {
    let (_guard, logged) = log();
    let server = Server::start();
    server.bar("events", 403);
    let pace = WritePace {
        spread: Duration::ZERO,
        ..WritePace::default()
    };
    let node = Node::started(&server, OUR_NODE, pace).await;
    until("it is retried", || server.requests("events").len() > 1).await;

    server.admit("events");

    server.until_events(1).await;
    assert_eq!(events_with_reason(&server, "Starting").len(), 1);
    assert_eq!(node.dropped(), 0);
    until("it is logged", || {
        logged(LogEvent::EventWritesRecovered).len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_failure_of_the_api_server_is_logged_once_and_retried() {
    let (_guard, logged) = log();
    let server = Server::start();
    server.fail("events", "", Fault::Status(500), 3);

    let node = Node::started(&server, OUR_NODE, PACE).await;
    server.until_events(1).await;

    assert_eq!(server.requests("events").len(), 4);
    assert_eq!(node.dropped(), 0);
    assert_eq!(logged(LogEvent::EventWriteFailed).len(), 1);
}

#[tokio::test]
async fn an_event_about_a_hidden_object_has_no_uid() {
    let server = Server::start();
    server.fail("services", "metadata.name", Fault::Status(403), 1);
    server.apply(external("shop/cart", "10.96.0.1", "300.1.1.1", 2024));

    let _node = Node::started(&server, OUR_NODE, PACE).await;
    server.until_events(2).await;

    let regarding = &server.events()[1]["regarding"];
    assert_eq!(regarding["name"], "cart");
    assert!(regarding["uid"].is_null(), "{regarding}");
}

#[tokio::test]
async fn a_deleted_object_gets_no_event() {
    let server = Server::start();
    server.apply(identified(service("shop/cart", "10.96.0.1")));
    let node = Node::started(&server, OUR_NODE, PACE).await;

    for name in ["gone", "cart"] {
        node.recorder.record(NewEvent {
            object: ObjectKey::service(&ServiceName::new("shop", name)),
            reason: EventReason::RejectedByKernel,
            note: "no".to_owned(),
        });
    }
    server.until_events(2).await;

    assert_eq!(server.events()[1]["regarding"]["name"], "cart");
    assert_eq!(node.dropped(), 0);
}

#[tokio::test]
async fn a_health_check_port_in_use_is_recorded() {
    let server = Server::start();
    server.apply(identified(service("shop/cart", "10.96.0.1")));
    let node = Node::started(&server, OUR_NODE, PACE).await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let (changes, seen) = unbounded_channel();
    let sync_health = Arc::default();
    let (metrics, exposition) = Metrics::new();
    let recorder = node.recorder.clone();
    tokio::spawn(health_check::serve(
        seen,
        sync_health,
        http::Server::new(Handle::current(), RelayProblems::default()),
        metrics,
        recorder,
    ));

    let addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    let check = HealthCheck {
        port,
        load_balancer_ips: Vec::new(),
        local_endpoints: 1,
    };
    let name = ServiceName::new("shop", "cart");
    for change in [
        HealthCheckChange::Addresses(Family::Ipv4, addresses),
        HealthCheckChange::Service(Family::Ipv4, name, Some(check)),
    ] {
        changes.send(change).unwrap();
    }
    server.until_events(2).await;

    let event = &server.events()[1];
    assert_eq!(event["reason"], "FailedToStartServiceHealthcheck");
    assert_eq!(event["regarding"]["uid"], "uid-of-cart");
    let said = event["note"].as_str().unwrap();
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    // The metric counts it, for alerts.
    let counted = "kube_dnat_objects_not_served{reason=\"FailedToStartServiceHealthcheck\"} 1";
    until("it is counted", || {
        exposition.text(TextFormat::Prometheus).contains(counted)
    })
    .await;
}
