//! Lists and watches when things go wrong: nothing is lost, and nothing is said to be gone that is
//! not.

use serde_json::json;

use crate::observer::{Observer, service, slice};
use crate::server::{Server, StreamingLists, TOKEN};

const CART: &str = "Service shop/cart";
const WEB: &str = "Service shop/web";

#[tokio::test]
async fn what_went_while_the_watch_was_gone_is_reported_gone() {
    for (gone_by_event, streaming) in [
        (false, StreamingLists::Known),
        (true, StreamingLists::Known),
        (false, StreamingLists::Refused),
        (true, StreamingLists::Refused),
    ] {
        let server = Server::start().await;
        server.state().gone_by_event = gone_by_event;
        server.state().streaming = streaming;
        server.apply(&service("cart"));
        server.apply(&service("web"));
        let mut observer = Observer::start(&server, 30).await;
        observer.until_listed().await;
        // The watches end, and what happens then is compacted away before they come back.
        server.stop().await;
        server.delete("services", "shop/web");
        server.apply(&service("new"));
        server.compact();
        server.come_back().await;
        observer.until_objects(&[CART, "Service shop/new"]).await;
        let said = |report: &str| {
            observer
                .reports
                .iter()
                .filter(|said| *said == report)
                .count()
        };
        assert_eq!(said(&format!("-{CART}")), 0, "{:?}", observer.reports);
        assert_eq!(said(&format!("-{WEB}")), 1, "{:?}", observer.reports);
    }
}

#[tokio::test]
async fn a_list_that_breaks_off_proves_nothing() {
    let server = Server::start().await;
    server.state().streaming = StreamingLists::Refused;
    let names: Vec<_> = (0..6).map(|number| format!("s{number}")).collect();
    for name in &names {
        server.apply(&service(name));
    }
    let mut observer = Observer::start(&server, 30).await;
    observer.until_listed().await;
    assert_eq!(observer.objects.len(), 6);
    // Lists break off after the first page of two.
    server.state().broken_pages = Some(2);
    server.delete("services", "shop/s5");
    observer
        .until("s5 is gone", |observer| observer.objects.len() == 5)
        .await;
    server.compact();
    server.close_watches();
    let before = observer.reports.len();
    let relisted = |observer: &Observer| observer.reports.len() >= before + 4;
    observer.until("two broken lists", relisted).await;
    assert_eq!(observer.objects.len(), 5, "{:?}", observer.reports);
    server.state().broken_pages = None;
    // The server has no snapshots: what it adds must sort after the pages it gave out.
    server.apply(&service("t0"));
    observer
        .until("the list is whole again", |observer| {
            observer.objects.len() == 6
        })
        .await;
    let gone = observer
        .reports
        .iter()
        .filter(|report| report.starts_with('-'));
    assert_eq!(gone.collect::<Vec<_>>(), ["-Service shop/s5"]);
}

#[tokio::test]
async fn a_watch_that_hangs_is_given_up_and_taken_up_again() {
    let server = Server::start().await;
    server.apply(&service("cart"));
    let mut observer = Observer::start(&server, 1).await;
    observer.until_listed().await;
    server.state().hang = true;
    server.apply(&service("web"));
    // The server says nothing more and never ends a watch; six seconds later it is given up.
    let waiting = server.requests("services").len();
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
    while server.requests("services").len() == waiting {
        ticks.tick().await;
    }
    server.state().hang = false;
    server.close_watches();
    observer.until_objects(&[CART, WEB]).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_and_nothing_is_gone() {
    let server = Server::start().await;
    server.stop().await;
    server.apply(&service("cart"));
    server.apply(&slice("cart", "10.244.1.9"));
    let mut observer = Observer::start(&server, 30).await;
    server.come_back().await;
    observer.until_listed().await;
    assert_eq!(observer.objects.len(), 2);
    server.stop().await;
    server.come_back().await;
    server.apply(&service("web"));
    observer
        .until("a change", |observer| observer.objects.contains_key(WEB))
        .await;
    assert!(
        !observer
            .reports
            .iter()
            .any(|report| report.starts_with('-')),
        "{:?}",
        observer.reports
    );
}

#[tokio::test]
async fn answers_that_fail_are_asked_for_again() {
    let server = Server::start().await;
    server.apply(&service("cart"));
    server.state().failures.extend([
        ("services", 500),
        ("services", 429),
        ("endpointslices", 503),
    ]);
    let mut observer = Observer::start(&server, 30).await;
    observer.until_listed().await;
    observer.until_objects(&[CART]).await;
}

#[tokio::test]
async fn a_wrong_token_is_tried_until_it_is_the_right_one() {
    let server = Server::start().await;
    server.apply(&service("cart"));
    server.state().token = "another-token";
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(folder.path(), TOKEN);
    let mut observer = Observer::start_with(&kubeconfig, folder, 30).await;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    while server.requests("services").len() < 2 {
        ticks.tick().await;
    }
    assert!(observer.reports.is_empty());
    server.state().token = TOKEN;
    observer.until_listed().await;
    observer.until_objects(&[CART]).await;
}

#[tokio::test]
async fn fields_of_null_and_fields_we_do_not_know_do_no_harm() {
    let server = Server::start().await;
    let mut odd = service("cart");
    odd["spec"]["externalIPs"] = json!(null);
    odd["spec"]["somethingNew"] = json!({"deep": [1, 2, {"x": null}]});
    odd["status"] = json!({"loadBalancer": null, "conditions": []});
    server.apply(&odd);
    let mut observer = Observer::start(&server, 30).await;
    observer.until_objects(&[CART]).await;
    assert!(observer.rejected.is_empty(), "{:?}", observer.rejected);
}
