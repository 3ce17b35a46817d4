//! Listeners with two queues: one for connections of this node, one for those of others.
//!
//! A listener has one queue of connections, and those of a flood would be before a probe of the
//! kubelet. So two listen at one address (`SO_REUSEPORT`), and a program in the kernel tells which of
//! them gets a connection.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReusePort};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tracing::debug;

use super::steer;

/// How many connections the kernel keeps until they are accepted. It drops what goes beyond, and a
/// probe whose SYN is dropped comes again only after a second. `net.core.somaxconn` is the most.
const BACKLOG: u32 = 4096;

/// What listens at an address.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// For this node; `None`: `others` is for it, too.
    pub(super) own: Option<TcpListener>,
    /// For everyone else.
    pub(super) others: TcpListener,
}

/// Listens at an address of this node, of its own family only. What listens for the node itself belongs
/// to the runtime of `own`.
///
/// # Errors
/// If the port is in use, by another kube-dnat as well.
pub(super) fn listen(at: SocketAddr, own: &Handle) -> io::Result<Listeners> {
    open(at, true, own)
}

/// Listens at an address; at `0.0.0.0` in both families, as Go's `net.Listen` does, and so
/// kube-proxy.
///
/// # Errors
/// If the port is in use.
pub(super) fn listen_everywhere(at: SocketAddr, own: &Handle) -> io::Result<Listeners> {
    if !at.ip().is_unspecified() {
        return open(at, true, own);
    }
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), at.port());
    match open(everywhere, false, own) {
        // No IPv6 here.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && at.is_ipv4() => {
            open(at, true, own)
        }
        result => result,
    }
}

fn open(at: SocketAddr, of_own_family: bool, own: &Handle) -> io::Result<Listeners> {
    // It is bound alone, so that a port in use is an error, whoever uses it.
    let first = socket(at, of_own_family)?;
    first.bind(at)?;
    let second = share(&first, at, of_own_family);
    match second {
        Ok(second) => {
            // They are numbered in this order (net/core/sock_reuseport.c).
            let own = {
                let _on_its_runtime = own.enter();
                first.listen(BACKLOG)?
            };
            Ok(Listeners {
                own: Some(own),
                others: second.listen(BACKLOG)?,
            })
        }
        Err(error) => {
            debug!(%at, %error, "connections of this node have no queue of their own");
            Ok(Listeners {
                own: None,
                others: first.listen(BACKLOG)?,
            })
        }
    }
}

/// A second socket at the address of the first.
fn share(first: &TcpSocket, at: SocketAddr, of_own_family: bool) -> io::Result<TcpSocket> {
    setsockopt(first, ReusePort, &true)?;
    steer::attach(first.as_fd())?;
    let second = socket(at, of_own_family)?;
    setsockopt(&second, ReusePort, &true)?;
    second.bind(at)?;
    Ok(second)
}

fn socket(at: SocketAddr, of_own_family: bool) -> io::Result<TcpSocket> {
    let socket = match at {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            setsockopt(&socket, Ipv6V6Only, &of_own_family)?;
            socket
        }
    };
    // After a restart, connections of the last process may still linger.
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_connection_of_the_node_is_in_its_own_queue() {
        for at in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ] {
            let free = std::net::TcpListener::bind(at).expect("a free port");
            let at = free.local_addr().expect("its address");
            drop(free);
            let listeners = listen(at, &Handle::current()).expect("listeners");
            let own = listeners.own.expect("a queue of its own");
            // Between two of one group chance decides where no program does.
            for _ in 0..32 {
                let _stream = TcpStream::connect(at).await.expect("a connection");
                let accepted = own.accept().await.expect("the same");
                drop(accepted);
            }
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_also_if_it_is_shared() {
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
