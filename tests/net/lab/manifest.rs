//! Kubernetes objects for the tests, valid unless a test sets an invalid field. They are written as
//! JSON, which is valid YAML.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Family, Host, Protocol};

/// A Service with `ClusterIPs` of both families.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    object: Value,
}

impl Service {
    /// Creates the Service `namespace/name` with the lab's n-th `ClusterIPs`.
    pub(crate) fn new(name: &str, cluster_ip: u8) -> Self {
        let cluster_ips = Family::ALL.map(|family| family.cluster_ip(cluster_ip));
        let object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(name),
            "spec": {
                "type": "ClusterIP",
                "clusterIP": cluster_ips[0],
                "clusterIPs": cluster_ips,
                "ipFamilies": Family::ALL.map(Family::kubernetes_name),
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [],
            },
            "status": { "loadBalancer": {} },
        });
        Self { object }
    }

    /// Removes the `ClusterIP` of the other family.
    pub(crate) fn only(mut self, family: Family) -> Self {
        let index = Family::ALL.iter().position(|other| *other == family);
        let spec = &mut self.object["spec"];
        let cluster_ip = spec["clusterIPs"][index.expect("one of both")].take();
        spec["clusterIP"] = cluster_ip.clone();
        spec["clusterIPs"] = json!([cluster_ip]);
        spec["ipFamilies"] = json!([family.kubernetes_name()]);
        spec["ipFamilyPolicy"] = json!("SingleStack");
        self
    }

    /// Adds a port.
    pub(crate) fn port(mut self, name: &str, protocol: impl Into<&'static str>, port: u16) -> Self {
        let port = json!({ "name": name, "protocol": protocol.into(), "port": port });
        self.ports().push(port);
        self
    }

    /// Adds a port in TCP and one in UDP, named `NAME-tcp` and `NAME-udp`.
    pub(crate) fn both(self, name: &str, port: u16) -> Self {
        self.port(&format!("{name}-tcp"), Protocol::Tcp, port).port(
            &format!("{name}-udp"),
            Protocol::Udp,
            port,
        )
    }

    /// Sets this node port on every port added so far. Different protocols can share a number.
    pub(crate) fn node_port(mut self, number: u16) -> Self {
        for port in self.ports() {
            port["nodePort"] = json!(number);
        }
        self.object["spec"]["type"] = json!("NodePort");
        self
    }

    /// Adds the lab's n-th external IPs.
    pub(crate) fn external_ip(mut self, n: u8) -> Self {
        self.object["spec"]["externalIPs"] = json!(Family::ALL.map(|family| family.external_ip(n)));
        self
    }

    /// Adds the lab's n-th load-balancer IPs.
    pub(crate) fn load_balancer_ip(self, n: u8) -> Self {
        self.ingress(Family::ALL.map(|family| json!({ "ip": family.load_balancer_ip(n) })))
    }

    /// Adds the lab's n-th load-balancer IPs with this `ipMode`.
    pub(crate) fn load_balancer_ip_with_mode(self, n: u8, mode: &str) -> Self {
        self.ingress(
            Family::ALL.map(|family| json!({ "ip": family.load_balancer_ip(n), "ipMode": mode })),
        )
    }

    /// Sets the creation time, in the format of RFC 3339.
    pub(crate) fn created(mut self, at: &str) -> Self {
        self.object["metadata"]["creationTimestamp"] = json!(at);
        self
    }

    /// Adds the annotation `kube-dnat.io/NAME`.
    pub(crate) fn annotation(mut self, name: &str, value: &str) -> Self {
        self.object["metadata"]["annotations"][format!("kube-dnat.io/{name}")] = json!(value);
        self
    }

    /// Sets a field of `spec` to any value.
    pub(crate) fn spec(mut self, field: &str, value: Value) -> Self {
        self.object["spec"][field] = value;
        self
    }

    /// The manifest.
    pub(crate) fn yaml(&self) -> String {
        document(&self.object)
    }

    fn ports(&mut self) -> &mut Vec<Value> {
        self.object["spec"]["ports"]
            .as_array_mut()
            .expect("ports are an array")
    }

    /// Adds entries of `status.loadBalancer.ingress`.
    pub(crate) fn ingress(mut self, more: impl IntoIterator<Item = Value>) -> Self {
        self.object["spec"]["type"] = json!("LoadBalancer");
        let ingress = &mut self.object["status"]["loadBalancer"]["ingress"];
        let before = ingress.as_array().cloned().unwrap_or_default();
        *ingress = Value::Array(before.into_iter().chain(more).collect());
        self
    }
}

/// A pair of `EndpointSlices` of one Service, one slice for each family.
#[derive(Clone, Debug)]
pub(crate) struct Slices {
    service: String,
    suffix: String,
    ports: Vec<Value>,
    families: Vec<Family>,
    endpoints: Vec<(Family, Value)>,
}

