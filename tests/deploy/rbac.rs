//! The rights at the API server are those that the program needs, and no more.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Subject};
use kube_dnat::watch::apiserver;

use crate::objects::Objects;

/// A verb, a group and a resource.
type Right = (String, String, String);

/// Panics if the service account, its role and its binding do not belong together.
pub(crate) fn check(objects: &Objects, namespace: &str) {
    let account: ServiceAccount = objects.one();
    let role: ClusterRole = objects.one();
    let binding: ClusterRoleBinding = objects.one();
    let daemon_set: DaemonSet = objects.one();
    let pod = daemon_set.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.service_account_name, account.metadata.name);
    assert_eq!(account.metadata.namespace.as_deref(), Some(namespace));
    assert_eq!(daemon_set.metadata.namespace.as_deref(), Some(namespace));
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    assert_eq!(binding.role_ref.kind, "ClusterRole");
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: account.metadata.name.unwrap(),
        namespace: account.metadata.namespace,
        api_group: None,
    };
    assert_eq!(binding.subjects.unwrap(), [subject]);
}

/// What a role allows.
fn allowed(role: ClusterRole) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in role.rules.unwrap() {
        assert_eq!((rule.non_resource_urls, rule.resource_names), (None, None));
        let groups = rule.api_groups.unwrap();
        for resource in rule.resources.unwrap() {
            for group in &groups {
                let verbs = rule.verbs.iter().cloned();
                rights.extend(verbs.map(|verb| (verb, group.clone(), resource.clone())));
            }
        }
    }
    rights
}

/// Group and resource that a request is for: `/api/v1/nodes?…`, `/apis/GROUP/VERSION/RESOURCE?…`.
fn asked(mut stream: TcpStream) -> (String, String) {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // Who asks may have given up.
    let _unread = stream.write_all(busy.as_bytes());
    let target = line.split(' ').nth(1).unwrap();
    let path = target.split('?').next().unwrap();
    let parts: Vec<_> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        ["api", _, resource] => (String::new(), (*resource).to_owned()),
        ["apis", group, _, resource] => ((*group).to_owned(), (*resource).to_owned()),
        _ => panic!("asked for {path}"),
    }
}

/// All that is asked of an API server which does not answer: the first round of requests, and what
/// is asked until one of them is tried a third time.
fn watched() -> BTreeSet<(String, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let master = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if tell.send(asked(stream.unwrap())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let settings = apiserver::ClientSettings {
                masters: vec![master],
                ..apiserver::ClientSettings::default()
            };
            let client = apiserver::client(&settings).await.unwrap();
            let (events, _reported) = tokio::sync::mpsc::channel(64);
            apiserver::watch(client, "node-1".into(), events).await;
        });
    });
    let mut requests = Vec::new();
    loop {
        let request = told.recv_timeout(Duration::from_secs(10)).unwrap();
        let before = requests.iter().filter(|other| **other == request).count();
        if before == 2 {
            return requests.into_iter().collect();
        }
        requests.push(request);
    }
}

#[test]
fn the_role_is_for_what_is_watched_and_for_events() {
    let role = super::kustomize::rendered("base").one();
    let mut needed = BTreeSet::new();
    for (group, resource) in watched() {
        let verbs = ["get", "list", "watch"];
        needed.extend(verbs.map(|verb| (verb.to_owned(), group.clone(), resource.clone())));
    }
    // The objects that Events are of are found by lists.
    needed.insert(
        ["create", "events.k8s.io", "events"]
            .map(str::to_owned)
            .into(),
    );
    assert_eq!(allowed(role), needed);
}
