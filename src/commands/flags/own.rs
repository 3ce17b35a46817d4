//! kube-dnat's own flags for Services, which a configuration file does not have.

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::super::completions::values;
use super::syntax::{SWITCH, switch};
use crate::planner::desired::NodeFacts;
use crate::planner::model::NoLocalEndpoint;

/// The flags that change what kube-proxy does; `run` and `render` share them.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Beyond kube-proxy")]
pub(in crate::commands) struct OwnFlags {
    /// What outside clients of a Service with externalTrafficPolicy Local get if it has endpoints,
    /// but none on this node: no answer (drop), or a TCP reset or ICMP error (reject)
    /// [default: drop].
    #[arg(long, value_name = "drop|reject", value_parser = no_local_endpoint, add = ArgValueCandidates::new(values(NoLocalEndpoint::NAMES)))]
    external_local_without_endpoints: Option<NoLocalEndpoint>,

    /// Refuse connections to ports of a load-balancer IP that no Service has, unless the address is
    /// the node's own.
    ///
    /// Use this flag only if no other machine serves ports at these addresses. Changing it recreates
    /// the tables.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    refuse_unserved_load_balancer_ports: Option<bool>,
}

/// Parses the answer to clients that no local endpoint serves.
fn no_local_endpoint(text: &str) -> Result<NoLocalEndpoint, String> {
    NoLocalEndpoint::from_name(text).ok_or_else(|| "neither drop nor reject".to_owned())
}

impl OwnFlags {
    /// Moves the flags into `facts`, with or without a configuration file.
    pub(super) fn apply(self, facts: &mut NodeFacts) {
        let Self {
            external_local_without_endpoints,
            refuse_unserved_load_balancer_ports,
        } = self;
        facts.no_local_endpoint = external_local_without_endpoints.unwrap_or_default();
        facts.refuse_load_balancer_ports = refuse_unserved_load_balancer_ports == Some(true);
    }
}
