//! The tests' own API server: lists and watches over TLS like the real one, with faults on demand.
//!
//! It runs on its own thread, at 127.0.0.1.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

mod answer;
mod events;
mod faults;
mod form;
mod line;
mod listen;
mod media;
mod observed;
pub(crate) mod protobuf;
mod selector;
mod state;
mod store;
mod tls;
mod watching;

pub(crate) use media::Encodings;
pub(crate) use state::{Connections, Fault, Gone, StreamingLists};
pub(crate) use tls::Authority;

use state::Shared;
use store::KINDS;

/// A server that serves until it is dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    authority: Authority,
    address: SocketAddr,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server without objects.
    pub(crate) fn start() -> Self {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::new());
        let (stop, stopped) = oneshot::channel();
        let serving = listen::serve(listener, authority.server(), Arc::clone(&shared));
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
        self.shared.change(|state| {
            state.version += 1;
            let version = state.version;
            state.collection(kind.plural).apply(kind, object, version);
        });
    }

    /// Deletes `key`, which is `namespace/name` or `name`.
    pub(crate) fn delete(&self, plural: &str, key: &str) {
        self.shared.change(|state| {
            state.version += 1;
            let version = state.version;
            state.collection(plural).delete(key, version);
        });
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
