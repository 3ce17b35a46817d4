//! The same against the real API server, where `KUBEBUILDER_ASSETS` names a folder with `etcd` and
//! `kube-apiserver` (the convention of Kubernetes' envtest).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube_dnat::watch::apiserver::client;
use serde_json::{Value, json};

use crate::observer::{Observer, service, slice};

const TOKEN: &str = "the-admin-of-the-test";

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn start(program: &Path, arguments: &[String], folder: &Path) -> Running {
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    let log = File::create(folder.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(log);
    let child = command.spawn();
    Running(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// etcd, the API server, and a kubeconfig for it.
fn control_plane(folder: &Path) -> (Vec<Running>, PathBuf) {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS");
    let assets = PathBuf::from(
        assets.expect("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver"),
    );
    let (peer, etcd, secure) = (free_port(), free_port(), free_port());
    let at = |name: &str| folder.join(name).display().to_string();
    let of_etcd = [
        format!("--data-dir={}", at("etcd")),
        format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
        format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
    ];
    fs::write(
        folder.join("tokens"),
        format!("{TOKEN},admin,1,system:masters\n"),
    )
    .unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(folder.join("sa.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("sa.pub"), key.public_key_pem()).unwrap();
    let of_server = [
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", at("certificates")),
        format!("--token-auth-file={}", at("tokens")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", at("sa.pub")),
        format!("--service-account-signing-key-file={}", at("sa.key")),
    ];
    let running = vec![
        start(&assets.join("etcd"), &of_etcd, folder),
        start(&assets.join("kube-apiserver"), &of_server, folder),
    ];
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{secure}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    });
    let path = folder.join("kubeconfig");
    fs::write(&path, kubeconfig.to_string()).unwrap();
    (running, path)
}

fn api(client: &kube::Client, kind: &str) -> Api<DynamicObject> {
    let (group, version) = match kind {
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match kind {
        "Namespace" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), "shop", &resource),
    }
}

async fn create(client: &kube::Client, object: Value) {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let kind = object.types.as_ref().unwrap().kind.clone();
    api(client, &kind)
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs KUBEBUILDER_ASSETS, a folder with etcd and kube-apiserver"]
async fn the_real_api_server_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (_running, kubeconfig) = control_plane(folder.path());
    let client = client(Some(&kubeconfig), None).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let namespace: DynamicObject = serde_json::from_value(namespace).unwrap();
    let ready = tokio::time::timeout(Duration::from_mins(1), async {
        let namespaces = api(&client, "Namespace");
        while namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .is_err()
        {
            ticks.tick().await;
        }
    });
    ready.await.expect("the API server starts");

    let mut mesh = service("mesh");
    mesh["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = json!("mesh");
    let mut headless = service("headless");
    headless["spec"]["clusterIP"] = json!("None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    for mut object in [service("cart"), mesh, headless] {
        // The address is the server's to give.
        if object["spec"]["clusterIP"] != json!("None") {
            object["spec"].as_object_mut().unwrap().remove("clusterIP");
            object["spec"].as_object_mut().unwrap().remove("clusterIPs");
        }
        create(&client, object).await;
    }
    create(&client, slice("cart", "10.244.1.9")).await;
    let mut observer = Observer::start_with(&kubeconfig, folder, 30).await;
    observer.until_listed().await;
    let (cart, endpoints) = ("Service shop/cart", "EndpointSlice shop/cart-1");
    let known = |observer: &Observer| {
        observer.objects.contains_key(cart) && observer.objects.contains_key(endpoints)
    };
    observer.until("what is there", known).await;
    for other in ["Service shop/mesh", "Service shop/headless"] {
        assert!(!observer.objects.contains_key(other), "{other}");
    }
    let services = api(&client, "Service");
    services
        .delete("cart", &DeleteParams::default())
        .await
        .unwrap();
    observer
        .until("it is gone", |observer| {
            !observer.objects.contains_key(cart)
        })
        .await;
}
