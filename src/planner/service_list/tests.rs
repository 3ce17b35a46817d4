use std::net::Ipv4Addr;

use super::*;
use crate::planner::model::Protocol::{Tcp, Udp};
use crate::planner::model::TrafficPolicy;
use crate::planner::ruleset::{
    AddressKind, Comment, DynamicChain, Element, FrontendKind, FrontendLabel, Key, SetName,
    SlotRange, Value, Verdict,
};

const IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const OUR_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 9);
const OTHER_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 9);

fn pick(list: SlotRange, slots: u32) -> Verdict {
    Verdict::Dynamic(DynamicChain::Pick(FrontendKind::Address, list, slots))
}

fn verdict(set: SetName, key: Key<Ipv4Addr>, verdict: Verdict) -> Element<Ipv4Addr> {
    Element {
        set,
        key,
        value: Value::Verdict(verdict),
        comment: Some("shop/cart:http".into()),
    }
}

fn slot(address: Ipv4Addr, slot: u32, pod: Ipv4Addr) -> Element<Ipv4Addr> {
    Element {
        set: SetName::Endpoints,
        key: Key::Slot(Tcp, address, 80, slot),
        value: Value::Endpoint(pod, 8080),
        comment: Some("shop/cart:http".into()),
    }
}

fn labelled(
    mut element: Element<Ipv4Addr>,
    kind: AddressKind,
    policy: TrafficPolicy,
) -> Element<Ipv4Addr> {
    let label = Some(FrontendLabel { kind, policy });
    element.comment = element
        .comment
        .map(|comment: Comment| comment.labelled(label));
    element
}

fn rows(elements: impl IntoIterator<Item = Element<Ipv4Addr>>) -> Vec<FrontendRow> {
    let mut found = FrontendElements::default();
    for element in elements {
        found.add(element, 7);
    }
    let mut rows = found.rows();
    rows.sort_by_cached_key(FrontendRow::sort_key);
    rows
}

