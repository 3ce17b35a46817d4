//! The node ports that the relay serves at localhost, as syncs commit them.

use std::collections::BTreeSet;

use tokio::sync::mpsc::UnboundedSender;

use super::{State, SyncEffects};
use crate::per_family;
use crate::planner::desired::{LocalhostChange, ServiceElements};
use crate::planner::dual::Dual;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, ServiceName};
use crate::sync::FamilyState;

/// The changes of node ports for the relay; nothing without `--localhost-node-ports`.
#[derive(Debug, Default)]
pub(super) struct LocalhostPorts {
    /// The relay, if there is one.
    relay: Option<UnboundedSender<LocalhostChange>>,
    /// The Services that have node ports at the relay.
    served: BTreeSet<(Family, ServiceName)>,
}

impl LocalhostPorts {
    /// Creates the changes for a relay, if there is one.
    pub(super) fn new(relay: Option<UnboundedSender<LocalhostChange>>) -> Self {
        Self {
            relay,
            served: BTreeSet::new(),
        }
    }

    /// Returns the Services that a sync is about to commit.
    pub(super) fn names(&self, effects: &SyncEffects) -> Option<Dual<BTreeSet<ServiceName>>> {
        self.relay.as_ref()?;
        Some(per_family!(effects.as_ref(), |effects| effects
            .names
            .clone()))
    }

    /// Sends the node ports of the Services that a sync committed.
    pub(super) fn send(&mut self, names: Dual<BTreeSet<ServiceName>>, state: &State) {
        per_family!(state.families.as_ref().zip(names), |(family, names)| self
            .send_family(family, names));
    }

    /// Sends the node ports of Services of one family. Takes time linear in their endpoints.
    fn send_family<A: Address>(&mut self, state: &FamilyState<A>, names: BTreeSet<ServiceName>) {
        let (Some(relay), family) = (&self.relay, A::FAMILY) else {
            return;
        };
        for service in names {
            let elements = state.applied().service_elements(&service);
            let ports = elements.map_or_else(Vec::new, ServiceElements::localhost_ports);
            let key = (family, service.clone());
            let was_served = self.served.contains(&key);
            if ports.is_empty() {
                self.served.remove(&key);
            } else {
                self.served.insert(key);
            }
            if was_served || !ports.is_empty() {
                // Without a receiver, the daemon is about to exit.
                let _closed = relay.send(LocalhostChange {
                    family,
                    service,
                    ports,
                });
            }
        }
    }
}
