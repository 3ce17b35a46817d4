//! Real servers: each says its name and the peer that it saw.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Namespace;

/// A server of TCP and UDP on some addresses.
///
/// It answers `NAME PEER-IP:PORT` and a line end: to each UDP datagram, to a TCP connection when
/// it is accepted and then to whatever is written to it, until the client closes.
#[derive(Debug)]
pub(crate) struct Server {
    /// Closing our end ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it; it accepts connections when this returns.
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
            // A panic of its thread has been printed; a second one here would hide the first.
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
                    // A peer that is gone is no concern of the server.
                    let _lost = datagrams.send_to(format!("{name} {peer}\n").as_bytes(), peer);
                }
            }
            self.connections
                .retain(|(stream, peer)| converse(stream, name, *peer));
        }
    }

    /// Waits until a socket has something to read; false when the server is to stop.
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

/// Answers what a client wrote on its connection; false when the connection is over.
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
