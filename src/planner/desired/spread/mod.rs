//! The slots of a port's lists: by the weights of the endpoints, at random or in a table that a hash
//! selects from.

use std::iter::repeat_n;

use super::claims::port_ranges;
use super::maglev::{self, SlotOrder, TooManySlots, WeightedEndpoint};
use super::port::Selection;
use super::{EndpointAddr, PortSlots, Slots, UnservedReason};
use crate::planner::model::parse::annotation;
use crate::planner::model::{Address, Balance, Service, Weights};

/// The maximum number of slots of a list without a table whose endpoints have weights.
const MAX_WEIGHTED: usize = 4096;

/// The maximum number of slots at all frontends of a Service in one family, for one policy.
///
/// A Service without weights and hash has as many as endpoints. The largest table at a hundred ports
/// would cost a node its memory.
const MAX_OF_SERVICE: usize = 131_072;

/// The lists of a port with their slots, and how a slot is selected.
pub(super) struct Spread<A> {
    /// How the endpoint of a new connection is selected.
    pub(super) selection: Selection,
    /// The lists.
    pub(super) lists: PortSlots<A>,
    /// The reasons why something that the Service asks for has no effect.
    pub(super) unserved: Vec<UnservedReason>,
}

/// The lists for policy Cluster and Local, both sorted.
pub(super) struct Lists<A> {
    /// The endpoints for policy Cluster.
    pub(super) cluster: Vec<EndpointAddr<A>>,
    /// The endpoints for policy Local.
    pub(super) local: Vec<EndpointAddr<A>>,
}

impl Selection {
    /// Returns what a Service asks for.
    fn of(service: &Service) -> Self {
        let balance = service
            .features
            .as_ref()
            .and_then(|features| features.balance);
        match (service.affinity, balance) {
            (Some(seconds), _) => Self::Sticky(seconds),
            (None, Some(balance)) => Self::Hashed(balance),
            (None, None) => Self::Random,
        }
    }
}

/// The weights of the endpoints of a port, sorted by endpoint.
#[derive(Debug)]
pub(super) struct PortWeights<A> {
    /// The weights that the Service asks for; `None`: all are equal.
    pub(super) whole: Option<Vec<WeightedEndpoint<A>>>,
    /// These weights times the shares of new endpoints; `None`: no endpoint is new.
    pub(super) growing: Option<Vec<WeightedEndpoint<A>>>,
}

/// Assigns slots to the endpoints of the lists, with these weights.
///
/// What needs more slots than a list has is left out: first the slow start, then the weights, then
/// the hash.
pub(super) fn spread<A: Address>(
    service: &Service,
    lists: &Lists<A>,
    weights: &PortWeights<A>,
) -> Spread<A> {
    let mut unserved = Vec::new();
    let selection = Selection::of(service);
    match fitting(service, selection, lists, weights, &mut unserved) {
        Ok(lists) => Spread {
            selection,
            lists,
            unserved,
        },
        Err(TooManySlots) => first_slots(selection, lists, unserved),
    }
}

/// Assigns slots for this selection, and reports what is left out because it needs too many.
///
/// # Errors
/// There are too many slots without slow start and weights, too.
pub(super) fn fitting<A: Address>(
    service: &Service,
    selection: Selection,
    lists: &Lists<A>,
    weights: &PortWeights<A>,
    unserved: &mut Vec<UnservedReason>,
) -> Result<PortSlots<A>, TooManySlots> {
    let limit = MAX_OF_SERVICE / frontends::<A>(service).max(1);
    let how = (selection, slot_order(service, selection));
    let whole = weights.whole.as_deref();
    if whole.is_some_and(|whole| has_no_weight(&lists.cluster, whole)) {
        let problem = "all endpoints of a port have weight 0";
        unserved.push(no_effect(annotation::WEIGHTS, problem));
    }
    for (weights, annotation, problem) in [
        (
            weights.growing.as_deref(),
            annotation::SLOW_START,
            "a port needs too many slots for the growing shares",
        ),
        (
            whole,
            annotation::WEIGHTS,
            "a port needs too many slots for these weights",
        ),
    ] {
        let slots = weights.map(|weights| slots(how, lists, Some(weights), whole, limit));
        match slots {
            Some(Ok(lists)) => return Ok(lists),
            Some(Err(TooManySlots)) => unserved.push(no_effect(annotation, problem)),
            None => {}
        }
    }
    slots(how, lists, None, None, limit)
}

/// Returns the number of frontends of a Service in family `A`.
fn frontends<A: Address>(service: &Service) -> usize {
    let ips = [
        &service.cluster_ips,
        &service.external_ips,
        &service.load_balancer_ips,
    ];
    let ips = ips.into_iter().flatten().copied();
    let addresses = ips.filter_map(A::from_ip).count();
    let node_ports = service.ports.iter().filter_map(|port| port.node_port);
    let ranges = port_ranges(service).map_or(0, |ranges| ranges.protocols().count());
    (service.ports.len() + ranges) * addresses + node_ports.count()
}

/// Returns the reason why an annotation has no effect.
fn no_effect(annotation: &'static str, problem: &'static str) -> UnservedReason {
    UnservedReason::NoEffect {
        annotation,
        problem,
    }
}

