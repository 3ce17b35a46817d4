//! Programs that serve a port, such as nginx.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Family, Host, wait_until};

/// A running program. Dropping it stops the program.
pub(crate) struct Program(Child);

impl Program {
    /// Starts a server and waits until it listens.
    pub(crate) fn start(host: &Host, command: &mut Command, port: u16) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let running = Self(host.namespace.spawn(command));
        for family in Family::ALL {
            let to = SocketAddr::new(host.ip(family), port);
            wait_until(&format!("{} listens", host.name()), || {
                host.namespace.run(|| TcpStream::connect(to)).is_ok()
            });
        }
        running
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // If the program has already exited, the test has already failed.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// nginx in a Pod. `/name` answers with the Pod's name and a line end.
pub(crate) struct WebServer {
    _program: Program,
    directory: TempDir,
}

impl WebServer {
    /// Starts nginx on a port of both families.
    pub(crate) fn start(pod: &Host, port: u16) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, name) = (directory.path().display(), pod.name());
        let listen = Family::ALL.map(|family| SocketAddr::new(pod.ip(family), port));
        let [v4, v6] = listen.map(|address| format!("listen {address} backlog=4096;"));
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {path}/{kind};"));
        let conf = format!(
            "daemon off; user root root; worker_processes 1; pid {path}/pid; error_log {path}/error;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 100000; {} server {{ {v4} {v6}\n\
             location = /name {{ return 200 \"{name}\\n\"; }}\n\
             location = /file {{ root {path}; limit_rate 100m; }} }} }}\n",
            temporary.join(" ")
        );
        fs::write(directory.path().join("nginx.conf"), conf).expect("a configuration");
        let mut command = Command::new("nginx");
        command.args(["-p", &path.to_string(), "-c", "nginx.conf", "-e", "error"]);
        Self {
            _program: Program::start(pod, &mut command, port),
            directory,
        }
    }

    /// Returns the directory of its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}
