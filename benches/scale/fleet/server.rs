//! The API server of a fleet, in a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::super::api_server::ApiServer;
use super::super::process;
use super::super::server::Server;
use super::worker::{self, Worker};

/// The command after which the server restarts; any other is an array of objects.
const RESTART: &str = "restart";

pub(super) enum FleetServer {
    Own {
        worker: Worker,
        kubeconfig: PathBuf,
        port: u16,
    },
    Real(ApiServer),
}

/// Runs the tests' own API server in this process, without arguments.
pub(in super::super) fn serve() {
    let server = Server::start();
    println!(
        "{} {}",
        server.address().port(),
        server.kubeconfig().display()
    );
    worker::answer(|command| {
        if command == RESTART {
            server.restart();
        } else {
            let objects: Vec<Value> = serde_json::from_str(command).expect("objects");
            for object in objects {
                server.apply(object);
            }
        }
        String::new()
    });
}

impl FleetServer {
    /// Starts the tests' own API server, or the real one.
    pub(super) fn start(is_real: bool) -> Self {
        if is_real {
            return Self::Real(ApiServer::start());
        }
        let mut worker = Worker::start(["fleet-server"]);
        let line = worker.line();
        let (port, kubeconfig) = line.split_once(' ').expect("a port and a kubeconfig");
        Self::Own {
            kubeconfig: kubeconfig.into(),
            port: port.parse().expect("a port"),
            worker,
        }
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own { kubeconfig, .. } => kubeconfig.clone(),
            Self::Real(server) => server.kubeconfig(),
        }
    }

    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Own { port, .. } => *port,
            Self::Real(server) => server.port(),
        }
    }

    /// Creates or replaces objects, in any order.
    pub(super) fn apply(&mut self, objects: Vec<Value>) {
        match self {
            Self::Own { worker, .. } => {
                worker.ask(&Value::from(objects).to_string());
            }
            Self::Real(server) => server.apply(objects),
        }
    }

    /// Cuts all connections; a real server starts a new process.
    pub(super) fn restart(&mut self) {
        match self {
            Self::Own { worker, .. } => {
                worker.ask(RESTART);
            }
            Self::Real(server) => server.restart(),
        }
    }

    /// Returns the CPU time of the process.
    pub(super) fn cpu(&self) -> Duration {
        match self {
            Self::Own { worker, .. } => worker.cpu(),
            Self::Real(server) => process::cpu(server.process_id()),
        }
    }
}
