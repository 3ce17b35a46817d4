//! What `explain` says of a frontend beside the paths of its connections.

use super::live::LiveLookup;
use crate::netlink::Error;
use crate::planner::explain::{Destination, Lookup, Outcome, Path, SourceKind};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Key, SetName, TcpPickup};

/// A node port at a loopback address, to which no rule applies.
pub(super) struct LocalhostPort {
    /// The Service port that has the node port.
    pub(super) service: Option<String>,
    /// The path of connections.
    pub(super) path: Path,
    /// What serves it.
    pub(super) note: String,
}

/// Returns the Service of a node port at a loopback address; `None` if this is none.
pub(super) fn localhost_port<A: Address>(
    live: &mut LiveLookup<'_, A>,
    at: Destination<A>,
) -> Result<Option<LocalhostPort>, Error> {
    let Destination {
        protocol,
        address,
        port,
    } = at;
    if !address.into().is_loopback() || protocol == Protocol::Sctp {
        return Ok(None);
    }
    let node_port = live.get(SetName::Nodeports, &Key::Nodeport(protocol, port))?;
    Ok(node_port.map(|element| LocalhostPort {
        service: element.comment.map(|comment| comment.to_string()),
        path: Path {
            from: vec![SourceKind::Node],
            steps: Vec::new(),
            outcome: Outcome::NotTranslated {
                reason: "no rule applies to loopback addresses".to_owned(),
            },
        },
        note: format!(
            "with --localhost-node-ports, the daemon listens here and relays node port {port} to \
             an endpoint"
        ),
    }))
}

/// Returns the note that connections to removed endpoints of a frontend are closed, if they are.
pub(super) fn close_removed<A: Address>(
    live: &mut LiveLookup<'_, A>,
    at: Destination<A>,
) -> Result<Option<String>, Error> {
    if at.protocol != Protocol::Tcp {
        return Ok(None);
    }
    let is_node_ip = live
        .get(SetName::NodeIps, &Key::Address(at.address))?
        .is_some();
    let frontend = Key::AddressPort(at.address, at.port);
    for pickup in TcpPickup::ALL {
        let at_address = live.get(SetName::CloseRemoved(pickup), &frontend)?;
        let node_ports = SetName::CloseRemovedNodeports(pickup);
        let at_node_port = live.get(node_ports, &Key::Port(at.port))?;
        if at_address.is_some() || (is_node_ip && at_node_port.is_some()) {
            let note = "connections to removed endpoints are closed (kube-dnat.io/close-removed)";
            return Ok(Some(note.to_owned()));
        }
    }
    Ok(None)
}
