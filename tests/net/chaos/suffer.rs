//! How each fault happens.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::fault::{Change, DaemonFault, Fault, KernelFault, ServerFault};
use super::memory::MemoryGroup;
use super::node::Node;
use super::services::{Frontend, Shop};
use crate::api_server::Gone;
use crate::lab::Family;

/// The number of elements of another table, of which the kernel cannot notify a daemon that stands
/// still.
const MANY: u32 = 200_000;

impl Node<'_> {
    /// Lets a fault happen, with a change meanwhile, and waits until the kernel has the desired
    /// state; returns the time that it took after the fault was over.
    pub(super) fn suffer(&mut self, fault: Fault, random: &mut Rng) -> Duration {
        match fault {
            Fault::Change(Change::Endpoints) => self.change(random, Shop::change_endpoints),
            Fault::Change(Change::Service) => self.change(random, Shop::change_kind),
            Fault::Daemon(fault) => self.daemon_suffers(fault, random),
            Fault::Server(fault) => self.server_suffers(fault, random),
            Fault::Kernel(fault) => self.kernel_suffers(fault, random),
        }
        // What a foreign change excuses ends with its repair.
        self.settle(random.bool() || matches!(fault, Fault::Kernel(_)))
    }

    fn daemon_suffers(&mut self, fault: DaemonFault, random: &mut Rng) {
        if !matches!(fault, DaemonFault::Stopped(_)) && self.needs_cleanup {
            // docs/reliability.md says what a daemon leaves that ends before its cleanup.
            self.await_cleanup();
        }
        match fault {
            DaemonFault::Killed => {
                self.daemon.end(Signal::SIGKILL);
                self.change_meanwhile(random);
            }
            DaemonFault::Stopped(time) => {
                self.daemon.signal(Signal::SIGSTOP);
                self.change_meanwhile(random);
                sleep(time);
                self.daemon.signal(Signal::SIGCONT);
            }
            DaemonFault::OutOfMemory => self.shorten_memory(random),
            DaemonFault::Upgraded => self.restart_daemon(random),
        }
    }

    fn server_suffers(&mut self, fault: ServerFault, random: &mut Rng) {
        match fault {
            ServerFault::Down => {
                self.server.go_down();
                self.change_meanwhile(random);
                self.server.come_up();
            }
            ServerFault::Lags => {
                self.server.lag();
                self.change_meanwhile(random);
                self.server.restart();
                sleep(Duration::from_millis(random.u64(0..500)));
                self.server.catch_up();
                self.server.close_watches();
            }
            ServerFault::CutsConnections => {
                self.server.restart();
                self.change_meanwhile(random);
            }
            ServerFault::Compacts => {
                let gone = [Gone::Status, Gone::Event];
                self.change_meanwhile(random);
                self.server.compact(gone[random.usize(..gone.len())]);
                self.server.cut_watches();
            }
            ServerFault::Refuses(status) => {
                self.server.bar_all(status);
                self.server.cut_watches();
                self.change_meanwhile(random);
                self.server.admit_all();
            }
            ServerFault::Sends(garbage) => {
                let kind = ["services", "endpointslices", "nodes"][random.usize(..3)];
                self.server.send_garbage(kind, garbage);
                self.change_meanwhile(random);
            }
            ServerFault::Restored => {
                let (version, shops) = (self.server.version(), self.shops.clone());
                self.change(random, Shop::change_endpoints);
                self.await_desired();
                self.go_back(shops);
                self.server.restore(version);
            }
            ServerFault::ClosesWatches => self.server.close_watches(),
        }
    }

    fn kernel_suffers(&mut self, fault: KernelFault, random: &mut Rng) {
        match fault {
            KernelFault::RulesetFlushed => {
                if !self.daemon.owns_tables {
                    // The node itself answers at its addresses until the repair, with a reset.
                    self.history
                        .interrupt(&self.shops, |target| target.frontend == Frontend::NodePort);
                }
                self.nft("flush ruleset");
            }
            KernelFault::ElementsDeleted => {
                // Without an owner, connections are refused until the repair.
                if !self.daemon.owns_tables {
                    self.history.interrupt(&self.shops, |_| true);
                }
                self.delete_elements(random);
            }
            KernelFault::ConntrackFull => self.fill_conntrack(),
            KernelFault::NotificationsLost => {
                self.daemon.signal(Signal::SIGSTOP);
                let address = |number: u32| Ipv4Addr::from(0x0a00_0000 + number).to_string();
                let elements: Vec<_> = (0..MANY).map(address).collect();
                self.nft(&format!(
                    "table ip many {{ set s {{ type ipv4_addr; elements = {{ {} }}\n }}\n }}",
                    elements.join(", ")
                ));
                self.nft("delete table ip many");
                self.change_meanwhile(random);
                self.daemon.signal(Signal::SIGCONT);
            }
            KernelFault::ChainsAdded => {
                self.nft("add chain ip kube-dnat other");
                self.nft("table inet other { chain c { counter\n }\n }");
            }
        }
    }

    /// Changes something while a fault lasts.
    fn change_meanwhile(&mut self, random: &mut Rng) {
        sleep(Duration::from_millis(random.u64(0..200)));
        if random.bool() {
            self.change(random, Shop::change_endpoints);
        } else {
            self.change(random, Shop::change_kind);
        }
        sleep(Duration::from_millis(random.u64(0..300)));
    }

    /// Runs nft on the node. It may fail: tables with an owner can only be changed by it.
    fn nft(&self, commands: &str) {
        let namespace = &self.cluster.node.namespace;
        let _refused = namespace.output("nft", &["-f", "-"], commands);
    }

    fn delete_elements(&self, random: &mut Rng) {
        let families = ["ip", "ip6"];
        let maps = ["services", "endpoints", "nodeports", "cluster-ips"];
        let family = families[random.usize(..families.len())];
        let kind = ["map", "map", "map", "set"];
        let number = random.usize(..maps.len());
        self.nft(&format!(
            "flush {} {family} kube-dnat {}",
            kind[number], maps[number]
        ));
    }

    /// Fills the node's conntrack table with datagrams from other ports, up to 3,000 entries.
    fn fill_conntrack(&self) {
        let node = &self.cluster.node.namespace;
        let read = |name: &str| {
            let path = format!("/proc/sys/net/netfilter/{name}");
            let text = fs::read_to_string(path).expect("connection tracking");
            text.trim().parse::<u32>().expect("a number")
        };
        let count = || node.run(|| read("nf_conntrack_count"));
        let wanted = node.run(|| read("nf_conntrack_max")).saturating_sub(3_000);
        let socket = self.cluster.client.namespace.run(|| {
            Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::UDP)).expect("a socket")
        });
        let to: SocketAddr = (Family::V4.lan(2), 0).into();
        let ports =
            (20_000..30_000_u16).flat_map(|to| (1_024..=u16::MAX).map(move |from| (from, to)));
        for (number, (from, to_port)) in ports.enumerate() {
            if number % 1_000 == 0 && count() >= wanted {
                break;
            }
            let mut datagram = [0; 8];
            datagram[..2].copy_from_slice(&from.to_be_bytes());
            datagram[2..4].copy_from_slice(&to_port.to_be_bytes());
            datagram[5] = 8;
            // A full queue only makes it take longer.
            let _lost = socket.send_to(&datagram, &to.into());
        }
    }

    /// Leaves the daemon less memory than a change needs, for a moment; the kernel may kill it.
    fn shorten_memory(&mut self, random: &mut Rng) {
        let group = MemoryGroup::create().expect("it was created before");
        group.add(self.daemon.pid());
        group.limit(Some(1 << 20));
        self.change_meanwhile(random);
        group.limit(None);
        self.daemon.end(Signal::SIGKILL);
        drop(group);
    }
}
