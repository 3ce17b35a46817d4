//! The health checks of Services with external traffic policy Local, for load balancers.

use std::net::IpAddr;

use super::{Claims, NodeElements, eligible::ready_local_addresses, health_check_claim};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Service, ServiceName, Store};

/// The answer of a `healthCheckNodePort` in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The node port of the health check.
    pub port: u16,
    /// The load-balancer IPs of the Service that this machine has, which also serve the check.
    pub load_balancer_ips: Vec<IpAddr>,
    /// The number of addresses of ready endpoints on this node.
    ///
    /// Terminating endpoints do not count although they may still serve: load balancers must stop
    /// sending traffic in time.
    pub local_endpoints: usize,
}

/// A committed change of the health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheckChange {
    /// The new health check of a Service in one family; `None`: it has none.
    Service(Family, ServiceName, Option<HealthCheck>),
    /// The new addresses of a family that serve health checks.
    Addresses(Family, Vec<IpAddr>),
}

/// Returns the health check of a Service in family `A`.
///
/// `None` if the Service has no health check, or if an older Service has its port. Takes time
/// linear in the Service's endpoints.
#[must_use]
pub fn health_check<A: Address>(
    service: &Service,
    store: &Store,
    claims: &Claims<A>,
    node: &NodeElements<A>,
) -> Option<HealthCheck> {
    let port = service.health_check_node_port?;
    let claim = health_check_claim(service)?;
    claims
        .holder(&claim)
        .filter(|holder| **holder == service.name)?;
    let slices: Vec<_> = store.slices(service).collect();
    let is_endpoint =
        |address| !claims.is_cluster_ip(address) && !node.is_in_service_cidrs(address);
    let local_addresses = ready_local_addresses(&service.ports, &slices, is_endpoint);
    let is_own = |ip: &IpAddr| A::from_ip(*ip).is_some_and(|ip| node.own().contains(&ip));
    Some(HealthCheck {
        port,
        load_balancer_ips: service
            .load_balancer_ips
            .iter()
            .copied()
            .filter(is_own)
            .collect(),
        local_endpoints: local_addresses.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::planner::model::parse;

    /// Returns the local endpoints of a Service on node `n1`, in IPv4 and IPv6.
    fn check(service: &str, slices: &[&str]) -> [Option<usize>; 2] {
        let mut store = Store::default();
        let service = parse::service(&yaml_serde::from_str(service).unwrap());
        assert_eq!(service.rejected, []);
        let parsed = slices.iter().map(|slice| {
            let slice = yaml_serde::from_str(slice).unwrap();
            parse::slice(&slice, "n1")
        });
        for update in [service].into_iter().chain(parsed) {
            store.apply(update);
        }
        let name = store.service_names().pop_first();
        let service = name.and_then(|name| store.service(&name));
        let service = service.expect("a Service");
        [
            count::<Ipv4Addr>(service, &store),
            count::<Ipv6Addr>(service, &store),
        ]
    }

    fn count<A: Address>(service: &Service, store: &Store) -> Option<usize> {
        let mut claims = Claims::<A>::default();
        claims.update(None, Some(service));
        let check = health_check(service, store, &claims, &NodeElements::default());
        check.map(|check| check.local_endpoints)
    }

    fn service(of_type: &str, policy: &str) -> String {
        format!(
            "{{metadata: {{namespace: shop, name: cart}}, spec: {{type: {of_type}, \
             clusterIPs: [10.96.0.7, 'fd00:96::7'], externalTrafficPolicy: {policy}, \
             healthCheckNodePort: 32000, ports: [{{name: http, port: 80}}, {{name: ftp, port: 21}}]}}}}"
        )
    }

    fn slice(name: &str, family: &str, endpoints: &str) -> String {
        format!(
            "{{metadata: {{namespace: shop, name: {name}, labels: {{kubernetes.io/service-name: cart}}}}, \
             addressType: {family}, ports: [{{name: http, port: 8080}}, {{name: ftp, port: 2121}}], \
             endpoints: [{endpoints}]}}"
        )
    }

    #[test]
    fn ready_endpoints_of_this_node_count_once_in_their_family() {
        let ipv4 = slice(
            "a",
            "IPv4",
            "{addresses: [10.244.1.1], nodeName: n1}, {addresses: [10.244.1.2], nodeName: n1}, \
             {addresses: [10.244.2.1], nodeName: n2}, {addresses: [10.244.9.9]}, \
             {addresses: [10.244.1.3], nodeName: n1, conditions: {ready: false}}, \
             {addresses: [10.244.1.4], nodeName: n1, \
              conditions: {ready: false, serving: true, terminating: true}}",
        );
        let again = slice("b", "IPv4", "{addresses: [10.244.1.1], nodeName: n1}");
        let ipv6 = slice("c", "IPv6", "{addresses: ['fd00::1'], nodeName: n1}");
        let local = service("LoadBalancer", "Local");
        let all = [ipv4.as_str(), &again, &ipv6];
        assert_eq!(check(&local, &all), [Some(2), Some(1)]);
        assert_eq!(check(&local, &[]), [Some(0), Some(0)]);
    }

    #[test]
    fn slices_that_disagree_are_merged_as_for_the_rules() {
        let local = service("LoadBalancer", "Local");
        let at = |time: &str, slice: String| {
            let annotation = format!(
                "annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{time}'}}"
            );
            slice.replace("labels", &format!("{annotation}, labels"))
        };
        let (earlier, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let here = "{addresses: [10.244.1.1], nodeName: n1}";
        let elsewhere = "{addresses: [10.244.1.1], nodeName: n2}";
        // Another Pod has the address now: the time decides, not the name.
        for names in [["a", "b"], ["b", "a"]] {
            let endpoints = |times: [&str; 2]| {
                let [here, elsewhere] = [
                    at(times[0], slice(names[0], "IPv4", here)),
                    at(times[1], slice(names[1], "IPv4", elsewhere)),
                ];
                check(&local, &[&here, &elsewhere])[0]
            };
            assert_eq!(endpoints([earlier, later]), Some(0));
            assert_eq!(endpoints([later, earlier]), Some(1));
        }
        // A terminating endpoint loses against another one, whatever its time.
        let conditions = "conditions: {ready: true, terminating: true}";
        let gone = here.replace("nodeName", &format!("{conditions}, nodeName"));
        let gone = at(later, slice("a", "IPv4", &gone));
        let elsewhere = at(earlier, slice("b", "IPv4", elsewhere));
        assert_eq!(check(&local, &[&gone, &elsewhere])[0], Some(0));
    }

    #[test]
    fn only_load_balancers_with_policy_local_have_one() {
        for (of_type, policy) in [("LoadBalancer", "Cluster"), ("NodePort", "Local")] {
            assert_eq!(check(&service(of_type, policy), &[]), [None, None]);
        }
        let ipv4_only = service("LoadBalancer", "Local").replace(", 'fd00:96::7'", "");
        assert_eq!(check(&ipv4_only, &[]), [Some(0), None]);
    }
}
