//! The elements of a table that describe its frontends, and the rows that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::HashMap;

use super::{EndpointCounts, FrontendResult, FrontendRow, ListedEndpoint};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Balance, PortRange, Protocol, TrafficPolicy};
use crate::planner::ruleset::{
    AddressKind, Comment, DynamicChain, Element, Key, SetName, SlotRange, TcpPickup, Value,
    Verdict, service_and_port,
};

/// The sets and maps that rows are made of. Those of [`SetName::OF_FRONTENDS`] have counters.
pub const SETS_OF_FRONTENDS: [SetName; 27] = {
    use Protocol::{Sctp, Tcp, Udp};
    [
        SetName::Services,
        SetName::Nodeports,
        SetName::ServicesCluster,
        SetName::ServicesLocal,
        SetName::NodeportsCluster,
        SetName::NodeportsLocal,
        SetName::ServicesRestricted,
        SetName::Sticky(Tcp),
        SetName::Sticky(Udp),
        SetName::Sticky(Sctp),
        SetName::StickyNodeports(Tcp),
        SetName::StickyNodeports(Udp),
        SetName::StickyNodeports(Sctp),
        SetName::CloseRemoved(TcpPickup::Loose),
        SetName::CloseRemovedNodeports(TcpPickup::Loose),
        SetName::CloseRemoved(TcpPickup::Strict),
        SetName::CloseRemovedNodeports(TcpPickup::Strict),
        SetName::ClusterIps,
        SetName::ClusterIpsSticky,
        SetName::Hairpin,
        SetName::Endpoints,
        SetName::NodeportEndpoints,
        SetName::PortRanges,
        SetName::Ranges,
        SetName::RangesCluster,
        SetName::RangesLocal,
        SetName::RangeEndpoints,
    ]
};

/// A frontend: protocol, address and port. A node port has no address. Port ranges have port 0.
type Frontend<A> = (Protocol, Option<A>, u16);

/// A list of endpoints: the frontend, and whether it is the list of [`SlotRange::Cluster`].
type List<A> = (Frontend<A>, bool);

/// An element of `services`, `nodeports` or `ranges`.
struct DispatchElement {
    /// The verdict for a new connection.
    verdict: Verdict,
    /// The Service port and its label.
    comment: Option<Comment>,
    /// The packets that the element has counted.
    connections: u64,
}

/// The elements of a table that describe its frontends.
pub struct FrontendElements<A: Address> {
    /// The elements of `services`, `nodeports` and `ranges`.
    dispatch: BTreeMap<Frontend<A>, DispatchElement>,
    /// The verdicts of the maps that those elements lead to.
    verdicts: HashMap<(SetName, Frontend<A>), Verdict>,
    /// The affinity timeouts in seconds.
    affinity: HashMap<Frontend<A>, u32>,
    /// The frontends whose connections to removed endpoints are closed.
    closing: BTreeSet<Frontend<A>>,
    /// The `ClusterIPs` in use.
    cluster_ips: BTreeSet<A>,
    /// The addresses of endpoints that are or may be on this node.
    hairpin: BTreeSet<A>,
    /// The port ranges by protocol and address.
    ranges: BTreeMap<(Protocol, A), BTreeSet<PortRange>>,
    /// The endpoints by frontend and list, in the order of a dump.
    endpoints: HashMap<List<A>, Vec<(A, u16)>>,
}

impl<A: Address> Default for FrontendElements<A> {
    fn default() -> Self {
        Self {
            dispatch: BTreeMap::new(),
            verdicts: HashMap::default(),
            affinity: HashMap::default(),
            closing: BTreeSet::new(),
            cluster_ips: BTreeSet::new(),
            hairpin: BTreeSet::new(),
            ranges: BTreeMap::new(),
            endpoints: HashMap::default(),
        }
    }
}

/// The verdict of a frontend, followed to its lists of endpoints.
struct Followed {
    /// The verdict that decides: `external-local`, a list, or a refusal.
    verdict: Verdict,
    /// Whether source ranges restrict the sources.
    restricted: bool,
}

