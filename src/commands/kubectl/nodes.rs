//! The nodes of the cluster, and the Pods of kube-dnat on them.

use std::collections::BTreeMap;

use anyhow::bail;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;

use super::Cluster;

/// The label of the Pods, as in the manifests and in the chart.
const SELECTOR: &str = "app.kubernetes.io/name=kube-dnat";

/// The label of the zone of a node.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A list as kubectl prints it.
#[derive(Debug, Deserialize)]
struct List<T> {
    /// The objects.
    items: Vec<T>,
}

/// A node that runs kube-dnat, or should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterNode {
    /// The name of the node.
    pub(super) name: String,
    /// The zone of the node.
    pub(super) zone: Option<String>,
    /// The running Pod of kube-dnat, or the reason why there is none.
    pub(super) pod: Result<String, String>,
}

impl Cluster {
    /// Returns all nodes of the cluster, sorted by name. Without the right to list Nodes, returns
    /// those that have a Pod.
    pub(super) async fn nodes(&self) -> anyhow::Result<Vec<ClusterNode>> {
        let pods = [
            "pods",
            "--namespace",
            &self.namespace,
            "--selector",
            SELECTOR,
        ];
        let pods: List<Pod> = self.get(&pods).await?;
        let zones = match self.get::<List<Node>>(&["nodes"]).await {
            Ok(nodes) => zones(nodes.items),
            Err(error) => {
                tracing::warn!("{error:#}; nodes without a Pod of kube-dnat are not shown");
                BTreeMap::new()
            }
        };
        let nodes = join(zones, pods.items);
        if nodes.iter().all(|node| node.pod.is_err()) {
            bail!(
                "no Pod of kube-dnat is running in namespace {} (label {SELECTOR}): use --namespace",
                self.namespace
            );
        }
        Ok(nodes)
    }
}

/// Returns the zone of each Linux node.
fn zones(nodes: Vec<Node>) -> BTreeMap<String, Option<String>> {
    let zone = |node: Node| {
        let mut labels = node.metadata.labels.unwrap_or_default();
        let is_linux = labels
            .get("kubernetes.io/os")
            .is_none_or(|os| os == "linux");
        is_linux.then_some((node.metadata.name?, labels.remove(ZONE)))
    };
    nodes.into_iter().filter_map(zone).collect()
}

/// Joins nodes and Pods. A running Pod is preferred to one that ends.
fn join(zones: BTreeMap<String, Option<String>>, pods: Vec<Pod>) -> Vec<ClusterNode> {
    let node = |(name, zone): (String, Option<String>)| {
        let pod = Err("no Pod of kube-dnat".to_owned());
        let node = ClusterNode {
            name: name.clone(),
            zone,
            pod,
        };
        (name, node)
    };
    let mut nodes: BTreeMap<_, _> = zones.into_iter().map(node).collect();
    for pod in pods {
        let Some(on) = pod.spec.and_then(|spec| spec.node_name) else {
            continue;
        };
        let name = pod.metadata.name.unwrap_or_default();
        let phase = pod.status.and_then(|status| status.phase);
        let phase = phase.unwrap_or_else(|| "Unknown".to_owned());
        let ends = pod.metadata.deletion_timestamp.is_some();
        let (_, node) = node((on.clone(), None));
        let node = nodes.entry(on).or_insert(node);
        if phase == "Running" && !ends {
            node.pod = Ok(name);
        } else if node.pod.is_err() {
            let state = if ends { "Terminating" } else { &phase };
            node.pod = Err(format!("Pod {name} is {state}"));
        }
    }
    nodes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_node_has_its_running_pod_or_a_reason() {
        let nodes = json!([
            {"metadata": {"name": "a", "labels": {"topology.kubernetes.io/zone": "west"}}},
            {"metadata": {"name": "b"}},
            {"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}},
        ]);
        let pod = |name: &str, node: &str, phase: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}});
        let pods = json!([
            pod("p1", "a", "Running"),
            pod("p0", "a", "Failed"),
            pod("p2", "c", "Pending"),
            {"metadata": {"name": "unscheduled"}, "spec": {"containers": []}},
        ]);
        let joined = join(zones(from_value(nodes).unwrap()), from_value(pods).unwrap());
        let texts: Vec<_> = joined
            .iter()
            .map(|node| (node.name.as_str(), node.zone.as_deref(), node.pod.clone()))
            .collect();
        assert_eq!(
            texts,
            [
                ("a", Some("west"), Ok("p1".to_owned())),
                ("b", None, Err("no Pod of kube-dnat".to_owned())),
                ("c", None, Err("Pod p2 is Pending".to_owned())),
            ]
        );
    }
}
