//! All Services in short, and one Service in full, for `/debug/services`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::State;
use crate::per_family;
use crate::planner::desired::PortSummary;
use crate::planner::model::{Address, Endpoint, EndpointSlice, ServiceName, SliceEndpoints};

/// All Services in short, and the problems of each object.
#[derive(Debug)]
pub struct ServicesView {
    /// The revision of the state; another state has another one.
    pub revision: u64,
    /// Each Service port in each family, in no order.
    pub ports: Vec<PortSummary>,
    /// The problems of each object.
    pub problems: Map<String, Value>,
    /// The time that the sync loop took for this.
    pub took: Duration,
}

impl State {
    /// Returns all Services in short. Takes time linear in all endpoints.
    #[must_use]
    pub fn services_view(&self) -> ServicesView {
        let started = Instant::now();
        let mut ports = Vec::new();
        per_family!(self.families.as_ref(), |family| {
            for (name, elements) in family.applied().all_service_elements() {
                ports.extend(elements.summaries(name, &self.store));
            }
        });
        ServicesView {
            revision: self.revision(),
            ports,
            problems: self.problems(),
            took: started.elapsed(),
        }
    }

    /// Describes one Service; null if there is no such Service.
    pub(super) fn describe_service(&self, name: &ServiceName) -> Value {
        let families = per_family!(self.families.as_ref(), |family| {
            let elements = family.applied().service_elements(name);
            elements.map(|elements| elements.describe(name))
        });
        let (ipv4, ipv6) = (families.ipv4, families.ipv6.flatten());
        let service = self.store.service(name);
        if service.is_none() && ipv4.is_none() && ipv6.is_none() {
            return Value::Null;
        }
        let slices = service
            .into_iter()
            .flat_map(|service| self.store.slices(service));
        json!({
            "IPv4": ipv4,
            "IPv6": ipv6,
            "endpoints": slices.flat_map(describe_slice).collect::<Vec<_>>(),
        })
    }
}

/// Describes each endpoint of a slice, with its ports.
fn describe_slice(slice: &EndpointSlice) -> Vec<Value> {
    let ports: Vec<_> = slice.ports.iter().map(|port| port.port).collect();
    match &slice.addresses {
        SliceEndpoints::Ipv4(endpoints) => describe_endpoints(endpoints, &ports),
        SliceEndpoints::Ipv6(endpoints) => describe_endpoints(endpoints, &ports),
    }
}

/// Describes endpoints that have the same ports.
fn describe_endpoints<A: Address>(endpoints: &[Endpoint<A>], ports: &[u16]) -> Vec<Value> {
    let describe = |endpoint: &Endpoint<A>| {
        let address: IpAddr = endpoint.address.into();
        json!({
            "address": address,
            "ports": ports,
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
            "local": endpoint.is_local(),
        })
    };
    endpoints.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::desired::{NodeFacts, SliceCounts};
    use crate::watch::manifests;

    const OBJECTS: &str = r"
apiVersion: v1
kind: Service
metadata: { namespace: shop, name: cart }
spec:
  type: NodePort
  clusterIPs: [10.96.0.7]
  ports: [{ name: http, port: 80, nodePort: 30080 }, { name: admin, port: 81 }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { namespace: shop, name: cart-1, labels: { kubernetes.io/service-name: cart } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints:
- { addresses: [10.244.1.1], nodeName: n1 }
- { addresses: [10.244.2.1], nodeName: n2 }
- { addresses: [10.244.2.2], nodeName: n2, conditions: { ready: false } }
";

    #[test]
    fn services_are_summarised_with_their_endpoints() {
        let mut state = State::new(NodeFacts::default());
        for event in manifests::read_text(OBJECTS, "n1").unwrap().events {
            assert_eq!(state.apply(event), []);
        }
        let listed = state.revision();
        let (_, effects) = state.plan_everything().split();
        let _diagnostics = state.committed(effects);
        assert_ne!(state.revision(), listed);
        let view = state.services_view();
        assert_eq!(view.revision, state.revision());
        let ports: Vec<_> = view
            .ports
            .iter()
            .map(|port| (&*port.port_name, port.node_port, port.used, port.endpoints))
            .collect();
        let (all, none) = (
            SliceCounts {
                total: 3,
                ready: 2,
                local: 1,
            },
            SliceCounts::default(),
        );
        assert_eq!(
            ports,
            [("http", Some(30080), 2, all), ("admin", None, 0, none)]
        );
        let cart = state.describe_service(&ServiceName::new("shop", "cart"));
        assert_eq!(cart["IPv4"].as_array().map(Vec::len), Some(2), "{cart}");
        assert_eq!(cart["endpoints"][2]["ready"], false, "{cart}");
        assert_eq!(cart["endpoints"][0]["local"], true, "{cart}");
        assert!(
            state
                .describe_service(&ServiceName::new("shop", "web"))
                .is_null()
        );
    }
}
