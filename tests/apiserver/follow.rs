//! Lists, watches and selectors when all goes well.

use kube_dnat::model::{Kind, Object};
use kube_dnat::watch::apiserver::client;
use serde_json::json;

use crate::observer::{Observer, service, slice};
use crate::server::{Server, StreamingLists, TOKEN};

const CART: &str = "Service shop/cart";
const CART_SLICE: &str = "EndpointSlice shop/cart-1";

#[tokio::test]
async fn what_is_there_is_reported_before_it_is_said_to_be_listed() {
    for streaming in [
        StreamingLists::Known,
        StreamingLists::Refused,
        StreamingLists::Unknown,
    ] {
        let server = Server::start().await;
        server.state().streaming = streaming;
        // More than fit on a page.
        let names: Vec<_> = (0..7).map(|number| format!("s{number}")).collect();
        for name in &names {
            server.apply(&service(name));
            server.apply(&slice(name, "10.244.1.9"));
        }
        let mut observer = Observer::start(&server, 30).await;
        observer.until_listed().await;
        assert_eq!(observer.objects.len(), 14, "{streaming:?}");
        server.apply(&service("late"));
        observer
            .until("a change", |observer| observer.objects.len() == 15)
            .await;
    }
}

#[tokio::test]
async fn changes_are_reported_as_they_come() {
    let server = Server::start().await;
    let mut observer = Observer::start(&server, 30).await;
    observer.until_listed().await;
    server.apply(&service("cart"));
    server.apply(&slice("cart", "10.244.1.9"));
    observer.until_objects(&[CART, CART_SLICE]).await;
    server.apply(&slice("cart", "10.244.1.10"));
    let moved =
        |observer: &Observer| format!("{:?}", observer.objects[CART_SLICE]).contains("10.244.1.10");
    observer.until("the new address", moved).await;
    server.delete("services", "shop/cart");
    observer.until_objects(&[CART_SLICE]).await;
}

#[tokio::test]
async fn the_server_selects_what_is_not_for_us() {
    let server = Server::start().await;
    let mut headless = service("headless");
    headless["spec"]["clusterIP"] = json!("None");
    let mut mesh = service("mesh");
    mesh["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = json!("mesh");
    let mut headless_slice = slice("headless", "10.244.1.9");
    headless_slice["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
    for object in [
        &headless,
        &mesh,
        &headless_slice,
        &service("cart"),
        &slice("cart", "10.244.1.9"),
    ] {
        server.apply(object);
    }
    let mut observer = Observer::start(&server, 30).await;
    observer.until_listed().await;
    observer.until_objects(&[CART, CART_SLICE]).await;
    assert_eq!(observer.reports.len(), 2, "{:?}", observer.reports);
    let asked = |plural: &str, parts: &[&str]| {
        for request in server.requests(plural) {
            for part in parts {
                assert!(request.contains(part), "{request} lacks {part}");
            }
        }
        assert!(!server.requests(plural).is_empty());
    };
    asked(
        "services",
        &[
            "labelSelector=!service.kubernetes.io/service-proxy-name",
            "fieldSelector=spec.clusterIP!=None",
        ],
    );
    asked(
        "endpointslices",
        &["labelSelector=!service.kubernetes.io/headless"],
    );
    asked("nodes", &["fieldSelector=metadata.name=node-1"]);
    asked("servicecidrs", &["/apis/networking.k8s.io/v1/"]);
}

#[tokio::test]
async fn our_own_node_and_the_service_cidrs_are_followed() {
    let server = Server::start().await;
    let node = |name: &str, address: &str| {
        json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name},
               "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
    };
    server.apply(&node("node-1", "192.168.77.2"));
    server.apply(&node("node-2", "192.168.77.3"));
    server.apply(
        &json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}),
    );
    let mut observer = Observer::start(&server, 30).await;
    let cidr = "ServiceCIDR kubernetes";
    observer.until_objects(&["Node node-1", cidr]).await;
    server.apply(&node("node-1", "192.168.77.9"));
    let moved = |observer: &Observer| {
        matches!(&observer.objects["Node node-1"], Object::Node(node)
            if node.internal_ips == ["192.168.77.9".parse::<std::net::IpAddr>().unwrap()])
    };
    observer.until("the new address", moved).await;
    server.delete("servicecidrs", "kubernetes");
    observer.until_objects(&["Node node-1"]).await;
}

