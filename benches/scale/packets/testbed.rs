//! A Pod, a node and the endpoints, each in its own network namespace.
//!
//! Every packet traverses prerouting or output, forward and postrouting of the node.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::super::node::run;

/// The Pod's address, in the range of Pods.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 2);
/// The node's address at the interface to the endpoints.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A network namespace that exists as long as this value.
pub(crate) struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let create = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET): run this as root");
            run("ip", &["link", "set", "lo", "up"]);
            Self(File::open("/proc/thread-self/ns/net").expect("/proc"))
        };
        joined(thread::scope(|scope| scope.spawn(create).join()))
    }

    /// Runs a closure on a thread in this namespace.
    pub(crate) fn run<R: Send>(&self, inside: impl FnOnce() -> R + Send) -> R {
        let entered = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("setns");
            inside()
        };
        joined(thread::scope(|scope| scope.spawn(entered).join()))
    }

    /// Returns the path for `ip link ... netns`.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    fn ip(&self, commands: &[&str]) {
        self.run(|| {
            for command in commands {
                run("ip", &command.split(' ').collect::<Vec<_>>());
            }
        });
    }
}

fn joined<R>(ended: thread::Result<R>) -> R {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The three namespaces.
pub(crate) struct Testbed {
    pub(crate) pod: Namespace,
    pub(crate) node: Namespace,
    /// The namespace with the addresses of all frontends and endpoints.
    pub(crate) endpoints: Namespace,
}

impl Testbed {
    pub(crate) fn new() -> Self {
        let bed = Self {
            pod: Namespace::new(),
            node: Namespace::new(),
            endpoints: Namespace::new(),
        };
        let to_pod = format!("link add pod type veth peer eth0 netns {}", bed.pod.path());
        let to_endpoints = format!(
            "link add out type veth peer eth0 netns {}",
            bed.endpoints.path()
        );
        bed.node.ip(&[
            &to_pod,
            &to_endpoints,
            "addr add 10.240.0.1/24 dev pod",
            "addr add 192.0.2.2/24 dev out",
            "link set pod up",
            "link set out up",
            "route add default via 192.0.2.1",
        ]);
        bed.pod.ip(&[
            "addr add 10.240.0.2/24 dev eth0",
            "link set eth0 up",
            "route add default via 10.240.0.1",
        ]);
        bed.endpoints.ip(&[
            "addr add 192.0.2.1/24 dev eth0",
            "link set eth0 up",
            "route add 10.240.0.0/24 via 192.0.2.2",
            // The addresses of frontends without a translation, and of endpoints.
            "route add local 10.96.0.0/12 dev lo",
            "route add local 10.128.0.0/16 dev lo",
            "route add local 10.244.0.0/14 dev lo",
            "route add local 10.248.0.0/13 dev lo",
        ]);
        bed.node.run(|| {
            // /proc/sys/net belongs to the thread's namespace.
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("net.ipv4.ip_forward");
        });
        bed
    }

    /// Loads nft text on the node.
    pub(crate) fn load(&self, rules: &str) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), rules).expect("a file");
        let path = file.path().to_str().expect("a path of UTF-8");
        self.node.run(|| run("nft", &["-f", path]));
    }

    /// Drops datagrams that arrive in the endpoints' namespace, at ingress.
    pub(crate) fn drop_arriving_datagrams(&self) {
        let rules = "table netdev arrived { chain ingress {\n\
            type filter hook ingress device eth0 priority 0\n ip protocol udp counter drop\n }\n }";
        self.endpoints.run(|| run("nft", &[rules]));
    }

    /// Returns the number of datagrams dropped there.
    pub(crate) fn arrived(&self) -> u64 {
        let list = ["-j", "list", "table", "netdev", "arrived"];
        let listed = self.endpoints.run(|| {
            let output = std::process::Command::new("nft").args(list).output();
            output.expect("nft").stdout
        });
        let listed: serde_json::Value = serde_json::from_slice(&listed).expect("JSON");
        let packets = listed["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|object| object["rule"]["expr"].as_array())
            .flatten()
            .find_map(|expression| expression["counter"]["packets"].as_u64());
        packets.expect("a counter")
    }
}
