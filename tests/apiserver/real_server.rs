//! The real API server of Kubernetes 1.33 or newer, set up like envtest.
//!
//! `KUBEBUILDER_ASSETS` names a folder with `etcd` and `kube-apiserver`.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{Authority, kubeconfig};

const TOKEN: &str = "a-token";
const START: Duration = Duration::from_mins(1);

/// The real API server, which stops when it is dropped.
pub(crate) struct Real {
    directory: TempDir,
    service_range: String,
    etcd_url: String,
    port: u16,
    client: Client,
    /// The processes, in the order in which they are stopped.
    api_server: Process,
    _etcd: Process,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Real {
    /// Starts the server with a range of `ClusterIPs`.
    pub(crate) async fn start(service_range: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let [client_port, peer_port, port] = free_ports();
        write_credentials(directory.path(), port);
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = start(
            directory.path(),
            "etcd",
            &[
                ("data-dir", "etcd"),
                ("listen-client-urls", &etcd_url),
                ("advertise-client-urls", &etcd_url),
                ("listen-peer-urls", &peer_url),
                ("initial-advertise-peer-urls", &peer_url),
                ("initial-cluster", &format!("default={peer_url}")),
                ("unsafe-no-fsync", "true"),
            ],
        );
        let api_server = start_api_server(directory.path(), &etcd_url, port, service_range);
        let client = unlimited(&directory.path().join("kubeconfig")).await;
        let mut real = Self {
            directory,
            service_range: service_range.to_owned(),
            etcd_url,
            port,
            client,
            api_server,
            _etcd: etcd,
        };
        real.until_ready().await;
        real
    }

    /// Waits until a Service can be created, which needs its namespace and the range of its
    /// address.
    async fn until_ready(&mut self) {
        let namespaces = self.api("v1", "Namespace", "namespaces");
        let ranges = self.api("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs");
        let process = &mut self.api_server;
        let ready = async {
            while namespaces.get("default").await.is_err()
                || ranges.get("kubernetes").await.is_err()
            {
                let exited = process.0.try_wait().expect("a process");
                assert!(exited.is_none(), "kube-apiserver exited");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(START, ready).await.is_err() {
            let log = self.directory.path().join("kube-apiserver.log");
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            panic!("kube-apiserver is not ready; last lines first: {lines:#?}");
        }
    }

    fn api(&self, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let client = self.client.clone();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        if ["services", "endpointslices"].contains(&plural) {
            Api::namespaced_with(client, "default", &resource)
        } else {
            Api::all_with(client, &resource)
        }
    }
}

impl Real {
    /// Writes a kubeconfig for the server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Returns the id of the process of kube-apiserver.
    pub(crate) fn process_id(&self) -> u32 {
        self.api_server.0.id()
    }

    /// Returns the port at which kube-apiserver listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the status and body of a GET request.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> (u16, Vec<u8>) {
        let request = Request::get(path).header("accept", accept);
        let request = request.body(kube::client::Body::empty());
        let request = request.expect("a request");
        let answer = self.client.send(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body");
        (status, body.to_bytes().to_vec())
    }

    /// Creates or replaces an object, with the status of a Node.
    pub(crate) async fn apply(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let types = object.types.clone().expect("a kind");
        let plural = format!("{}s", types.kind.to_lowercase());
        let api = self.api(&types.api_version, &types.kind, &plural);
        let name = object.metadata.name.clone().expect("a name");
        let params = PatchParams::apply("tests").force();
        api.patch(&name, &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("cannot apply {object:?}: {error}"));
        if types.kind == "Node" {
            api.patch_status(&name, &params, &Patch::Apply(&object))
                .await
                .unwrap_or_else(|error| panic!("cannot apply the status of {object:?}: {error}"));
        }
    }

    /// Deletes `key`, which is `namespace/name` or `name`.
    pub(crate) async fn delete(&self, plural: &str, key: &str) {
        let (api_version, kind) = match plural {
            "services" => ("v1", "Service"),
            "endpointslices" => ("discovery.k8s.io/v1", "EndpointSlice"),
            "nodes" => ("v1", "Node"),
            _ => ("networking.k8s.io/v1", "ServiceCIDR"),
        };
        let name = key.rsplit('/').next().expect("a name");
        self.api(api_version, kind, plural)
            .delete(name, &DeleteParams::default())
            .await
            .unwrap_or_else(|error| panic!("cannot delete {key}: {error}"));
    }

    /// Restarts the server.
    pub(crate) async fn restart(&mut self) {
        // The port must be free before the restart.
        self.api_server.0.kill().expect("a process");
        self.api_server.0.wait().expect("a process");
        let directory = self.directory.path();
        self.api_server =
            start_api_server(directory, &self.etcd_url, self.port, &self.service_range);
        self.until_ready().await;
    }
}

/// Builds a client without the rate limit of kube-dnat's.
async fn unlimited(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a kubeconfig")).expect("a client")
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

fn write_credentials(directory: &Path, port: u16) {
    let write = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).expect("a writable directory");
    };
    let authority = Authority::new();
    let server = authority.identity("127.0.0.1");
    let accounts = authority.identity("service-accounts");
    write("ca.crt", &authority.certificate());
    write("server.crt", &server.certificate);
    write("server.key", &server.key);
    write("accounts.key", &accounts.key);
    write("accounts.pub", &accounts.public_key);
    write(
        "tokens.csv",
        &format!("{TOKEN},tests,tests,system:masters\n"),
    );
    let url = format!("https://127.0.0.1:{port}");
    let user = json!({"token": TOKEN});
    let text = kubeconfig(&url, &directory.join("ca.crt"), &user);
    write("kubeconfig", &text);
}

fn start_api_server(directory: &Path, etcd_url: &str, port: u16, service_range: &str) -> Process {
    start(
        directory,
        "kube-apiserver",
        &[
            ("etcd-servers", etcd_url),
            ("bind-address", "127.0.0.1"),
            ("advertise-address", "127.0.0.1"),
            ("secure-port", &port.to_string()),
            ("cert-dir", "."),
            ("tls-cert-file", "server.crt"),
            ("tls-private-key-file", "server.key"),
            ("token-auth-file", "tokens.csv"),
            ("authorization-mode", "RBAC"),
            ("disable-admission-plugins", "ServiceAccount"),
            ("service-cluster-ip-range", service_range),
            ("service-account-issuer", "https://127.0.0.1"),
            ("service-account-signing-key-file", "accounts.key"),
            ("service-account-key-file", "accounts.pub"),
        ],
    )
}

/// Starts a program of `KUBEBUILDER_ASSETS` in `directory`, with its output in a file there.
fn start(directory: &Path, program: &str, flags: &[(&str, &str)]) -> Process {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS")
        .expect("KUBEBUILDER_ASSETS must name a folder with etcd and kube-apiserver");
    let path = Path::new(&assets).join(program);
    let log = File::create(directory.join(format!("{program}.log"))).expect("a writable directory");
    let child = Command::new(&path)
        .args(
            flags
                .iter()
                .map(|(flag, value)| format!("--{flag}={value}")),
        )
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", path.display()));
    Process(child)
}
