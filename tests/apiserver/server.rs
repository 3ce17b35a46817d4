//! A server that speaks list and watch as the API server does, over TLS, to who has its token.
//!
//! Behaviour after <https://kubernetes.io/docs/reference/using-api/api-concepts/>: paging, watches
//! from a resource version, bookmarks, streaming lists, 410 Gone.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::respond::respond;

pub(crate) const TOKEN: &str = "the-token-of-node-1";

/// How it takes `sendInitialEvents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamingLists {
    /// As Kubernetes 1.34 does.
    Known,
    /// 422 Invalid: the feature gate is off.
    Refused,
    /// It is older than that and does not see the parameter.
    Unknown,
}

/// One change: resource version, plural, type of event, object.
pub(crate) type Change = (u64, String, &'static str, Value);

/// What the server holds and how it behaves.
pub(crate) struct State {
    pub(crate) version: u64,
    /// By plural and `namespace/name`.
    pub(crate) objects: BTreeMap<(String, String), Value>,
    pub(crate) log: Vec<Change>,
    /// Watches from before this version are Gone.
    pub(crate) oldest: u64,
    /// Whether they hear so by an event, instead of the status of the answer.
    pub(crate) gone_by_event: bool,
    pub(crate) streaming: StreamingLists,
    /// Plurals with the status that their next request is answered with.
    pub(crate) failures: VecDeque<(&'static str, u16)>,
    /// Plurals that are always answered with a status.
    pub(crate) denied: BTreeMap<&'static str, u16>,
    /// Lists break off after this many pages.
    pub(crate) broken_pages: Option<usize>,
    pub(crate) hang: bool,
    pub(crate) token: &'static str,
    /// Path and query of every request.
    pub(crate) requests: Vec<String>,
}

/// The server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Counts changes, which watches wait for.
    changed: watch::Sender<u64>,
    /// Counts the times that all watches were closed.
    closed: watch::Sender<u64>,
    ca: String,
    tls: Arc<ServerConfig>,
    accepting: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// What a connection needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) changed: watch::Receiver<u64>,
    pub(crate) closed: watch::Receiver<u64>,
}

impl Server {
    /// Starts on a port of its own.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ca, tls) = certificates();
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(State {
                version: 100,
                objects: BTreeMap::new(),
                log: Vec::new(),
                oldest: 0,
                gone_by_event: false,
                streaming: StreamingLists::Known,
                failures: VecDeque::new(),
                denied: BTreeMap::new(),
                broken_pages: None,
                hang: false,
                token: TOKEN,
                requests: Vec::new(),
            })),
            changed: watch::channel(0).0,
            closed: watch::channel(0).0,
            ca,
            tls,
            accepting: Mutex::new(None),
        };
        server.accept(listener);
        server
    }

    fn accept(&self, listener: TcpListener) {
        let shared = Shared {
            state: Arc::clone(&self.state),
            changed: self.changed.subscribe(),
            closed: self.closed.subscribe(),
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, acceptor.clone(), shared.clone()));
            }
        });
        *self.accepting.lock().unwrap() = Some(task);
    }

    /// Goes away, with every connection; the address stays its own.
    pub(crate) async fn stop(&self) {
        let task = self.accepting.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _aborted = task.await;
        }
    }

    /// Comes back after [`Self::stop`].
    pub(crate) async fn come_back(&self) {
        self.accept(TcpListener::bind(self.address).await.unwrap());
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Creates or changes an object.
    pub(crate) fn apply(&self, object: &Value) {
        let mut object = object.clone();
        let plural = plural(object["kind"].as_str().unwrap()).to_owned();
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["metadata"]["managedFields"] =
            json!([{"manager": "kubectl", "fieldsV1": {"f": {}}}]);
        let key = (plural.clone(), name(&object));
        let before = state.objects.insert(key, object.clone());
        let kind = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.log.push((version, plural, kind, object));
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, plural: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let key = (plural.to_owned(), name.to_owned());
        let mut object = state.objects.remove(&key).expect("the object is there");
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state
            .log
            .push((version, plural.to_owned(), "DELETED", object));
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Ends every watch, as the server does after its time-out.
    pub(crate) fn close_watches(&self) {
        self.closed.send_modify(|count| *count += 1);
    }

    /// Forgets every change so far: who watches from before must list again.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.version += 1;
        state.oldest = state.version;
        state.log.clear();
    }

    /// The requests for a plural so far.
    pub(crate) fn requests(&self, plural: &str) -> Vec<String> {
        let state = self.state();
        let of = |request: &&String| request.split('?').next().unwrap().ends_with(plural);
        state.requests.iter().filter(of).cloned().collect()
    }

    /// Writes a kubeconfig with this token.
    pub(crate) fn kubeconfig(&self, folder: &Path, token: &str) -> PathBuf {
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, &self.ca).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": ca}}],
            "users": [{"name": "node", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "node"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Shared) {
    // Who does not like the certificate, or goes away, is no concern of the server's.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(respond(&request, shared).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _gone = connection.await;
}

/// The PEM of a CA, and a configuration with a certificate of it for 127.0.0.1.
fn certificates() -> (String, Arc<ServerConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (ca.pem(), Arc::new(config))
}

pub(crate) fn plural(kind: &str) -> &'static str {
    match kind {
        "Service" => "services",
        "EndpointSlice" => "endpointslices",
        "Node" => "nodes",
        "ServiceCIDR" => "servicecidrs",
        other => panic!("{other} is not served"),
    }
}

/// `namespace/name`, or `name` of a cluster-wide kind.
fn name(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap();
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// A line of a watch.
pub(crate) fn line(kind: &str, object: &Value) -> Bytes {
    // The order of the fields is the API server's.
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}
