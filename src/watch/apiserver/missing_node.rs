//! The report that no Node has the name of this node.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;
use tracing::debug;

use super::WatchTimeouts;
use super::client::ApiClient;
use crate::logging::ErrorChain;
use crate::planner::explain::most_similar;
use crate::planner::model::{Event, Events};

/// Reports each time that no Node has had the name of this node for
/// [`WatchTimeouts::missing_node`], with the most similar names, until the receiver is dropped.
pub(super) async fn report(
    client: &ApiClient,
    our_node: &str,
    timeouts: &WatchTimeouts,
    events: &Sender<Events>,
) {
    loop {
        client.watches.wait_for_node(false).await;
        let appears = client.watches.wait_for_node(true);
        // On a new node, kube-dnat may start before the kubelet registers the Node.
        if timeout(timeouts.missing_node, appears).await.is_ok() {
            continue;
        }
        let similar = similar_nodes(client, our_node, timeouts).await;
        let Ok(permit) = events.reserve().await else {
            return;
        };
        // The reader records the Node before it reports it, so this event is never after that one.
        if client.watches.shows_node() == Some(false) {
            permit.send(vec![Event::NodeMissing(similar)]);
            client.watches.wait_for_node(true).await;
        }
    }
}

/// Lists the Nodes by their metadata, and returns the most similar names; none if the list fails.
async fn similar_nodes(
    client: &ApiClient,
    our_node: &str,
    timeouts: &WatchTimeouts,
) -> Vec<String> {
    let nodes: Api<Node> = Api::all(client.kube());
    // From the cache of the API server, since many nodes may have the same wrong setting.
    let cached = ListParams::default().at("0");
    let list = timeout(timeouts.answer, nodes.list_metadata(&cached));
    let nodes = list.await.map_err(anyhow::Error::from);
    let nodes = match nodes.and_then(|nodes| Ok(nodes?)) {
        Ok(nodes) => nodes.items,
        Err(error) => {
            debug!(error = %ErrorChain(&*error), "cannot list the Nodes");
            Vec::new()
        }
    };
    let names = nodes.into_iter().filter_map(|node| node.metadata.name);
    most_similar(our_node, names.collect())
}