/// Gives a slot to each of the first endpoints of lists that need too many slots.
fn first_slots<A: Address>(
    selection: Selection,
    lists: &Lists<A>,
    mut unserved: Vec<UnservedReason>,
) -> Spread<A> {
    let selection = match selection {
        Selection::Hashed(_) => {
            let problem = "a table for the endpoints of a port has too many slots";
            unserved.push(no_effect(annotation::BALANCE, problem));
            Selection::Random
        }
        Selection::Random | Selection::Sticky(_) => selection,
    };
    if lists.cluster.len().max(lists.local.len()) > Slots::<A>::MAX {
        unserved.push(UnservedReason::TooManyEndpoints);
    }
    let first = |list: &[EndpointAddr<A>]| Slots::in_order(list.iter().copied());
    Spread {
        selection,
        lists: PortSlots {
            cluster: first(&lists.cluster),
            local: first(&lists.local),
        },
        unserved,
    }
}

/// Returns whether there are endpoints, and none has a weight.
fn has_no_weight<A: Address>(list: &[EndpointAddr<A>], weights: &[WeightedEndpoint<A>]) -> bool {
    !list.is_empty() && weighted(list, weights).is_empty()
}

/// Returns the endpoints of a list that have a weight, or all with weight 1 if none has: a node with
/// only endpoints of weight 0 serves them rather than none.
fn weighted_or_equal<A: Address>(
    list: &[EndpointAddr<A>],
    weights: Option<&[WeightedEndpoint<A>]>,
) -> Vec<WeightedEndpoint<A>> {
    let weighted = weights.map(|weights| weighted(list, weights));
    let equal = || list.iter().map(|endpoint| (*endpoint, Weights::DEFAULT));
    weighted
        .filter(|weighted| !weighted.is_empty())
        .unwrap_or_else(|| equal().collect())
}

/// Returns the endpoints of a list that have a weight, in lowest terms.
fn weighted<A: Address>(
    list: &[EndpointAddr<A>],
    weights: &[WeightedEndpoint<A>],
) -> Vec<WeightedEndpoint<A>> {
    let weight = |endpoint: &EndpointAddr<A>| {
        let position = weights.binary_search_by(|(named, _)| named.cmp(endpoint));
        let found = position.ok().and_then(|position| weights.get(position));
        found.map_or(Weights::DEFAULT, |(_, weight)| *weight)
    };
    let with_weights = list.iter().map(|endpoint| (*endpoint, weight(endpoint)));
    let mut weighted: Vec<_> = with_weights.filter(|(_, weight)| *weight > 0).collect();
    let divisor = weighted
        .iter()
        .fold(0, |divisor, (_, weight)| gcd(divisor, *weight));
    for (_, weight) in &mut weighted {
        *weight /= divisor.max(1);
    }
    weighted
}

/// Returns the greatest common divisor; that of 0 and a number is the number.
fn gcd(one: u16, other: u16) -> u16 {
    match one {
        0 => other,
        one => gcd(other % one, one),
    }
}

/// Returns what the slots of an endpoint follow from.
///
/// A client has the same endpoint at a port as at the port ranges, if a hash of its address selects
/// both: the control connection of FTP or SIP belongs to ports of a range.
fn slot_order(service: &Service, selection: Selection) -> SlotOrder {
    let by_source = selection == Selection::Hashed(Balance::Source);
    if by_source && port_ranges(service).is_some() {
        SlotOrder::OfAddress
    } else {
        SlotOrder::OfEndpoint
    }
}

/// Assigns slots to the endpoints of both lists by weight.
///
/// The size of a table follows from the `whole` weights: if it changed while shares grow, most
/// connections would change their endpoint.
fn slots<A: Address>(
    (selection, order): (Selection, SlotOrder),
    lists: &Lists<A>,
    weights: Option<&[WeightedEndpoint<A>]>,
    whole: Option<&[WeightedEndpoint<A>]>,
    limit: usize,
) -> Result<PortSlots<A>, TooManySlots> {
    let of_list = |list: &[EndpointAddr<A>]| {
        let weighted = weighted_or_equal(list, weights);
        match selection {
            Selection::Hashed(_) => {
                let size = maglev::size(&weighted_or_equal(list, whole), limit)?;
                Ok(Slots::in_order(maglev::table(&weighted, size, order)))
            }
            Selection::Random | Selection::Sticky(_) => repeated(&weighted, limit),
        }
    };
    Ok(PortSlots {
        cluster: of_list(&lists.cluster)?,
        local: of_list(&lists.local)?,
    })
}

/// Gives each endpoint as many slots as its weight.
fn repeated<A: Address>(
    list: &[WeightedEndpoint<A>],
    limit: usize,
) -> Result<Slots<A>, TooManySlots> {
    let total: usize = list.iter().map(|(_, weight)| usize::from(*weight)).sum();
    let limit = if total == list.len() {
        Slots::<A>::MAX
    } else {
        MAX_WEIGHTED.min(limit)
    };
    if total > limit {
        return Err(TooManySlots);
    }
    let each = list.iter();
    Ok(Slots::in_order(each.flat_map(|(endpoint, weight)| {
        repeat_n(*endpoint, usize::from(*weight))
    })))
}

#[cfg(test)]
mod tests;
