//! The read-back of the tables of both families in steps. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::State;
use super::family::{KnownKeys, ReadBackStep};
use crate::per_family;
use crate::planner::diff::Transaction;
use crate::planner::dual::Dual;
use crate::planner::model::ServiceName;
use crate::planner::ruleset::Table;

/// The tables whose read-back begins: without the elements of Services, and only of families whose
/// table is not rebuilt.
pub type TablesToRead = Dual<Option<Table<Ipv4Addr>>, Option<Table<Ipv6Addr>>>;

/// The next step of the families that are not completely read.
pub type ReadBackSteps = Dual<Option<ReadBackStep<Ipv4Addr>>, Option<ReadBackStep<Ipv6Addr>>>;

/// The Services of a step.
pub type ServicesToRead = Dual<Vec<ServiceName>>;

/// The last transactions of a read-back.
pub type EndOfReadBack = Dual<Transaction<Ipv4Addr>, Transaction<Ipv6Addr>>;

impl State {
    /// Begins to read tables back, in steps. The applied state is what is known of them.
    pub fn begin_read_back(&mut self, tables: TablesToRead) {
        let (store, facts) = (&self.store, &self.facts);
        per_family!(self.families.as_mut().zip(tables), |(family, table)| {
            if let Some(table) = table {
                family.begin_read_back(store, facts, &table);
            }
        });
    }

    /// Whether a read-back is not complete.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        per_family!(self.families.as_ref(), |family| family.is_reading()).any()
    }

    /// Returns the number of Services of both families whose elements are not known yet.
    #[must_use]
    pub fn unread_count(&self) -> usize {
        let counts = per_family!(self.families.as_ref(), |family| family.unread_count());
        counts.into_iter().sum()
    }

    /// Returns the next Services to read: all that changed, and at most `others` more.
    #[must_use]
    pub fn next_services(&self, others: usize) -> ServicesToRead {
        per_family!(self.families.as_ref(), |family| family
            .next_services(others))
    }

    /// Returns the step that reads the first of these of the [`Self::next_services`], as many as fit:
    /// at least one.
    #[must_use]
    pub fn steps(&self, services: &ServicesToRead) -> ReadBackSteps {
        per_family!(self.families.as_ref().zip(services.as_ref()), |(
            family,
            services,
        )| {
            family.step(&self.store, &self.facts, services)
        })
    }

    /// Makes what the tables have for the Services of a step part of the applied state, so that the
    /// next plan corrects it.
    pub fn adopt(&mut self, steps: ReadBackSteps) {
        per_family!(self.families.as_mut().zip(steps), |(family, step)| {
            if let Some(step) = step {
                family.adopt(step);
            }
        });
    }

    /// Ends a read-back early: another one must follow, or a rebuild of the tables.
    pub fn cancel_read_back(&mut self) {
        per_family!(self.families.as_mut(), |family| family.cancel_read_back());
    }

    /// Returns the last transactions of a read-back, which delete what no Service needs; `None`
    /// while the elements of a Service are not known.
    #[must_use]
    pub fn plan_end_of_read_back(&self) -> Option<EndOfReadBack> {
        (self.unread_count() == 0).then(|| {
            per_family!(self.families.as_ref(), |family| family
                .plan_end_of_read_back()
                .unwrap_or_default())
        })
    }

    /// Ends a read-back whose last transactions the kernel committed; returns the keys that were
    /// looked up.
    pub fn end_read_back(&mut self) -> Dual<KnownKeys> {
        per_family!(self.families.as_mut(), |family| family.end_read_back())
    }
}
