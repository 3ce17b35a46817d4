//! One connection or one flow of a client.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::SockRef;

use super::history::{Answered, Attempt};
use super::services::{Pods, Target};
use crate::lab::{Family, Protocol, patient};

/// The time after which a client gives up. Linux sends a SYN again after 1, 3 and 7 seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// The time after which a client of UDP sends again, from the same port.
const RESEND: Duration = Duration::from_secs(1);

/// Opens a connection, reads who answers, and closes it.
pub(super) fn connection(target: Target, family: Family) -> Attempt {
    let begin = Instant::now();
    let answered = match open(target, family) {
        Ok((stream, pod)) => {
            // Without TIME_WAIT: there are more connections a minute than ports. The connection is
            // over, and it does not matter how.
            let _closed_slowly = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            answered_by(pod)
        }
        Err(error) => Answered::Nobody(name_of(&error)),
    };
    Attempt {
        target,
        family,
        protocol: Protocol::Tcp,
        begin,
        end: Instant::now(),
        answered,
    }
}

/// Sends datagrams from a new socket until one is answered.
pub(super) fn datagram(target: Target, family: Family) -> Attempt {
    ask(&socket(target, family), target, family)
}

/// Sends datagrams from a socket until one is answered.
pub(super) fn ask(socket: &UdpSocket, target: Target, family: Family) -> Attempt {
    let begin = Instant::now();
    let mut answered = Answered::Nobody("no answer");
    // The time of the last datagram: an answer comes from the endpoint of that time.
    let mut sent = begin;
    while begin.elapsed() < patient(PATIENCE) {
        sent = Instant::now();
        let mut buffer = [0; 256];
        // A failure to send is an ICMP error of the last datagram, or a full queue.
        let received = socket.send(b"?\n").and_then(|_| socket.recv(&mut buffer));
        match received {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                answered = answered_by(pod_of(&text));
                break;
            }
            Err(error) => {
                answered = Answered::Nobody(name_of(&error));
                thread::sleep(RESEND.saturating_sub(sent.elapsed()));
            }
        }
    }
    let is_answered = matches!(answered, Answered::By(_));
    Attempt {
        target,
        family,
        protocol: Protocol::Udp,
        begin: if is_answered { sent } else { begin },
        end: Instant::now(),
        answered,
    }
}

/// Connects, and sends a request.
pub(super) fn open(target: Target, family: Family) -> io::Result<(TcpStream, Pods)> {
    let to = SocketAddr::from(target.address(family));
    let mut stream = TcpStream::connect_timeout(&to, patient(PATIENCE))?;
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    let pod = request(&mut stream)?;
    Ok((stream, pod))
}

pub(super) fn socket(target: Target, family: Family) -> UdpSocket {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("a port");
    socket.connect(target.address(family)).expect("a route");
    socket
        .set_read_timeout(Some(patient(RESEND)))
        .expect("a time-out");
    socket
}

/// Sends a request on a connection; returns the Pod that answers.
pub(super) fn request(stream: &mut TcpStream) -> io::Result<Pods> {
    stream.write_all(b"GET /name HTTP/1.1\r\nHost: shop\r\n\r\n")?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 512];
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => answer.extend(&buffer[..length]),
        }
        let text = String::from_utf8_lossy(&answer);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if let Some(name) = body.and_then(|body| body.strip_suffix('\n')) {
            return Ok(Pods::named(name));
        }
    }
}

/// Returns the Pod that wrote `NAME:PORT PEER`; no Pod if another server did.
fn pod_of(answer: &str) -> Pods {
    Pods::named(answer.split(':').next().unwrap_or_default())
}

fn answered_by(pod: Pods) -> Answered {
    if pod.is_empty() {
        Answered::Other
    } else {
        Answered::By(pod)
    }
}

/// Returns the words of the kernel for the failure of a client.
fn name_of(error: &io::Error) -> &'static str {
    let words = error
        .raw_os_error()
        .map(|number| Errno::from_raw(number).desc());
    // A read that gets the end of the stream has no number.
    words.unwrap_or("the connection was closed")
}
