//! The slots of a port's lists: one for each endpoint, or a table that a hash selects from.

use super::maglev::{self, TooManySlots};
use super::port::Selection;
use super::{EndpointAddr, PortSlots, Slots, UnservedReason};
use crate::planner::model::parse::annotation;
use crate::planner::model::{Address, Service};

/// The lists of a port with their slots, and how a slot is selected.
pub(super) struct Spread<A> {
    /// How the endpoint of a new connection is selected.
    pub(super) selection: Selection,
    /// The lists.
    pub(super) lists: PortSlots<A>,
    /// The reasons why something that the Service asks for has no effect.
    pub(super) unserved: Vec<UnservedReason>,
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

/// Assigns slots to the endpoints of the lists for policy Cluster and Local, both sorted.
///
/// If a hash would need more slots than a list has, the endpoints are selected at random.
pub(super) fn spread<A: Address>(
    service: &Service,
    cluster: Vec<EndpointAddr<A>>,
    local: Vec<EndpointAddr<A>>,
) -> Spread<A> {
    let mut spread = Spread {
        selection: Selection::of(service),
        lists: PortSlots::default(),
        unserved: Vec::new(),
    };
    if let Selection::Hashed(_) = spread.selection {
        if let (Ok(cluster), Ok(local)) = (table(&cluster), table(&local)) {
            spread.lists = PortSlots { cluster, local };
            return spread;
        }
        spread.selection = Selection::Random;
        spread.unserved.push(UnservedReason::NoEffect {
            annotation: annotation::BALANCE,
            problem: "a port has so many endpoints that a table needs more than 65,536 slots",
        });
    }
    if cluster.len().max(local.len()) > Slots::<A>::MAX {
        spread.unserved.push(UnservedReason::TooManyEndpoints);
    }
    spread.lists = PortSlots {
        cluster: Slots::in_order(cluster),
        local: Slots::in_order(local),
    };
    spread
}

/// Returns the table of a list that a hash selects from.
fn table<A: Address>(endpoints: &[EndpointAddr<A>]) -> Result<Slots<A>, TooManySlots> {
    let weighted: Vec<_> = endpoints.iter().map(|endpoint| (*endpoint, 1)).collect();
    Ok(Slots::in_order(maglev::table(&weighted)?))
}
