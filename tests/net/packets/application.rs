//! A whole application with real servers: nginx and dnsmasq.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::shop::NODE_PORT;
use super::{Cluster, Daemon, Family, Host, IpAddr, Manifests, Protocol};
use crate::lab::{DEADLINE, Program, Service, Slices, WebServer};

pub(super) fn tests() -> Vec<Trial> {
    use super::application;
    crate::trials!(application:
        a_name_is_resolved_over_udp_and_tcp,
        requests_and_downloads_outlive_their_endpoints,
    )
}

/// Builds a DNS query for a record of a name (RFC 1035).
fn question(id: u16, name: &str, record: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a short label"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(record.to_be_bytes());
    message.extend(1_u16.to_be_bytes());
    message
}

/// Sends one DNS query and returns the answer.
fn ask(protocol: Protocol, server: SocketAddr, question: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 512];
    let length = match protocol {
        Protocol::Udp => {
            let any: IpAddr = if server.is_ipv4() {
                [0; 4].into()
            } else {
                [0_u8; 16].into()
            };
            let socket = UdpSocket::bind((any, 0)).expect("a socket");
            socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            socket.connect(server).expect("connect");
            socket.send(question).expect("ask");
            socket.recv(&mut answer).expect("an answer over UDP")
        }
        Protocol::Tcp => {
            let mut stream = TcpStream::connect(server).expect("connect");
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            let length = u16::try_from(question.len()).expect("a short question");
            let message = [&length.to_be_bytes()[..], question].concat();
            stream.write_all(&message).expect("ask");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("an answer over TCP");
            let length = usize::from(u16::from_be_bytes(length));
            let answer = answer.get_mut(..length).expect("a short answer");
            stream.read_exact(answer).expect("an answer over TCP");
            length
        }
    };
    answer.truncate(length);
    answer
}

fn a_name_is_resolved_over_udp_and_tcp() {
    let cluster = Cluster::new();
    let dns = &cluster.pods[0];
    let (v4, v6) = (Family::V4.cluster_ip(80), Family::V6.cluster_ip(80));
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
    ]);
    dnsmasq.args([
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--user=root",
    ]);
    let names = format!("--host-record=web.shop.svc.cluster.local,{v4},{v6}");
    let _dnsmasq = Program::start(dns, dnsmasq.arg(names), 53);
    let service = Service::new("kube-system/kube-dns", 10).both("dns", 53);
    let slices = Slices::of("kube-system/kube-dns")
        .both("dns", 53)
        .ready([dns]);
    let manifests = Manifests::new();
    manifests.write("dns.yaml", &(service.yaml() + &slices.yaml()));
    let _daemon = Daemon::start(&cluster, &manifests);
    for family in Family::ALL {
        let server = SocketAddr::new(family.cluster_ip(10), 53);
        let (record, address) = match family.cluster_ip(80) {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (28, ip.octets().to_vec()),
        };
        for protocol in Protocol::ALL {
            for source in [&cluster.pods[1], &cluster.remote_pods[0], &cluster.node] {
                let question = question(7, "web.shop.svc.cluster.local", record);
                let ask = || ask(protocol, server, &question);
                let answer = source.namespace.run(ask);
                let context = format!("{protocol} from {} to {server}", source.name());
                assert!(answer.starts_with(&[0, 7]), "{context}: {answer:?}");
                assert!(answer.ends_with(&address), "{context}: {answer:?}");
            }
        }
    }
}

/// The size of the downloaded file, in bytes.
const SIZE: u64 = 100 << 20;

/// Starts nginx in a Pod. `/file` takes about a second.
fn nginx(pod: &Host) -> WebServer {
    let server = WebServer::start(pod, 8080);
    let file = File::create(server.directory().join("file")).expect("a file");
    file.set_len(SIZE).expect("a large file");
    server
}

/// An HTTP connection for any number of requests.
struct KeptAlive(BufReader<TcpStream>);

impl KeptAlive {
    /// Opens a connection from a host.
    fn open(from: &Host, to: SocketAddr) -> Self {
        let stream = from.namespace.run(|| TcpStream::connect(to));
        let stream = stream.unwrap_or_else(|error| panic!("{to}: {error}"));
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Self(BufReader::new(stream))
    }

    /// Sends a request and returns the length of the body that follows.
    fn get(&mut self, path: &str) -> u64 {
        let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n");
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("send");
        let (mut status, mut length) = (String::new(), 0);
        self.0.read_line(&mut status).expect("a status");
        assert!(status.starts_with("HTTP/1.1 200"), "{status:?}");
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a header");
            match line.trim_end().split_once(": ") {
                None => return length,
                Some(("Content-Length", value)) => length = value.parse().expect("a length"),
                Some(_) => {}
            }
        }
    }

    /// Returns the name of the server that answers.
    fn name(&mut self) -> String {
        let length = self.get("/name");
        let mut body = String::new();
        let mut reader = (&mut self.0).take(length);
        reader.read_to_string(&mut body).expect("a body");
        body
    }

    /// Downloads the file and returns the number of received bytes.
    fn download(&mut self) -> u64 {
        let length = self.get("/file");
        let mut reader = (&mut self.0).take(length);
        std::io::copy(&mut reader, &mut std::io::sink()).expect("a download")
    }
}

fn requests_and_downloads_outlive_their_endpoints() {
    let cluster = Cluster::new();
    let pods = [&cluster.pods[0], &cluster.pods[1], &cluster.remote_pods[0]];
    let _servers = pods.map(nginx);
    let service = Service::new("shop/web", 1).port("http", Protocol::Tcp, 80);
    let service = service.node_port(NODE_PORT).yaml();
    let web = |ready: &[&Host]| {
        let slices = Slices::of("shop/web").port("http", Protocol::Tcp, 8080);
        service.clone() + &slices.ready(ready.iter().copied()).yaml()
    };
    let manifests = Manifests::new();
    manifests.write("web.yaml", &web(&pods));
    let daemon = Daemon::start(&cluster, &manifests);
    let at_node = Family::ALL.map(|family| SocketAddr::new(family.lan(2), NODE_PORT));
    let (done, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut changes = 0;
    let started = Instant::now();
    thread::scope(|scope| {
        for to in at_node {
            let mut connection = KeptAlive::open(&cluster.client, to);
            let (done, requests) = (&done, &requests);
            scope.spawn(move || {
                let server = connection.name();
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(connection.name(), server, "{to}");
                    requests.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let downloads = at_node.map(|to| {
            let mut connection = KeptAlive::open(&cluster.client, to);
            scope.spawn(move || connection.download())
        });
        while changes < 3
            || requests.load(Ordering::Relaxed) < 50
            || !downloads.iter().all(thread::ScopedJoinHandle::is_finished)
        {
            assert!(started.elapsed() < DEADLINE, "{changes} {requests:?}");
            let kept = changes % pods.len();
            daemon.apply("web.yaml", &web(&pods[kept..=kept]));
            changes += 1;
        }
        done.store(true, Ordering::Relaxed);
        let sizes = downloads.map(|download| download.join().expect("a download"));
        assert_eq!(sizes, [SIZE; 2]);
    });
}
