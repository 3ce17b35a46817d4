//! Listeners with two accept queues: one for connections of this node, one for other hosts.
//!
//! In a single queue the connections of a flood would delay a probe of the kubelet. So two sockets
//! listen at one address (`SO_REUSEPORT`), and a program in the kernel selects the socket of each
//! connection.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReusePort};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tracing::debug;

use super::steer;

/// The length of an accept queue, at most `net.core.somaxconn`.
///
/// The kernel drops further connections, and a probe whose SYN is dropped retries only after a
/// second.
const BACKLOG: u32 = 4096;

/// The sockets that listen at one address.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The socket for this node; without it, `other` serves this node too.
    pub(super) own: Option<TcpListener>,
    /// The socket for other hosts.
    pub(super) other: TcpListener,
}

/// Listens at an address of this node, of its own family only.
///
/// The socket for the node itself belongs to the runtime `own`.
///
/// # Errors
/// If the port is in use, even by another kube-dnat.
pub(super) fn listen(at: SocketAddr, own: &Handle) -> io::Result<Listeners> {
    open(at, Families::One, own)
}

/// Listens at an address; `0.0.0.0` means both families, as in Go's `net.Listen` and so in
/// kube-proxy.
///
/// # Errors
/// If the port is in use.
pub(super) fn listen_everywhere(at: SocketAddr, own: &Handle) -> io::Result<Listeners> {
    if !at.ip().is_unspecified() {
        return open(at, Families::One, own);
    }
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), at.port());
    match open(everywhere, Families::Both, own) {
        // The node has no IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && at.is_ipv4() => {
            open(at, Families::One, own)
        }
        result => result,
    }
}

/// The families of the connections that a socket accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    /// The socket accepts the family of its address.
    One,
    /// An IPv6 socket accepts IPv4 too.
    Both,
}

/// Listens at an address, with two sockets if the kernel allows it.
fn open(at: SocketAddr, families: Families, own: &Handle) -> io::Result<Listeners> {
    // The first bind is exclusive, so that a port in use is an error even if another process shares
    // it.
    let first = socket(at, families)?;
    first.bind(at)?;
    let second = share(&first, at, families);
    match second {
        Ok(second) => {
            // The order of `listen` numbers the sockets (net/core/sock_reuseport.c).
            let own = {
                let _runtime = own.enter();
                first.listen(BACKLOG)?
            };
            Ok(Listeners {
                own: Some(own),
                other: second.listen(BACKLOG)?,
            })
        }
        Err(error) => {
            debug!(%at, %error, "connections of this node have no accept queue of their own");
            Ok(Listeners {
                own: None,
                other: first.listen(BACKLOG)?,
            })
        }
    }
}

/// Opens a second socket at the address of the first.
fn share(first: &TcpSocket, at: SocketAddr, families: Families) -> io::Result<TcpSocket> {
    setsockopt(first, ReusePort, &true)?;
    steer::attach(first.as_fd())?;
    let second = socket(at, families)?;
    setsockopt(&second, ReusePort, &true)?;
    second.bind(at)?;
    Ok(second)
}

/// Opens a socket with the options of a listener.
fn socket(at: SocketAddr, families: Families) -> io::Result<TcpSocket> {
    let socket = match at {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            setsockopt(&socket, Ipv6V6Only, &(families == Families::One))?;
            socket
        }
    };
    // Connections of the previous process may linger after a restart.
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_connection_of_the_node_is_in_the_nodes_queue() {
        for at in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ] {
            let free = std::net::TcpListener::bind(at).expect("a free port");
            let at = free.local_addr().expect("its address");
            drop(free);
            let listeners = listen(at, &Handle::current()).expect("listeners");
            let own = listeners.own.expect("a queue for the node");
            // Without the program, a hash selects the socket of each connection.
            for _ in 0..32 {
                let _stream = TcpStream::connect(at).await.expect("a connection");
                let accepted = own.accept().await.expect("the same");
                drop(accepted);
            }
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_even_if_it_is_shared() {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let free = std::net::TcpListener::bind(at).expect("a free port");
        let at = free.local_addr().expect("its address");
        let in_use = |result: io::Result<Listeners>| {
            let error = result.expect_err("in use");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        };
        in_use(listen(at, &Handle::current()));
        drop(free);
        let _listeners = listen(at, &Handle::current()).expect("listeners");
        in_use(listen(at, &Handle::current()));
        in_use(listen_everywhere(
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port())),
            &Handle::current(),
        ));
    }
}