#[track_caller]
fn only_row(elements: impl IntoIterator<Item = Element<Ipv4Addr>>) -> FrontendRow {
    let mut rows = rows(elements);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

#[test]
fn a_cluster_ip_has_its_endpoints_affinity_and_connections() {
    let frontend = Key::Frontend(Tcp, IP, 80);
    let row = only_row([
        labelled(
            verdict(SetName::Services, frontend, pick(SlotRange::Own, 2)),
            AddressKind::ClusterIP,
            TrafficPolicy::Cluster,
        ),
        verdict(
            SetName::Sticky(Tcp),
            Key::AddressPort(IP, 80),
            Verdict::Dynamic(DynamicChain::Learn(600)),
        ),
        slot(IP, 1, OTHER_POD),
        slot(IP, 0, OUR_POD),
        Element::shared(SetName::Hairpin, Key::Pair(OUR_POD, OUR_POD)),
    ]);
    assert_eq!(row.service, "shop/cart:http");
    assert_eq!(
        [&*row.namespace, &*row.name, &*row.port_name],
        ["shop", "cart", "http"]
    );
    assert_eq!(row.address, "tcp://10.96.0.80:80");
    assert_eq!(row.kind, Some(AddressKind::ClusterIP));
    assert_eq!(row.policy, Some(TrafficPolicy::Cluster));
    assert_eq!(row.affinity_seconds, Some(600));
    assert_eq!(row.result, FrontendResult::Served);
    assert_eq!(row.connections, 7);
    let endpoint = |pod, local| ListedEndpoint {
        address: (pod, 8080).into(),
        local,
    };
    assert_eq!(
        row.endpoints,
        [endpoint(OUR_POD, true), endpoint(OTHER_POD, false)]
    );
    let counts = EndpointCounts {
        ready: 2,
        local: 1,
        total: None,
    };
    assert_eq!(row.endpoint_counts, counts);
}

#[test]
fn external_policy_local_has_all_endpoints_and_those_of_the_node() {
    let frontend = Key::Frontend(Tcp, EXTERNAL, 80);
    let dispatch = verdict(SetName::Services, frontend, Verdict::ExternalLocal);
    let cluster = SlotRange::Cluster.base();
    let all = [
        slot(EXTERNAL, cluster, OUR_POD),
        slot(EXTERNAL, cluster + 1, OTHER_POD),
    ];
    let row = only_row(
        [dispatch.clone()]
            .into_iter()
            .chain(all.clone())
            .chain([slot(EXTERNAL, 0, OUR_POD)]),
    );
    assert_eq!(row.policy, Some(TrafficPolicy::Local));
    assert_eq!(row.result, FrontendResult::Served);
    assert_eq!(
        [row.endpoint_counts.ready, row.endpoint_counts.local],
        [2, 1]
    );

    for (verdict_of_others, result) in [
        (Verdict::Drop, FrontendResult::DroppedFromOutside),
        (Verdict::Refuse, FrontendResult::RejectedFromOutside),
    ] {
        let others = verdict(SetName::ServicesLocal, frontend, verdict_of_others);
        let row = only_row([dispatch.clone(), others].into_iter().chain(all.clone()));
        assert_eq!(row.result, result);
        assert_eq!(
            [row.endpoint_counts.ready, row.endpoint_counts.local],
            [2, 0]
        );
    }
}

#[test]
fn internal_policy_local_has_local_endpoints_only() {
    let frontend = Key::Frontend(Tcp, IP, 80);
    let local = |goto| {
        labelled(
            verdict(SetName::Services, frontend, goto),
            AddressKind::ClusterIP,
            TrafficPolicy::Local,
        )
    };
    let row = only_row([local(pick(SlotRange::Own, 1)), slot(IP, 0, OUR_POD)]);
    assert_eq!(
        [row.endpoint_counts.ready, row.endpoint_counts.local],
        [1, 1]
    );
    assert_eq!(
        only_row([local(Verdict::Drop)]).result,
        FrontendResult::Dropped
    );
}

#[test]
fn source_ranges_are_followed_to_the_endpoints() {
    let frontend = Key::Frontend(Tcp, EXTERNAL, 80);
    let row = only_row([
        verdict(SetName::Services, frontend, Verdict::Restricted),
        verdict(
            SetName::ServicesRestricted,
            frontend,
            Verdict::ExternalLocal,
        ),
        slot(EXTERNAL, SlotRange::Cluster.base(), OTHER_POD),
    ]);
    assert!(row.restricted);
    assert_eq!(row.result, FrontendResult::DroppedFromOutside);
    // Only load-balancer IPs have source ranges.
    assert_eq!(row.kind, Some(AddressKind::LoadBalancer));
}

#[test]
fn a_rejected_frontend_has_no_endpoint() {
    let row = only_row([labelled(
        verdict(
            SetName::Nodeports,
            Key::Nodeport(Udp, 30053),
            Verdict::Refuse,
        ),
        AddressKind::NodePort,
        TrafficPolicy::Local,
    )]);
    assert_eq!(row.result, FrontendResult::Rejected);
    assert_eq!(row.endpoints, []);
    assert_eq!(row.address, "udp://0.0.0.0:30053");
    assert_eq!(row.ip, None);
    assert_eq!(row.policy, Some(TrafficPolicy::Local));
}

/// nft and older versions write elements without a label.
#[test]
fn without_a_label_the_maps_tell_the_kind() {
    let dispatch = |address| {
        let frontend = Key::Frontend(Tcp, address, 80);
        verdict(SetName::Services, frontend, Verdict::Refuse)
    };
    let rows = rows([
        dispatch(EXTERNAL),
        dispatch(IP),
        verdict(
            SetName::Nodeports,
            Key::Nodeport(Tcp, 30080),
            Verdict::Refuse,
        ),
        Element::shared(SetName::ClusterIps, Key::Address(IP)),
    ]);
    let kinds: Vec<_> = rows.iter().map(|row| row.kind).collect();
    let expected = [
        Some(AddressKind::ClusterIP),
        Some(AddressKind::NodePort),
        None,
    ];
    assert_eq!(kinds, expected);
    assert!(rows.iter().all(|row| row.policy.is_none()));
}
