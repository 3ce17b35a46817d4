//! The changes of health checks that the health check servers have not received yet. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::planner::desired::{HealthCheck, HealthCheckChange, NodeElements, NodeFacts};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, ServiceName};

/// The changes of health checks since the last [`Self::take`].
#[derive(Debug, Default)]
pub(super) struct HealthChanges {
    /// The last reported addresses of the servers, by family.
    addresses: BTreeMap<Family, Vec<IpAddr>>,
    changes: Vec<HealthCheckChange>,
}

impl HealthChanges {
    /// Adds the health checks that a committed plan of one family changes.
    pub(super) fn add<A: Address>(
        &mut self,
        checks: Vec<(ServiceName, Option<HealthCheck>)>,
        node: &NodeElements<A>,
        facts: &NodeFacts,
    ) {
        let addresses = node.health_check_ips(facts);
        if self.addresses.get(&A::FAMILY) != Some(&addresses) {
            self.addresses.insert(A::FAMILY, addresses.clone());
            self.changes
                .push(HealthCheckChange::Addresses(A::FAMILY, addresses));
        }
        for (name, check) in checks {
            self.changes
                .push(HealthCheckChange::Service(A::FAMILY, name, check));
        }
    }

    /// Takes the changes in their order.
    pub(super) fn take(&mut self) -> Vec<HealthCheckChange> {
        std::mem::take(&mut self.changes)
    }
}
