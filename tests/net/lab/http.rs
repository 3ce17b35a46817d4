//! HTTP requests to the daemon.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{DEADLINE, Host, probe::BRIEFLY};

/// Sends a request (`METHOD /path`) with a body; returns the whole answer.
pub(crate) fn ask(from: &Host, to: (IpAddr, u16), what: &str, body: &str) -> io::Result<String> {
    ask_with(from, to, what, "", body)
}

/// Does the same with more header lines, each with its end.
pub(crate) fn ask_with(
    from: &Host,
    to: (IpAddr, u16),
    what: &str,
    headers: &str,
    body: &str,
) -> io::Result<String> {
    exchange(from, to, DEADLINE, what, headers, body)
}

/// Sends a GET request to an address where maybe nothing answers: it waits as long as
/// [`Probe::briefly`](super::Probe::briefly).
pub(crate) fn get_briefly(from: &Host, to: (IpAddr, u16), path: &str) -> io::Result<String> {
    exchange(from, to, BRIEFLY, &format!("GET {path}"), "", "")
}

/// Returns the status code of an answer.
pub(crate) fn status(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}

fn exchange(
    from: &Host,
    to: (IpAddr, u16),
    deadline: Duration,
    what: &str,
    headers: &str,
    body: &str,
) -> io::Result<String> {
    let (to, len) = (SocketAddr::from(to), body.len());
    from.namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, deadline)?;
        stream.set_read_timeout(Some(deadline))?;
        write!(
            stream,
            "{what} HTTP/1.1\r\nHost: {to}\r\n{headers}Content-Length: {len}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}
