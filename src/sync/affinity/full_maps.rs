//! Whether session affinity still remembers every new client.

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

/// How often it is looked at while any Service has session affinity, and how often at most.
pub(in crate::sync) const EVERY: Duration = Duration::from_mins(1);
const AT_MOST: Duration = Duration::from_secs(1);

/// What was counted when it was last looked at.
#[derive(Default)]
pub(in crate::sync) struct FullMaps {
    last: Option<Instant>,
    seen: BTreeMap<(Family, Protocol), u64>,
}

impl FullMaps {
    /// Says which maps turned new clients away since the last look, the first of which only sees
    /// what an earlier process left.
    pub(in crate::sync) fn check(&mut self, kernel: &mut Kernel, state: &State) {
        if self.last.is_some_and(|last| last.elapsed() < AT_MOST) {
            return;
        }
        self.last = Some(Instant::now());
        per_family!(state.families.as_ref(), |family| self
            .check_family(kernel, family));
    }

    fn check_family<A: Address>(&mut self, kernel: &mut Kernel, _of: &FamilyState<A>) {
        let counted = match kernel.affinity_overflows::<A>() {
            Ok(counted) => counted,
            Err(error) => {
                warn!(event = %LogEvent::AffinityMapUnreadable, %error, family = %A::FAMILY, "cannot read the counter of full affinity maps");
                return;
            }
        };
        for (protocol, count) in counted {
            let before = self.seen.insert((A::FAMILY, protocol), count);
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
