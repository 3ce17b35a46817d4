//! The API server of the benchmarks: the tests' own, or a real one.

use std::path::PathBuf;

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::real_server::Real;
use super::server::Server;

/// The maximum number of concurrent requests to a real API server.
const MAX_REQUESTS: usize = 32;

/// The range from which a real API server allocates `ClusterIPs`.
const SERVICE_RANGE: &str = "10.96.0.0/12";

/// An API server in the network namespace of the thread that started it.
pub(crate) enum ApiServer {
    Own(Box<Server>),
    Real(Runtime, Box<Real>),
}

impl ApiServer {
    /// Starts an API server, a real one if `KUBEBUILDER_ASSETS` is set.
    pub(crate) fn start() -> Self {
        if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
            return Self::Own(Server::start().into());
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let real = Box::new(runtime.block_on(Real::start(SERVICE_RANGE)));
        Self::Real(runtime, real)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own(server) => server.kubeconfig(),
            Self::Real(_, real) => real.kubeconfig(),
        }
    }

    /// Returns the port at which the server listens.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Own(server) => server.address().port(),
            Self::Real(_, real) => real.port(),
        }
    }

    /// Returns the id of the process that serves.
    pub(crate) fn process_id(&self) -> u32 {
        match self {
            Self::Own(_) => std::process::id(),
            Self::Real(_, real) => real.process_id(),
        }
    }

    /// Restarts the server, or cuts all connections of the tests' own.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Own(server) => server.restart(),
            Self::Real(runtime, real) => runtime.block_on(real.restart()),
        }
    }

    /// Creates or replaces objects, in any order.
    pub(crate) fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        match self {
            Self::Own(server) => objects.into_iter().for_each(|object| server.apply(object)),
            Self::Real(runtime, real) => {
                let applied = stream::iter(objects).map(|object| real.apply(object));
                runtime.block_on(applied.buffer_unordered(MAX_REQUESTS).collect::<()>());
            }
        }
    }
}
