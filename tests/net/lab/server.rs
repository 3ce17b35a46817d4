//! Real servers: each answers with its name and the address of its peer.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Namespace;

/// A TCP and UDP server on some addresses.
///
/// It answers `NAME PEER-IP:PORT` and a line end to each UDP datagram. It sends the same line on
/// each TCP connection that it accepts, and again for each message of the client.
#[derive(Debug)]
pub(crate) struct Server {
    /// The thread exits when this end is closed.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the server. The server accepts connections when this function returns.
    pub(crate) fn start(namespace: &Namespace, name: &str, addresses: &[SocketAddr]) -> Self {
        let sockets = namespace
            .run(|| Sockets::bind(addresses))
            .expect("bind a server");
        let (stop, stopped) = UnixStream::pair().expect("a socket pair");
        let name = name.to_owned();
        let thread = thread::spawn(move || sockets.serve(&name, &stopped));
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic of the thread is already printed; a second panic here would hide it.
            let _panicked = thread.join();
        }
    }
}

struct Sockets {
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    connections: Vec<(TcpStream, SocketAddr)>,
}

impl Sockets {
    fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut sockets = Self {
            listeners: Vec::new(),
            datagrams: Vec::new(),
            connections: Vec::new(),
        };
        for address in addresses {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            sockets.listeners.push(listener);
            let datagrams = UdpSocket::bind(address)?;
            datagrams.set_nonblocking(true)?;
            sockets.datagrams.push(datagrams);
        }
        Ok(sockets)
    }

    fn serve(mut self, name: &str, stopped: &UnixStream) {
        while self.wait(stopped) {
            for listener in &self.listeners {
                while let Ok((stream, peer)) = listener.accept() {
                    if stream.set_nonblocking(true).is_ok() && answer_stream(&stream, name, peer) {
                        self.connections.push((stream, peer));
                    }
                }
            }
            for datagrams in &self.datagrams {
                let mut buffer = [0; 2048];
                while let Ok((_, peer)) = datagrams.recv_from(&mut buffer) {
                    // The peer may have closed its socket.
                    let _lost = datagrams.send_to(format!("{name} {peer}\n").as_bytes(), peer);
                }
            }
            self.connections
                .retain(|(stream, peer)| converse(stream, name, *peer));
        }
    }

    /// Waits until a socket is readable. Returns false when the server must stop.
    fn wait(&self, stopped: &UnixStream) -> bool {
        let sockets = (self.listeners.iter().map(|socket| socket.as_fd()))
            .chain(self.datagrams.iter().map(|socket| socket.as_fd()))
            .chain(self.connections.iter().map(|(socket, _)| socket.as_fd()));
        let mut polled: Vec<_> = std::iter::once(stopped.as_fd())
            .chain(sockets)
            .map(|socket| PollFd::new(socket, PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::NONE).expect("poll");
        polled.first().and_then(PollFd::any) != Some(true)
    }
}

/// Answers a message on a connection. Returns false when the connection is closed.
fn converse(mut stream: &TcpStream, name: &str, peer: SocketAddr) -> bool {
    let mut buffer = [0; 2048];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(_) => answer_stream(stream, name, peer),
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn answer_stream(mut stream: &TcpStream, name: &str, peer: SocketAddr) -> bool {
    stream
        .write_all(format!("{name} {peer}\n").as_bytes())
        .is_ok()
}