impl<A: Address> FrontendElements<A> {
    /// Adds an element, in any order. Elements of sets that are not [`SETS_OF_FRONTENDS`] are ignored.
    pub fn add(&mut self, element: Element<A>, packets: u64) {
        let Element {
            set,
            key,
            value,
            comment,
        } = element;
        match (set, value) {
            (SetName::ClusterIps | SetName::ClusterIpsSticky, _) => {
                self.cluster_ips.extend(key.address());
            }
            (SetName::CloseRemoved(_) | SetName::CloseRemovedNodeports(_), _) => {
                self.closing.extend(with_protocol(Protocol::Tcp, &key));
            }
            (SetName::Hairpin, _) => {
                if let Key::Pair(address, _) = key {
                    self.hairpin.insert(address);
                }
            }
            (SetName::Endpoints | SetName::NodeportEndpoints, Value::Endpoint(address, port)) => {
                self.add_slot(&key, (address, port));
            }
            (SetName::RangeEndpoints, Value::Address(address)) => {
                self.add_slot(&key, (address, 0));
            }
            (SetName::PortRanges, _) => {
                if let Key::PortRange(protocol, address, range) = key {
                    let ranges = self.ranges.entry((protocol, address)).or_default();
                    ranges.insert(range);
                }
            }
            (
                SetName::Sticky(protocol) | SetName::StickyNodeports(protocol),
                Value::Verdict(Verdict::Dynamic(DynamicChain::Learn(seconds))),
            ) => {
                if let Some(frontend) = with_protocol(protocol, &key) {
                    self.affinity.insert(frontend, seconds);
                }
            }
            (_, Value::Verdict(verdict)) => {
                let Some(frontend) = key.frontend() else {
                    return;
                };
                if SetName::OF_FRONTENDS.contains(&set) {
                    let element = DispatchElement {
                        verdict,
                        comment,
                        connections: packets,
                    };
                    self.dispatch.insert(frontend, element);
                } else {
                    self.verdicts.insert((set, frontend), verdict);
                }
            }
            (_, Value::Nothing | Value::Endpoint(..) | Value::Address(_)) => {}
        }
    }

    /// Adds the endpoint of a slot.
    fn add_slot(&mut self, key: &Key<A>, endpoint: (A, u16)) {
        let (frontend, slot) = if let Key::Slot(protocol, address, port, slot) = *key {
            ((protocol, Some(address), port), slot)
        } else if let Key::NodeportSlot(protocol, port, slot) = *key {
            ((protocol, None, port), slot)
        } else if let Key::RangeSlot(protocol, address, slot) = *key {
            ((protocol, Some(address), 0), slot)
        } else {
            return;
        };
        let is_cluster_list = slot >= SlotRange::Cluster.base();
        let list = self.endpoints.entry((frontend, is_cluster_list));
        list.or_default().push(endpoint);
    }

    /// Returns a row for each frontend, in the order of protocols, addresses and ports.
    #[must_use]
    pub fn rows(&self) -> Vec<FrontendRow> {
        let frontends = self.dispatch.iter();
        frontends
            .map(|(frontend, element)| self.row(*frontend, element))
            .collect()
    }

