//! The outcome of a connection, derived from the evaluation of the rules.

use std::net::SocketAddr;

use super::evaluate::{ChainEnd, Destination, Evaluation, Source};
use super::{EndpointChance, Lookup, Outcome, Path};
use crate::planner::model::Address;
use crate::planner::ruleset::{ChainName, Program};

/// Traces a connection through the rules: returns the Service's name and the connection's path.
///
/// # Errors
/// If an element cannot be read.
pub fn trace<A: Address, L: Lookup<A>>(
    rules: &mut L,
    program: &Program,
    frontend: Destination<A>,
    source: Source<A>,
) -> Result<(Option<String>, Path), L::Error> {
    let mut evaluation = Evaluation::new(rules, program, frontend, source);
    let outcome = match evaluation.dispatch()? {
        Some(ChainEnd::Rejected) => Outcome::Rejected {
            reason: reject_reason(&evaluation.trail).to_owned(),
        },
        Some(ChainEnd::Dropped(chain)) => Outcome::Dropped {
            reason: drop_reason(chain, &evaluation, source),
        },
        Some(ChainEnd::Masqueraded(_)) | None if evaluation.candidates.is_empty() => {
            Outcome::NotTranslated {
                reason: "no Service has this address and port".to_owned(),
            }
        }
        Some(ChainEnd::Translated | ChainEnd::Masqueraded(_)) | None => {
            translated(&mut evaluation, source)?
        }
    };
    let path = Path {
        from: vec![source.kind],
        steps: evaluation.steps,
        outcome,
    };
    Ok((evaluation.service, path))
}

/// Returns the outcome of a connection that goes to one of the candidates.
fn translated<A: Address, L: Lookup<A>>(
    evaluation: &mut Evaluation<'_, A, L>,
    source: Source<A>,
) -> Result<Outcome, L::Error> {
    let mut endpoints = Vec::new();
    for ((address, port), probability) in evaluation.candidates.clone() {
        endpoints.push(EndpointChance {
            endpoint: SocketAddr::new(address.into(), port).to_string(),
            probability,
            masqueraded: evaluation.masquerading_rule((address, port))?,
        });
    }
    let only_from = evaluation.ranges.take();
    Ok(Outcome::Translated {
        affinity_seconds: evaluation.affinity_seconds,
        pinned: evaluation.pinned.take(),
        endpoints,
        only_from: only_from.filter(|_| source.address.is_none()),
    })
}

/// Why a connection is rejected or dropped although the Service has an endpoint.
const NO_LOCAL_ENDPOINT: &str = "its traffic policy is Local, and no endpoint is on this node";

/// Returns why the chains of this trail reject a connection.
fn reject_reason(trail: &[ChainName]) -> &'static str {
    if trail.contains(&ChainName::Restricted) && trail.contains(&ChainName::Deny) {
        "loadBalancerSourceRanges do not include the source"
    } else if trail.contains(&ChainName::Unserved) {
        "the ClusterIP is in use, and its Service has no such port"
    } else if trail.contains(&ChainName::UnservedLoadBalancer) {
        "no Service has this port of the load-balancer IP (--refuse-unserved-load-balancer-ports)"
    } else if trail.contains(&ChainName::ExternalLocal)
        || trail.contains(&ChainName::ExternalLocalNodeport)
        || trail.contains(&ChainName::ExternalLocalRange)
    {
        NO_LOCAL_ENDPOINT
    } else {
        "the Service has no ready endpoint"
    }
}

/// Returns why a chain drops a connection from this source.
fn drop_reason<A: Address, L: Lookup<A>>(
    chain: ChainName,
    evaluation: &Evaluation<'_, A, L>,
    source: Source<A>,
) -> String {
    if chain != ChainName::Deny {
        return NO_LOCAL_ENDPOINT.to_owned();
    }
    if !evaluation.trail.contains(&ChainName::Restricted) {
        return "no Service has this address, which is in a ServiceCIDR".to_owned();
    }
    let ranges = evaluation.ranges.as_deref().unwrap_or_default();
    let client = match source.address {
        Some(address) => address.to_string(),
        None => "the source".to_owned(),
    };
    match ranges {
        [] => format!("loadBalancerSourceRanges have no {} range", A::FAMILY),
        ranges => format!(
            "loadBalancerSourceRanges do not include {client}, only {}",
            ranges.join(", ")
        ),
    }
}
