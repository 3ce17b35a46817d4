//! The cost of a TCP connection through the node: connect, one byte in each direction, close.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::super::cluster::{ENDPOINT_PORT, PORT};
use super::rounds::{Random, Values, interleaved};
use super::sender::Flusher;
use super::subjects::Lane;

/// The number of connections in a round.
const CONNECTIONS: u32 = 200;

/// Measures connections from a Pod to random Services on each lane, in nanoseconds.
pub(crate) fn connections(lanes: &[Lane], used: u32) -> Vec<Values> {
    let lanes = lanes.iter().map(|lane| {
        serve(lane);
        (lane, Flusher::new(&lane.bed.node))
    });
    let mut lanes: Vec<_> = lanes.collect();
    interleaved(&mut lanes, |(lane, flusher), round| {
        flusher.flush();
        lane.bed.pod.run(|| {
            let mut random = Random::new(round);
            let started = Instant::now();
            for _ in 0..CONNECTIONS {
                let address = lane.cluster.frontend(random.below(used));
                connect(SocketAddrV4::new(address, PORT));
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(CONNECTIONS)
        })
    })
}

fn connect(to: SocketAddrV4) {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.write_all(b"?").expect("a byte sent");
    stream.read_exact(&mut [0]).expect("a byte received");
}

/// Serves in the namespace of endpoints until the benchmark exits.
fn serve(lane: &Lane) {
    // The port of endpoints, and the port of Services for subjects that do not translate it.
    for port in [ENDPOINT_PORT, PORT] {
        let listener = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port");
        let listener = lane.bed.endpoints.run(listener);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                stream.read_exact(&mut [0]).expect("a byte");
                stream.write_all(b"!").expect("a byte");
            }
        });
    }
}