    /// Returns the row of a frontend.
    fn row(&self, frontend: Frontend<A>, element: &DispatchElement) -> FrontendRow {
        let Followed {
            verdict,
            restricted,
        } = self.follow(frontend, element.verdict);
        let is_external_local = matches!(
            verdict,
            Verdict::ExternalLocal | Verdict::ExternalLocalNodeport | Verdict::ExternalLocalRange
        );
        let label = element.comment.as_ref().and_then(Comment::label);
        let kind = label.map(|label| label.kind);
        let kind = kind.or_else(|| self.kind(frontend, restricted));
        let policy = label.map(|label| label.policy);
        let policy = policy.or_else(|| policy_of(verdict));
        let endpoints = self.listed(frontend, is_external_local, policy);
        let (balance, slots) = self.spread(frontend, verdict, endpoints.len());
        let result = if verdict == Verdict::Refuse {
            FrontendResult::Rejected
        } else if verdict == Verdict::Drop {
            FrontendResult::Dropped
        } else if is_external_local && !endpoints.iter().any(|endpoint| endpoint.local) {
            self.result_from_outside(frontend)
        } else {
            FrontendResult::Served
        };
        let (protocol, ip, _) = frontend;
        let service = element.comment.as_deref().unwrap_or_default();
        let (whole, port_name) = service_and_port(service);
        let (namespace, name) = whole.split_once('/').unwrap_or(("", whole));
        FrontendRow {
            service: service.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port_name: port_name.to_owned(),
            kind,
            address: self.address(frontend),
            family: A::FAMILY,
            protocol,
            ip: ip.map(Into::into),
            port: self.first_port(frontend),
            policy,
            affinity_seconds: self.affinity.get(&frontend).copied(),
            closes_removed: self.closing.contains(&frontend),
            balance,
            slots,
            result,
            restricted,
            endpoint_counts: EndpointCounts {
                ready: endpoints.len(),
                local: endpoints.iter().filter(|endpoint| endpoint.local).count(),
                total: None,
            },
            endpoints,
            connections: element.connections,
        }
    }

