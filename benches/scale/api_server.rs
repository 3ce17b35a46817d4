//! The API server that programs are measured against: the tests' own, or the real one.

use std::path::PathBuf;

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::real_server::Real;
use super::server::Server;

/// Requests to the real one that are under way at once.
const AT_ONCE: usize = 32;

/// Of `ClusterIPs`, where the real one hands them out.
const SERVICE_RANGE: &str = "10.96.0.0/12";

/// An API server in the namespace of the thread that made it.
pub(crate) enum ApiServer {
    Own(Box<Server>),
    Real(Runtime, Box<Real>),
}

impl ApiServer {
    /// The real one where `KUBEBUILDER_ASSETS` is set.
    pub(crate) fn start() -> Self {
        if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
            return Self::Own(Server::start().into());
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let real = Box::new(runtime.block_on(Real::start(SERVICE_RANGE)));
        Self::Real(runtime, real)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own(server) => server.kubeconfig(),
            Self::Real(_, real) => real.kubeconfig(),
        }
    }

    /// Creates or replaces objects, in whatever order.
    pub(crate) fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        match self {
            Self::Own(server) => objects.into_iter().for_each(|object| server.apply(object)),
            Self::Real(runtime, real) => {
                let applied = stream::iter(objects).map(|object| real.apply(object));
                runtime.block_on(applied.buffer_unordered(AT_ONCE).collect::<()>());
            }
        }
    }
}
