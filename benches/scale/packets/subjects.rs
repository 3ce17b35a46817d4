//! What is put on a node, to send packets through it.

use std::time::Duration;

use kube_dnat::netlink::Kernel;

use super::super::api::{self, Subject};
use super::super::api_server::ApiServer;
use super::super::cluster::{Cluster, Kinds};
use super::super::node::Node;
use super::super::objects;
use super::kube_proxy_shape;
use super::testbed::Testbed;

/// The rules of a node.
#[derive(Clone, Debug)]
pub(crate) enum Rules {
    /// Connection tracking alone.
    None,
    /// One rule that translates every frontend to an address of its own.
    Static,
    /// Ours.
    KubeDnat { counters: bool },
    /// Those of kube-proxy v1.36 for the same Services, made by this benchmark.
    KubeProxyShape,
    /// A kube-proxy that programs the node itself.
    KubeProxy { program: String },
}

/// Where a subject's packets go through.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    pub(crate) cluster: Cluster,
    pub(crate) bed: Testbed,
}

/// Loads nothing, but follows connections: the rule is in a chain that no packet meets.
const CONNECTION_TRACKING: &str =
    "table ip conntrack { chain unused {\n ct state new accept\n }\n }";

/// The least that anyone could do. A prefix for a prefix, since the tuples of connections to one
/// endpoint clash, and a search for a free port is not what is measured.
const STATIC_RULE: &str = "table ip static { chain prerouting {\n\
    type nat hook prerouting priority -100\n RULE\n }\n chain output {\n\
    type nat hook output priority -100\n RULE\n }\n }";
const STATIC_DNAT: &str = "dnat ip prefix to ip daddr map { 10.96.0.0/16 : 10.244.0.0/16, 10.128.0.0/16 : 10.245.0.0/16 }";

impl Rules {
    fn name(&self, kind: Kinds) -> &'static str {
        match (self, kind) {
            (Self::None, _) => "no rules",
            (Self::Static, _) => "static rule",
            (Self::KubeDnat { counters: false }, _) => "kube-dnat, no counters",
            (Self::KubeDnat { .. }, Kinds::ClusterIp) => "kube-dnat",
            (Self::KubeDnat { .. }, Kinds::Affinity) => "kube-dnat, session affinity",
            (Self::KubeDnat { .. }, Kinds::Local) => "kube-dnat, external policy Local",
            (Self::KubeDnat { .. }, Kinds::SourceRanges) => "kube-dnat, source ranges",
            (Self::KubeProxyShape, _) => "kube-proxy v1.36 shape",
            (Self::KubeProxy { .. }, _) => "kube-proxy nftables",
        }
    }

    /// A node with these rules.
    pub(crate) fn lane(&self, cluster: Cluster) -> Lane {
        let bed = Testbed::new();
        match self {
            Self::None => bed.load(CONNECTION_TRACKING),
            Self::Static => bed.load(&STATIC_RULE.replace("RULE", STATIC_DNAT)),
            Self::KubeDnat { counters } => bed.node.run(|| {
                let mut node = Node::with_counters(*counters);
                node.take_in(cluster.events());
                node.load();
            }),
            Self::KubeProxyShape => bed.load(&kube_proxy_shape::rules(cluster)),
            Self::KubeProxy { program } => bed.node.run(|| programmed(program, cluster)),
        }
        Lane {
            name: self.name(cluster.kind),
            cluster,
            bed,
        }
    }
}

/// Has a kube-proxy program this namespace, and ends it: its rules stay.
fn programmed(program: &str, cluster: Cluster) {
    let server = ApiServer::start();
    objects::fill(&server, cluster);
    let mut kernel = Kernel::open().expect("nf_tables");
    let before = kernel.generation().expect("the ruleset's number");
    let subject = Subject::kube_proxy(program, "nftables");
    let process = subject.start(&server.kubeconfig());
    api::until_quiet(&mut kernel, before, Duration::from_secs(15));
    drop(process);
}