    /// Returns the text of a frontend, `protocol://address:port`.
    fn address(&self, frontend: Frontend<A>) -> String {
        let (protocol, ip, _) = frontend;
        let unspecified = || match A::FAMILY {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let ip: Option<IpAddr> = ip.map(Into::into);
        let at = SocketAddr::new(ip.unwrap_or_else(unspecified), self.first_port(frontend));
        let others = self.ranges(frontend).map(after_first).unwrap_or_default();
        format!("{protocol}://{at}{others}")
    }

    /// Returns the port ranges of a frontend; `None` if it has one port.
    fn ranges(&self, (protocol, ip, port): Frontend<A>) -> Option<&BTreeSet<PortRange>> {
        self.ranges.get(&(protocol, ip?)).filter(|_| port == 0)
    }

    /// Returns the port of a frontend, or the first one of its ranges.
    fn first_port(&self, frontend: Frontend<A>) -> u16 {
        let first = self.ranges(frontend).and_then(BTreeSet::first);
        first.map_or(frontend.2, |range| range.first())
    }

    /// Follows `goto restricted` to the verdict for a source in the ranges.
    fn follow(&self, frontend: Frontend<A>, verdict: Verdict) -> Followed {
        let restricted = verdict == Verdict::Restricted;
        let key = (SetName::ServicesRestricted, frontend);
        let behind = self.verdicts.get(&key).filter(|_| restricted);
        Followed {
            verdict: behind.copied().unwrap_or(verdict),
            restricted,
        }
    }

    /// Returns the hash that selects an endpoint, and the number of slots if there are more than
    /// endpoints; with external policy Local those of the list of all endpoints.
    fn spread(
        &self,
        frontend: Frontend<A>,
        verdict: Verdict,
        endpoints: usize,
    ) -> (Option<Balance>, Option<u32>) {
        let behind = if verdict == Verdict::ExternalLocal {
            self.verdicts.get(&(SetName::ServicesCluster, frontend))
        } else if verdict == Verdict::ExternalLocalNodeport {
            self.verdicts.get(&(SetName::NodeportsCluster, frontend))
        } else if verdict == Verdict::ExternalLocalRange {
            self.verdicts.get(&(SetName::RangesCluster, frontend))
        } else {
            Some(&verdict)
        };
        let spread = match behind {
            Some(Verdict::Dynamic(chain)) => chain.spread(),
            _ => None,
        };
        let is_more = |slots: &u32| usize::try_from(*slots).is_ok_and(|slots| slots > endpoints);
        let slots = spread.map(|(_, slots)| slots).filter(is_more);
        (spread.and_then(|(balance, _)| balance), slots)
    }

    /// Returns the result of external policy Local if no endpoint is on this node.
    fn result_from_outside(&self, frontend: Frontend<A>) -> FrontendResult {
        let maps = [
            SetName::ServicesLocal,
            SetName::NodeportsLocal,
            SetName::RangesLocal,
        ];
        let rejects = maps.iter().any(|map| {
            let verdict = self.verdicts.get(&(*map, frontend));
            verdict == Some(&Verdict::Refuse)
        });
        if rejects {
            FrontendResult::RejectedFromOutside
        } else {
            FrontendResult::DroppedFromOutside
        }
    }

    /// Returns the kind of a frontend whose element has no label.
    fn kind(&self, (_, address, _): Frontend<A>, restricted: bool) -> Option<AddressKind> {
        match address {
            None => Some(AddressKind::NodePort),
            Some(_) if restricted => Some(AddressKind::LoadBalancer),
            Some(address) if self.cluster_ips.contains(&address) => Some(AddressKind::ClusterIP),
            Some(_) => None,
        }
    }

    /// Returns the endpoints of a frontend, sorted. With external policy Local, Pods and the node
    /// itself reach all of them, and other sources the local ones.
    fn listed(
        &self,
        frontend: Frontend<A>,
        is_external_local: bool,
        policy: Option<TrafficPolicy>,
    ) -> Vec<ListedEndpoint> {
        let list = |is_cluster_list: bool| {
            let list = self.endpoints.get(&(frontend, is_cluster_list));
            list.map_or(&[][..], Vec::as_slice)
        };
        let own: BTreeSet<_> = list(false).iter().copied().collect();
        let others = if is_external_local { list(true) } else { &[] };
        let all: BTreeSet<_> = own.iter().chain(others).copied().collect();
        let is_local = |endpoint: &(A, u16)| {
            if is_external_local || policy == Some(TrafficPolicy::Local) {
                own.contains(endpoint)
            } else {
                self.hairpin.contains(&endpoint.0)
            }
        };
        // A connection to a port range keeps its port.
        let first = self.first_port(frontend);
        let port_of = |(_, port): &(A, u16)| if *port == 0 { first } else { *port };
        let listed = all.iter().map(|endpoint| ListedEndpoint {
            address: SocketAddr::new(endpoint.0.into(), port_of(endpoint)),
            local: is_local(endpoint),
        });
        listed.collect()
    }
}

/// Returns the text of port ranges after the first port.
fn after_first(ranges: &BTreeSet<PortRange>) -> String {
    let mut ranges = ranges.iter();
    let first = ranges.next().map(|range| match range.last() {
        last if last == range.first() => String::new(),
        last => format!("-{last}"),
    });
    let others = ranges.map(|range| format!(",{range}"));
    first.into_iter().chain(others).collect()
}

/// Returns the policy that a verdict shows, for an element without a label.
fn policy_of(verdict: Verdict) -> Option<TrafficPolicy> {
    match verdict {
        Verdict::ExternalLocal
        | Verdict::ExternalLocalNodeport
        | Verdict::ExternalLocalRange
        | Verdict::Drop => Some(TrafficPolicy::Local),
        Verdict::Dynamic(_)
        | Verdict::Restricted
        | Verdict::Deny
        | Verdict::Refuse
        | Verdict::ToExternal
        | Verdict::ToExternalLocal
        | Verdict::Unremembered
        | Verdict::GoneOutside => None,
    }
}

/// Returns the frontend of a key in a map that exists once per protocol.
fn with_protocol<A: Address>(protocol: Protocol, key: &Key<A>) -> Option<Frontend<A>> {
    if let Key::AddressPort(address, port) = *key {
        Some((protocol, Some(address), port))
    } else if let Key::Port(port) = *key {
        Some((protocol, None, port))
    } else {
        None
    }
}
