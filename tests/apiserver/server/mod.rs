//! The tests' own API server: lists and watches over TLS like the real one, with faults on demand.
//!
//! It runs on its own thread, at 127.0.0.1.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

mod answer;
mod events;
mod selector;
mod state;
mod store;
mod tls;
mod watching;

pub(crate) use state::{Fault, Gone, Request, StreamingLists};
pub(crate) use tls::Authority;

use state::{Shared, State};
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
        let acceptor = TlsAcceptor::from(authority.server());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::new());
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, acceptor, Arc::clone(&shared));
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
        let token = server.shared.look().token.clone();
        server.write_kubeconfig("kubeconfig", &json!({"token": token}));
        server
    }

    /// Returns the URL of the server.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
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

    /// Sets the answer to streaming lists from now on.
    pub(crate) fn set_streaming_lists(&self, streaming_lists: StreamingLists) {
        self.shared
            .change(|state| state.streaming_lists = streaming_lists);
    }

    /// Compacts all changes until now: watches from before get 410 in the given form.
    pub(crate) fn compact(&self, gone: Gone) {
        self.shared.change(|state| {
            state.gone = gone;
            // A watch that received the last change can continue.
            state.compacted = state.version;
            for collection in state.collections.values_mut() {
                collection.compact(state.version);
            }
        });
    }

    /// Answers the next `times` requests for `plural`, with `part` in their query, by `fault`.
    pub(crate) fn fail(&self, plural: &str, part: &str, fault: Fault, times: u32) {
        let entry = (plural.to_owned(), part.to_owned(), fault, times);
        self.shared.change(|state| state.faults.push(entry));
    }

    /// Answers all requests for `plural` with `status` until it is [`Server::admit`]ted.
    pub(crate) fn bar(&self, plural: &str, status: u16) {
        self.shared
            .change(|state| state.barred.insert(plural.to_owned(), status));
    }

    /// Reverts [`Server::bar`].
    pub(crate) fn admit(&self, plural: &str) {
        self.shared.change(|state| state.barred.remove(plural));
    }

    /// Ends all open watches as if their timeout expired.
    pub(crate) fn close_watches(&self) {
        self.shared.change(|state| state.orders.close += 1);
    }

    /// Ends each watch of `plural` from now on after its first objects.
    pub(crate) fn end_watches_at_once(&self, plural: &str) {
        self.shared
            .change(|state| state.brief.insert(plural.to_owned()));
    }

    /// Cuts the connections of all open watches.
    pub(crate) fn cut_watches(&self) {
        self.shared.change(|state| state.orders.cut += 1);
    }

    /// Silences all open watches for good.
    pub(crate) fn hang_watches(&self) {
        self.shared.change(|state| state.orders.hang += 1);
    }

    /// Sends a bookmark to all open watches.
    pub(crate) fn send_bookmarks(&self) {
        self.shared.change(|state| state.orders.bookmark += 1);
    }

    /// Cuts all connections, and each new one, until [`Server::come_up`].
    pub(crate) fn go_down(&self) {
        self.shared.change(|state| state.down = true);
    }

    /// Serves again.
    pub(crate) fn come_up(&self) {
        self.shared.change(|state| state.down = false);
    }

    /// Returns the requests for `plural` so far.
    pub(crate) fn requests(&self, plural: &str) -> Vec<Request> {
        let state = self.shared.look();
        let requests = state.requests.iter();
        requests
            .filter(|request| request.plural == plural)
            .cloned()
            .collect()
    }

    /// Returns the Events that were written so far, in order.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.shared.look().events.all().to_vec()
    }

    /// Waits until `count` Events were written.
    pub(crate) async fn until_events(&self, count: usize) {
        let written = |state: &State| state.events.all().len();
        self.shared.until(|state| written(state) >= count).await;
    }

    /// Returns whether `key` was ever sent to a client.
    pub(crate) fn has_sent(&self, plural: &str, key: &str) -> bool {
        let state = self.shared.look();
        let sent = state.sent.get(plural);
        sent.is_some_and(|keys| keys.contains(key))
    }

    /// Waits until there were `count` requests for `plural`.
    pub(crate) async fn until_requested(&self, plural: &str, count: usize) {
        let requests = |state: &State| {
            let of_plural = state.requests.iter().filter(|it| it.plural == plural);
            of_plural.count()
        };
        self.shared.until(|state| requests(state) >= count).await;
    }

    /// Waits until exactly `count` watches of `plural` are open.
    pub(crate) async fn until_watched(&self, plural: &str, count: usize) {
        let watches = |state: &State| state.watches.get(plural).copied().unwrap_or_default();
        self.shared.until(|state| watches(state) == count).await;
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

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    loop {
        if let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = shared.until(|state| state.down) => {}
                    () = connection(tcp, acceptor, Arc::clone(&shared)) => {}
                }
            });
        }
    }
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    tcp.set_nodelay(true).ok();
    let Ok(tls) = acceptor.accept(tcp).await else {
        return;
    };
    let has_certificate = tls.get_ref().1.peer_certificates().is_some();
    let service =
        service_fn(move |request| answer::answer(Arc::clone(&shared), request, has_certificate));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(tls), service);
    connection.await.ok();
}
