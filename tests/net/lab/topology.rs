//! Tests of the lab without kube-dnat: the routes between hosts, and the outcomes of probes.

use std::time::Duration;

use libtest_mimic::Trial;

use super::{Cluster, Family, Flow, Outcome, Ping, Protocol, nft, ping, sctp};

/// The tests of this file.
pub(super) fn tests() -> Vec<Trial> {
    use super::topology;
    crate::trials!(topology:
        every_source_reaches_the_pods_with_its_own_address,
        the_gateway_answers_packets_that_node_1_forwards,
        a_reject_and_a_drop_differ,
        a_flow_keeps_its_source_and_its_server,
        an_sctp_init_arrives_with_its_ports,
        an_echo_request_is_answered_rejected_or_dropped,
    )
}

pub(super) fn every_source_reaches_the_pods_with_its_own_address() {
    let cluster = Cluster::new();
    let servers = [&cluster.pods[0], &cluster.remote_pods[0]];
    let _running = servers.map(|host| host.serve(8080));
    let sources = [
        &cluster.node,
        &cluster.other_node,
        &cluster.pods[1],
        &cluster.remote_pods[1],
        &cluster.pods[0],
    ];
    for family in Family::ALL {
        for protocol in Protocol::ALL {
            for (source, server) in sources
                .iter()
                .flat_map(|source| servers.map(|server| (source, server)))
            {
                let probe = source.probe(protocol, (server.ip(family), 8080));
                let answer = probe.send().answer();
                assert_eq!(answer.server, format!("{}:8080", server.name()), "{probe}");
                assert!(answer.keeps_source(), "{probe}: {answer:?}");
            }
        }
    }
}

pub(super) fn the_gateway_answers_packets_that_node_1_forwards() {
    let cluster = Cluster::new();
    let sources = [
        &cluster.node,
        &cluster.client,
        &cluster.pods[0],
        &cluster.other_node,
    ];
    for family in Family::ALL {
        let addresses = [
            family.cluster_ip(1),
            family.external_ip(1),
            family.load_balancer_ip(1),
        ];
        for protocol in Protocol::ALL {
            for (source, to) in sources
                .iter()
                .flat_map(|source| addresses.map(|to| (source, to)))
            {
                let probe = source.probe(protocol, (to, 80));
                assert_eq!(probe.send().server(), Some("gateway"), "{probe}");
            }
        }
    }
}

pub(super) fn a_reject_and_a_drop_differ() {
    let cluster = Cluster::new();
    let rules =
        "table inet t { chain c { type filter hook input priority 0; th dport 81 drop\n }\n }";
    nft::load(&cluster.node.namespace, rules);
    for family in Family::ALL {
        for protocol in Protocol::ALL {
            let to = |port| {
                cluster
                    .client
                    .probe(protocol, (family.lan(2), port))
                    .briefly()
            };
            assert!(
                to(80).send().is_refused_at_once(),
                "{}: {:?}",
                to(80),
                to(80).send()
            );
            assert_eq!(to(81).send(), Outcome::TimedOut, "{}", to(81));
        }
    }
}

pub(super) fn a_flow_keeps_its_source_and_its_server() {
    let cluster = Cluster::new();
    let pod = &cluster.remote_pods[0];
    let _server = pod.serve(8080);
    for family in Family::ALL {
        for protocol in Protocol::ALL {
            let source = Cluster::secondary_ip(family);
            let probe = cluster.node.probe(protocol, (pod.ip(family), 8080));
            let mut flow = Flow::open(&probe.clone().source(source, 4000)).expect("an open flow");
            let first = flow.greeting().answer();
            assert_eq!(first.seen_from, (source, 4000).into(), "{probe}");
            assert_eq!(flow.ask().answer(), first, "{probe}");
        }
    }
}

pub(super) fn an_sctp_init_arrives_with_its_ports() {
    let cluster = Cluster::new();
    for family in Family::ALL {
        let pod = &cluster.remote_pods[0];
        let receiver = sctp::Receiver::start(pod, family);
        sctp::send_init(&cluster.pods[0].namespace, 5000, (pod.ip(family), 3868));
        let from = (cluster.pods[0].ip(family), 5000).into();
        assert_eq!(
            receiver.receive(Duration::from_secs(2)),
            Some(sctp::Init { from, port: 3868 }),
            "{family}"
        );
    }
}

pub(super) fn an_echo_request_is_answered_rejected_or_dropped() {
    let cluster = Cluster::new();
    let rules = "table inet t { chain c { type filter hook input priority 0;\n\
                 ip daddr 192.168.77.2 icmp type echo-request reject\n\
                 ip6 daddr fd00:77::2 icmpv6 type echo-request reject\n\
                 ip daddr 192.168.77.3 drop\n\
                 ip6 daddr fd00:77::3 icmpv6 type echo-request drop\n }\n }";
    nft::load(&cluster.node.namespace, rules);
    for family in Family::ALL {
        let from = &cluster.client.namespace;
        let briefly = Duration::from_millis(400);
        assert_eq!(
            ping(from, family.lan(12), briefly),
            Ping::Replied,
            "{family}"
        );
        assert!(
            matches!(
                ping(from, family.lan(2), briefly),
                Ping::Failed(Outcome::Refused(_))
            ),
            "{family}"
        );
        assert_eq!(
            ping(from, family.lan(3), briefly),
            Ping::Failed(Outcome::TimedOut),
            "{family}"
        );
    }
}