#[tokio::test]
async fn a_closed_watch_goes_on_where_it_was_without_a_new_list() {
    let server = Server::start().await;
    server.apply(&service("cart"));
    // Each watch ends after a second, with a bookmark.
    let mut observer = Observer::start(&server, 1).await;
    observer.until_listed().await;
    for round in 0..3 {
        let before = server.requests("services").len();
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        while server.requests("services").len() == before {
            ticks.tick().await;
        }
        let name = format!("s{round}");
        server.apply(&service(&name));
        let key = format!("Service shop/{name}");
        observer
            .until("a change", |observer| observer.objects.contains_key(&key))
            .await;
    }
    let lists = server.requests("services");
    let lists = lists
        .iter()
        .filter(|request| request.contains("sendInitialEvents=true"));
    assert_eq!(lists.count(), 1, "{:?}", server.requests("services"));
    assert_eq!(observer.reports.len(), 4, "{:?}", observer.reports);
}

#[tokio::test]
async fn an_object_that_does_not_decode_costs_only_itself() {
    let server = Server::start().await;
    let mut broken = service("broken");
    broken["spec"]["ports"] = json!("none");
    server.apply(&broken);
    server.apply(&service("cart"));
    let mut observer = Observer::start(&server, 30).await;
    observer.until_listed().await;
    observer.until_objects(&[CART]).await;
    assert!(
        observer.rejected.contains_key("Service shop/broken"),
        "{:?}",
        observer.rejected
    );
    // Mended, it is served; broken again, it is not, and the others go on.
    server.apply(&service("broken"));
    observer.until_objects(&["Service shop/broken", CART]).await;
    server.apply(&broken);
    observer.until_objects(&[CART]).await;
    server.apply(&service("web"));
    observer.until_objects(&[CART, "Service shop/web"]).await;
}

#[tokio::test]
async fn a_client_is_made_of_what_it_is_told_or_says_what_is_wrong() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(folder.path(), TOKEN);
    let missing = folder.path().join("missing");
    let error = client(Some(&missing), None).await.err().unwrap();
    assert!(error.to_string().contains("missing"), "{error}");
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "clusters: [").unwrap();
    let error = client(Some(&broken), None).await.err().unwrap();
    assert!(error.to_string().contains("broken"), "{error}");
    let error = client(Some(&kubeconfig), Some("not a url"))
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("--master"), "{error}");
    let error = client(None, Some("10.0.0.1")).await.err().unwrap();
    assert!(error.to_string().contains("--master"), "{error}");
    assert!(client(None, Some("https://127.0.0.1:6443")).await.is_ok());

    // --master wins over the kubeconfig's server.
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let elsewhere = text.replace(&server.address.to_string(), "127.0.0.1:1");
    std::fs::write(&kubeconfig, elsewhere).unwrap();
    let master = format!("https://{}", server.address);
    let client = client(Some(&kubeconfig), Some(&master)).await.unwrap();
    let _answer = client.apiserver_version().await;
    assert!(!server.requests("version").is_empty());
}

#[tokio::test]
async fn a_kind_that_is_not_there_or_not_allowed_keeps_no_other_waiting() {
    let server = Server::start().await;
    server.apply(&service("cart"));
    server.state().denied.insert("servicecidrs", 404);
    server.state().denied.insert("nodes", 403);
    let mut observer = Observer::start(&server, 30).await;
    observer.until_listed().await;
    observer.until_objects(&[CART]).await;
    assert!(!observer.listed.contains(&Kind::Node));
}
