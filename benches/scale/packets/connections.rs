//! What a TCP connection costs through the node: connect, one byte there and back, close.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::super::cluster::{ENDPOINT_PORT, PORT};
use super::rounds::{Random, Values, interleaved};
use super::sender::Flusher;
use super::subjects::Lane;

/// Connections of a round.
const CONNECTIONS: u32 = 200;

/// Nanoseconds for a connection, of each lane, from a Pod to one of so many Services at random.
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
    stream.write_all(b"?").expect("a byte there");
    stream.read_exact(&mut [0]).expect("a byte back");
}

/// Serves in the namespace of endpoints until the benchmark ends.
fn serve(lane: &Lane) {
    // Where a rule translates the port, and where none does.
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