impl Slices {
    /// Creates slices of the Service `namespace/name`.
    pub(crate) fn of(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            suffix: "slice".to_owned(),
            ports: Vec::new(),
            families: Family::ALL.to_vec(),
            endpoints: Vec::new(),
        }
    }

    /// Adds a suffix to the names, which distinguishes these slices from others of the Service.
    pub(crate) fn named(mut self, suffix: &str) -> Self {
        suffix.clone_into(&mut self.suffix);
        self
    }

    /// Adds a port.
    pub(crate) fn port(mut self, name: &str, protocol: impl Into<&'static str>, port: u16) -> Self {
        let protocol: &str = protocol.into();
        self.ports
            .push(json!({ "name": name, "protocol": protocol, "port": port }));
        self
    }

    /// Adds a port in TCP and one in UDP, named `NAME-tcp` and `NAME-udp`.
    pub(crate) fn both(self, name: &str, port: u16) -> Self {
        self.port(&format!("{name}-tcp"), Protocol::Tcp, port).port(
            &format!("{name}-udp"),
            Protocol::Udp,
            port,
        )
    }

    /// Removes the slice of the other family.
    pub(crate) fn only(mut self, family: Family) -> Self {
        self.families = vec![family];
        self
    }

    /// Adds ready endpoints.
    pub(crate) fn ready<'a>(self, hosts: impl IntoIterator<Item = &'a Host>) -> Self {
        self.with(
            hosts,
            &json!({ "ready": true, "serving": true, "terminating": false }),
        )
    }

    /// Adds endpoints with these conditions.
    pub(crate) fn with<'a>(
        mut self,
        hosts: impl IntoIterator<Item = &'a Host>,
        conditions: &Value,
    ) -> Self {
        for host in hosts {
            for family in Family::ALL {
                let endpoint = json!({
                    "addresses": [host.ip(family)],
                    "conditions": conditions,
                    "nodeName": host.node(),
                    "zone": if host.node() == Some("node-1") { "zone-a" } else { "zone-b" },
                });
                self.endpoints.push((family, endpoint));
            }
        }
        self
    }

    /// The manifest.
    pub(crate) fn yaml(&self) -> String {
        self.families
            .iter()
            .map(|family| document(&self.slice(*family)))
            .collect()
    }

    fn slice(&self, family: Family) -> Value {
        let (_, service) = self.service.split_once('/').expect("namespace/name");
        let suffix = format!(
            "-{}-{}",
            self.suffix,
            family.kubernetes_name().to_lowercase()
        );
        let mut metadata = metadata(&(self.service.clone() + &suffix));
        metadata["labels"] = json!({ "kubernetes.io/service-name": service });
        let of_family = self.endpoints.iter().filter(|(other, _)| *other == family);
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": family.kubernetes_name(),
            "ports": self.ports,
            "endpoints": of_family.map(|(_, endpoint)| endpoint).collect::<Vec<_>>(),
        })
    }
}

/// Returns the Node object of node-1 with these internal addresses.
pub(crate) fn node(internal_ips: &[IpAddr]) -> String {
    node_with_pod_cidrs(internal_ips, &Family::ALL.map(|family| family.pod_cidr(1)))
}

/// Returns the Node object of node-1 with these internal addresses and Pod CIDRs.
pub(crate) fn node_with_pod_cidrs(internal_ips: &[IpAddr], cidrs: &[String]) -> String {
    let addresses = internal_ips
        .iter()
        .map(|ip| json!({ "type": "InternalIP", "address": ip }));
    document(&json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": "node-1", "labels": { "kubernetes.io/hostname": "node-1" } },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs },
        "status": { "addresses": addresses.collect::<Vec<_>>() },
    }))
}

/// Returns the `ServiceCIDR` object of both families.
pub(crate) fn service_cidr() -> String {
    document(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": "kubernetes" },
        "spec": { "cidrs": Family::ALL.map(Family::service_cidr) },
    }))
}

/// Returns an object of the old kind Endpoints for the Service `namespace/name`, with any
/// addresses and ports.
pub(crate) fn endpoints(service: &str, ips: &[IpAddr], port: u16) -> String {
    let addresses = ips.iter().map(|ip| json!({ "ip": ip }));
    let ports = Protocol::ALL.map(|protocol| {
        let name = format!("http-{}", protocol.to_string().to_lowercase());
        json!({ "name": name, "protocol": protocol.to_string(), "port": port })
    });
    document(&json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata(service),
        "subsets": [{ "addresses": addresses.collect::<Vec<_>>(), "ports": ports }],
    }))
}

/// Returns a Service that marks a point in the manifests. When it is programmed, the earlier
/// changes are programmed too.
pub(super) fn mark(n: u16) -> String {
    let cluster_ips = Family::ALL.map(|family| mark_ip(family, n));
    Service::new("lab/mark", 0)
        .port("mark", Protocol::Tcp, 1)
        .spec("clusterIP", json!(cluster_ips[0]))
        .spec("clusterIPs", json!(cluster_ips))
        .yaml()
}

/// Returns the `ClusterIP` of the n-th mark. It is inside the `ServiceCIDR`, and no test uses it.
pub(super) fn mark_ip(family: Family, n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    match family.cluster_ip(low) {
        IpAddr::V4(ip) => {
            let [a, b, _, d] = ip.octets();
            [a, b, 128 | high, d].into()
        }
        IpAddr::V6(ip) => {
            let mut segments = ip.segments();
            segments[7] = 0x8000 | n;
            segments.into()
        }
    }
}

/// Returns the objects of these manifests.
pub(crate) fn objects(manifests: &str) -> Vec<Value> {
    let documents = manifests.split("---\n").filter(|text| !text.is_empty());
    let object = |text| serde_json::from_str(text).expect("JSON");
    documents.map(object).collect()
}

fn metadata(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    json!({ "namespace": namespace, "name": name, "creationTimestamp": "2024-01-01T00:00:00Z" })
}

fn document(object: &Value) -> String {
    format!("---\n{object:#}\n")
}
