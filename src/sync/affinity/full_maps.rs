//! Reports affinity maps that are full, so that new clients are not pinned.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::logging::LogEvent;
use crate::netlink::Kernel;
use crate::per_family;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::AFFINITY_SIZE;
use crate::sync::{FamilyState, State};

/// The interval of checks while a Service has session affinity.
pub(in crate::sync) const CHECK_INTERVAL: Duration = Duration::from_mins(1);

/// The minimum interval between two checks.
const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The counters of clients that did not fit their affinity map, at the last check.
#[derive(Default)]
pub(in crate::sync) struct FullMaps {
    last_check: Option<Instant>,
    counters: BTreeMap<(Family, Protocol), u64>,
}

impl FullMaps {
    /// Logs the affinity maps that did not take a new client since the last check.
    ///
    /// The first check only reads the counters, which an earlier process may have left.
    pub(in crate::sync) fn check(&mut self, kernel: &mut Kernel, state: &State) {
        if self
            .last_check
            .is_some_and(|last| last.elapsed() < MIN_CHECK_INTERVAL)
        {
            return;
        }
        self.last_check = Some(Instant::now());
        per_family!(state.families.as_ref(), |family| self
            .check_family(kernel, family));
    }

    fn check_family<A: Address>(&mut self, kernel: &mut Kernel, _family: &FamilyState<A>) {
        let counters = match kernel.affinity_overflows::<A>() {
            Ok(counters) => counters,
            Err(error) => {
                warn!(event = %LogEvent::AffinityMapUnreadable, %error, family = %A::FAMILY, "cannot read the counter of full affinity maps");
                return;
            }
        };
        for (protocol, count) in counters {
            let before = self.counters.insert((A::FAMILY, protocol), count);
            let connections = count.saturating_sub(before.unwrap_or(count));
            if connections > 0 {
                warn!(
                    event = %LogEvent::AffinityMapFull,
                    family = %A::FAMILY,
                    %protocol,
                    connections,
                    clients = AFFINITY_SIZE,
                    "affinity map full; new clients are balanced without affinity"
                );
            }
        }
    }
}
