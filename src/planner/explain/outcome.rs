//! What becomes of a connection, from the evaluation of the rules.

use std::net::SocketAddr;

use super::evaluate::{ChainEnd, Destination, Evaluation, Source, list};
use super::{EndpointChance, Lookup, Outcome, Path};
use crate::planner::model::Address;
use crate::planner::ruleset::{ChainName, Program};

/// What becomes of a connection, and the Service's name for it.
///
/// # Errors
/// If the elements cannot be read.
pub fn walk<A: Address, L: Lookup<A>>(
    rules: &mut L,
    program: &Program,
    frontend: Destination<A>,
    source: Source<A>,
) -> Result<(Option<String>, Path), L::Error> {
    let mut evaluation = Evaluation::new(rules, program, frontend, source);
    let outcome = match evaluation.dispatch()? {
        Some(ChainEnd::Refused) => Outcome::Refused {
            why: refused(&evaluation.trail).to_owned(),
        },
        Some(ChainEnd::Dropped(chain)) => Outcome::Dropped {
            why: dropped(chain, &evaluation, source),
        },
        Some(ChainEnd::Masqueraded(_)) | None if evaluation.drawn.is_empty() => {
            Outcome::Untouched {
                why: "no Service has this address and port".to_owned(),
            }
        }
        Some(ChainEnd::Translated | ChainEnd::Masqueraded(_)) | None => {
            served(&mut evaluation, source)?
        }
    };
    let path = Path {
        from: vec![source.kind],
        steps: evaluation.steps,
        outcome,
    };
    Ok((evaluation.service, path))
}

fn served<A: Address, L: Lookup<A>>(
    evaluation: &mut Evaluation<'_, A, L>,
    source: Source<A>,
) -> Result<Outcome, L::Error> {
    let mut endpoints = Vec::new();
    for ((address, port), probability) in evaluation.drawn.clone() {
        endpoints.push(EndpointChance {
            endpoint: SocketAddr::new(address.into(), port).to_string(),
            probability,
            masqueraded: evaluation.leave((address, port))?,
        });
    }
    let only_from = evaluation.ranges.take();
    Ok(Outcome::Served {
        affinity_seconds: evaluation.affinity_seconds,
        held: evaluation.held.take(),
        endpoints,
        only_from: only_from.filter(|_| source.address.is_none()),
    })
}

fn refused(trail: &[ChainName]) -> &'static str {
    if trail.contains(&ChainName::Restricted) && trail.contains(&ChainName::Deny) {
        "loadBalancerSourceRanges do not hold the source"
    } else if trail.contains(&ChainName::Unserved) {
        "the ClusterIP is in use, and its Service has no such port"
    } else {
        "the Service has no endpoint that is ready"
    }
}

fn dropped<A: Address, L: Lookup<A>>(
    chain: ChainName,
    evaluation: &Evaluation<'_, A, L>,
    source: Source<A>,
) -> String {
    if chain != ChainName::Deny {
        return "its traffic policy is Local, and no endpoint is on this node".to_owned();
    }
    if !evaluation.trail.contains(&ChainName::Restricted) {
        return "no Service has this address, and ClusterIPs are allocated from its range"
            .to_owned();
    }
    let ranges = evaluation.ranges.as_deref().unwrap_or_default();
    let source = source.address;
    let source = source.map_or_else(String::new, |address| format!(" {address}"));
    let only = list(ranges);
    format!("loadBalancerSourceRanges do not hold{source}: only {only}")
}
