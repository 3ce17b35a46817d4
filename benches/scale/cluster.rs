//! Clusters of any size, as events from a source of objects.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use kube_dnat::planner::model::{
    Endpoint, EndpointSlice, Event, Object, ObjectKey, ObjectKind, Placement, Protocol, Service,
    ServiceName, ServicePort, SliceEndpoints, SlicePort, TrafficPolicy, Update,
};

/// A cluster of equal Services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    pub(crate) services: u32,
    /// The number of endpoints of each Service.
    pub(crate) endpoints: u32,
    pub(crate) kind: Kinds,
    pub(crate) protocol: Protocol,
}

/// The kind of the Services of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// A `ClusterIP`.
    ClusterIp,
    /// A `ClusterIP` with session affinity.
    Affinity,
    /// A load-balancer IP with source ranges, one of which contains the sender.
    SourceRanges,
    /// A load-balancer IP with external policy Local.
    Local,
}

/// The maximum number of endpoints in a slice, as in the `EndpointSlice` controller.
pub(crate) const SLICE: u32 = 100;

/// The port of every Service.
pub(crate) const PORT: u16 = 80;

/// The port of every endpoint.
pub(crate) const ENDPOINT_PORT: u16 = 8080;

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.services, self.endpoints)
    }
}

impl Cluster {
    pub(crate) fn new(services: u32, endpoints: u32) -> Self {
        Self {
            services,
            endpoints,
            kind: Kinds::ClusterIp,
            protocol: Protocol::Tcp,
        }
    }

    /// Returns the events of all objects.
    pub(crate) fn events(self) -> impl Iterator<Item = Event> {
        let objects = (0..self.services).flat_map(move |number| {
            let slices = (0..self.endpoints).step_by(SLICE as usize);
            let slices = slices.map(move |first| {
                let last = self.endpoints.min(first + SLICE);
                self.slice(number, first, first..last)
            });
            [self.service(number)].into_iter().chain(slices)
        });
        let listed = ObjectKind::ALL.map(Event::Listed);
        objects.chain(listed)
    }

    /// Returns the address that clients of a Service connect to.
    pub(crate) fn frontend(self, service: u32) -> Ipv4Addr {
        match self.kind {
            Kinds::ClusterIp | Kinds::Affinity => cluster_ip(service),
            Kinds::SourceRanges | Kinds::Local => load_balancer_ip(service),
        }
    }

    /// Returns the address of a Service's endpoint.
    pub(crate) fn endpoint(self, service: u32, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0af4_0000 + service * self.endpoints + number)
    }

    /// Returns whether the endpoint with this number in its Service is on this node.
    pub(crate) fn is_local(number: u32) -> bool {
        number % 100 < 5
    }

    fn service(self, number: u32) -> Event {
        let load_balancer = matches!(self.kind, Kinds::SourceRanges | Kinds::Local);
        let load_balancer_ips = load_balancer.then(|| IpAddr::from(load_balancer_ip(number)));
        let ranges: &[&str] = match self.kind {
            Kinds::SourceRanges => &["10.240.0.0/24", "192.0.2.0/25", "203.0.113.0/24"],
            Kinds::ClusterIp | Kinds::Affinity | Kinds::Local => &[],
        };
        let ranges = ranges.iter().map(|range| range.parse::<IpNet>().unwrap());
        let service = Service {
            name: ServiceName::from_key(&name(number).into()),
            created: Some(0),
            has_selector: true,
            cluster_ips: [IpAddr::from(cluster_ip(number))].into(),
            external_ips: Box::default(),
            load_balancer_ips: load_balancer_ips.into_iter().collect(),
            internal_policy: TrafficPolicy::Cluster,
            external_policy: match self.kind {
                Kinds::Local => TrafficPolicy::Local,
                Kinds::ClusterIp | Kinds::Affinity | Kinds::SourceRanges => TrafficPolicy::Cluster,
            },
            affinity: (self.kind == Kinds::Affinity).then_some(10_800),
            source_ranges: ranges.collect(),
            health_check_node_port: None,
            features: None,
            ports: [ServicePort {
                name: "http".into(),
                protocol: self.protocol,
                port: PORT,
                node_port: None,
            }]
            .into(),
        };
        update(
            ObjectKind::Service,
            name(number),
            Some(Object::Service(service.into())),
        )
    }

    /// Returns a Service's first slice, in which every second change replaces the first endpoint.
    pub(crate) fn replaced(self, service: u32, number: u32) -> Event {
        self.slice(service, 0, self.replacing(number))
    }

    /// Returns the endpoints of that slice.
    pub(crate) fn replacing(self, number: u32) -> impl Iterator<Item = u32> {
        let first = if number.is_multiple_of(2) {
            self.endpoints
        } else {
            0
        };
        [first].into_iter().chain(1..self.endpoints.min(SLICE))
    }

    /// Returns a slice with additional endpoints of a Service.
    pub(crate) fn more(self, service: u32, count: u32) -> Event {
        let first = self.endpoints;
        self.slice(service, first, first..first + count)
    }

    /// Returns the slice of a Service whose first endpoint is number `first`.
    fn slice(self, service: u32, first: u32, endpoints: impl IntoIterator<Item = u32>) -> Event {
        let endpoint = |number| Endpoint {
            address: self.endpoint(service, number),
            ready: true,
            serving: true,
            terminating: false,
            placement: if Self::is_local(number) {
                Placement::Local
            } else {
                Placement::Remote
            },
            topology: None,
        };
        let slice = EndpointSlice {
            service: ServiceName::from_key(&name(service).into()),
            mirrored: false,
            triggered: None,
            ports: [SlicePort {
                name: "http".into(),
                protocol: self.protocol,
                port: ENDPOINT_PORT,
            }]
            .into(),
            addresses: SliceEndpoints::Ipv4(endpoints.into_iter().map(endpoint).collect()),
        };
        let name = format!("{}-{first}", name(service));
        update(
            ObjectKind::EndpointSlice,
            name,
            Some(Object::Slices([slice].into())),
        )
    }
}

/// Returns a `ClusterIP`; the API server's own Services have the first addresses of the range.
pub(crate) fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_0100 + number)
}

fn load_balancer_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + number)
}

fn name(number: u32) -> String {
    format!("bench/service-{number}")
}

fn update(kind: ObjectKind, name: String, object: Option<Object>) -> Event {
    let name = name.into();
    Event::Update(Update {
        key: ObjectKey { kind, name },
        object,
        rejected: Vec::new(),
        triggered: None,
    })
}
