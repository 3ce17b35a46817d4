//! The tests' own API server: lists and watches over TLS like the real one, with faults on demand.
//!
//! A server runs on its own thread. A cluster can have several.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

mod answer;
mod contents;
mod events;
mod faults;
mod form;
mod garbage;
mod line;
mod listen;
mod media;
mod observed;
pub(crate) mod protobuf;
mod resource;
mod selector;
mod shared;
mod single;
mod state;
mod store;
mod tls;
mod watching;

pub(crate) use media::Encodings;
pub(crate) use state::{Connections, Fault, Garbage, Gone, Request, StreamingLists};
pub(crate) use tls::Authority;

use shared::{Cluster, Shared};
use store::KINDS;

/// Any free port.
const FREE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A server that serves until it is dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    authority: Arc<Authority>,
    address: SocketAddr,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server without objects at a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::start_at(FREE)
    }

    /// Starts a server without objects at `address`, in the network namespace of this thread.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let shared = Shared::new(Arc::new(Cluster::new()), "a-token".to_owned());
        Self::serve(address, Arc::new(Authority::new()), shared)
    }

    /// Starts another server of the same cluster: the same objects and credentials, and faults of
    /// its own.
    pub(crate) fn replica(&self) -> Self {
        self.replica_at(FREE)
    }

    /// Does the same at `address`, in the network namespace of this thread.
    pub(crate) fn replica_at(&self, address: SocketAddr) -> Self {
        let shared = Shared::new(Arc::clone(&self.shared.cluster), self.token());
        Self::serve(address, Arc::clone(&self.authority), shared)
    }

    fn serve(address: SocketAddr, authority: Arc<Authority>, shared: Shared) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(shared);
        let (stop, stopped) = oneshot::channel();
        let serving = listen::serve(
            listener,
            authority.server(address.ip()),
            Arc::clone(&shared),
        );
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        let server = Self {
            shared,
            authority,
            address,
            directory: TempDir::new().expect("a directory"),
            stop: Some(stop),
            thread: Some(thread),
        };
        server.write_kubeconfig("kubeconfig", &json!({"token": server.token()}));
        server
    }

    /// Returns the URL of the server.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the address at which the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the bearer token that requests need.
    pub(crate) fn token(&self) -> String {
        self.shared.look().token.clone()
    }

    /// Writes a kubeconfig with the CA and the token.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Writes a kubeconfig with the CA and `user` (the `user` of a kubeconfig's entry of `users`).
    pub(crate) fn write_kubeconfig(&self, name: &str, user: &Value) -> PathBuf {
        let ca = self.write("ca.crt", &self.authority.certificate());
        self.write(name, &kubeconfig(&self.url(), &ca, user))
    }

    /// Writes a file into the directory of the server.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("a writable directory");
        path
    }

    /// Returns the certificate authority of the server and of its clients.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the directory of the server, which is removed with it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sets the bearer token that requests need from now on.
    pub(crate) fn set_token(&self, token: &str) {
        self.shared
            .change(|state| token.clone_into(&mut state.token));
    }

    /// Creates or replaces an object, in the collection of its `kind`.
    pub(crate) fn apply(&self, object: Value) {
        let name = object["kind"].as_str().expect("a kind");
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let kind = kind.expect("a kind that is served");
        let cluster = &self.shared.cluster;
        cluster.change(|contents| contents.apply(kind, object));
    }

    /// Deletes `key`, which is `namespace/name` or `name`.
    pub(crate) fn delete(&self, plural: &str, key: &str) {
        let cluster = &self.shared.cluster;
        cluster.change(|contents| contents.delete(plural, key));
    }

    /// Returns the version of the newest object.
    pub(crate) fn version(&self) -> u64 {
        self.shared.cluster.contents().version
    }
}

/// Builds a kubeconfig for `server` with the CA certificate in the file `ca`.
pub(crate) fn kubeconfig(server: &str, ca: &Path, user: &Value) -> String {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": server, "certificate-authority": ca,
        }}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    // JSON is YAML.
    kubeconfig.to_string()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
