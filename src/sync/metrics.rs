//! What the crank counts.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::clock;
use crate::events::EventReason;
use crate::metrics::{
    FamilyLabel, KindLabel, Metrics, OutcomeLabel, PolicyLabel, ReasonLabel, RejectionLabel,
    SetLabel, seconds_of,
};
use crate::netlink::{Commit, Error};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Event, Object, ObjectKind, SliceEndpoints, Update};
use crate::planner::ruleset::SetName;

use super::FamilyState;

/// How many slices count for the latency of programming while nothing is committed: a kernel that refuses
/// everything for days must not cost memory for each change.
const TRIGGERS: usize = 16_384;

/// Counts for the families that the node has.
pub(super) struct SyncMetrics {
    pub(super) metrics: Metrics,
    families: Vec<Family>,
    /// What was triggered before this, in milliseconds since 1970, was late before we were there.
    started: i64,
    /// Triggers of reported slices that are not committed yet, at most [`TRIGGERS`].
    triggers: Vec<(Family, i64)>,
    sent_bytes: u64,
    /// As last counted.
    elements: BTreeMap<(Family, SetName), usize>,
    problem_objects: BTreeMap<EventReason, usize>,
}

impl SyncMetrics {
    pub(super) fn new(metrics: Metrics, families: Vec<Family>) -> Self {
        metrics.init(&families);
        for reason in EventReason::OF_OBJECTS {
            let of_reason = ReasonLabel::new(reason.name());
            drop(metrics.problem_objects.get_or_create(&of_reason));
        }
        Self {
            metrics,
            families,
            started: milliseconds_of(clock::now()),
            triggers: Vec::new(),
            sent_bytes: 0,
            elements: BTreeMap::new(),
            problem_objects: BTreeMap::new(),
        }
    }

    fn of_families(&self) -> impl Iterator<Item = FamilyLabel> {
        self.families.iter().copied().map(FamilyLabel::from)
    }

    /// A source reported this.
    pub(super) fn reported(&mut self, event: &Event) {
        let update = match event {
            Event::Interrupted(kind) => {
                let restarts = &self.metrics.watch_restarts;
                restarts.get_or_create(&KindLabel::from(*kind)).inc();
                return;
            }
            Event::Update(update) => update,
            Event::Listed(_) | Event::OwnAddresses(_) => return,
        };
        let metrics = &self.metrics;
        match update.key.kind {
            ObjectKind::Service => {
                metrics.service_changes.inc();
                metrics.service_changes_pending.inc();
            }
            ObjectKind::EndpointSlice | ObjectKind::Endpoints => {
                metrics.endpoint_changes.inc();
                metrics.endpoint_changes_pending.inc();
                let room = TRIGGERS - self.triggers.len();
                let triggers = triggers(update, self.started);
                self.triggers.extend(triggers.into_iter().take(room));
            }
            ObjectKind::Node | ObjectKind::ServiceCidr => {}
        }
        let now = seconds_of(clock::now());
        for family in self.of_families() {
            self.metrics.last_queued.get_or_create(&family).set(now);
        }
    }

    /// Parts of an object were found to make no sense, and that was said.
    pub(super) fn rejected(&self, labels: Vec<RejectionLabel>) {
        for label in labels {
            self.metrics
                .rejected_object_parts
                .get_or_create(&label)
                .inc();
        }
    }

    /// So many objects are not served as asked.
    pub(super) fn not_served(&mut self, objects: &BTreeMap<EventReason, usize>) {
        if self.problem_objects == *objects {
            return;
        }
        self.problem_objects.clone_from(objects);
        for (reason, count) in objects {
            let objects = &self.metrics.problem_objects;
            objects
                .get_or_create(&ReasonLabel::new(reason.name()))
                .set(number(*count));
        }
    }

    /// A sync was committed: all of it took `elapsed`, the kernel `kernel`.
    pub(super) fn committed(
        &mut self,
        commit: &Commit,
        full: bool,
        elapsed: Duration,
        kernel: Duration,
    ) {
        let metrics = &self.metrics;
        metrics
            .transactions
            .get_or_create(&OutcomeLabel::COMMITTED)
            .inc();
        metrics.transaction_durations.observe(kernel.as_secs_f64());
        metrics
            .operations
            .inc_by(u64::try_from(commit.len()).unwrap_or(u64::MAX));
        metrics.endpoint_changes_pending.set(0);
        metrics.service_changes_pending.set(0);
        let now = clock::now();
        for family in self.of_families() {
            metrics
                .last_sync
                .get_or_create(&family)
                .set(seconds_of(now));
            self.observe(&family, full, elapsed);
        }
        let now = milliseconds_of(now);
        for (family, trigger) in self.triggers.drain(..) {
            let took = Duration::from_millis(u64::try_from(now - trigger).unwrap_or(0));
            let programming = metrics.programming.get_or_create(&family.into());
            programming.observe(took.as_secs_f64());
        }
    }

    fn observe(&self, family: &FamilyLabel, full: bool, elapsed: Duration) {
        let metrics = &self.metrics;
        let seconds = elapsed.as_secs_f64();
        metrics.syncs.get_or_create(family).observe(seconds);
        let by_extent = if full {
            &metrics.full_syncs
        } else {
            &metrics.partial_syncs
        };
        by_extent.get_or_create(family).observe(seconds);
    }

    /// A sync failed at its transaction.
    pub(super) fn rejected_commit(&self, error: &Error, full: bool, elapsed: Duration) {
        let outcome = match error {
            Error::Rejected(rejections) => {
                let count = u64::try_from(rejections.len()).unwrap_or(u64::MAX);
                self.metrics.rejected_operations.inc_by(count);
                OutcomeLabel::REJECTED
            }
            Error::Socket { .. }
            | Error::Lost
            | Error::Owned(_)
            | Error::Permission
            | Error::Lacks(_)
            | Error::NoNftables => OutcomeLabel::FAILED,
        };
        self.metrics.transactions.get_or_create(&outcome).inc();
        self.failed(full, elapsed);
    }

    /// Counts the reasons why parts of Services are not served.
    pub(super) fn count_unserved(&self, reasons: usize) {
        let reasons = u64::try_from(reasons).unwrap_or(u64::MAX);
        self.metrics.skipped_service_parts.inc_by(reasons);
    }

    /// A sync failed.
    pub(super) fn failed(&self, full: bool, elapsed: Duration) {
        for family in self.of_families() {
            self.metrics.sync_failures.get_or_create(&family).inc();
            self.observe(&family, full, elapsed);
        }
    }

    /// Unused chains could not be deleted.
    pub(super) fn cleanup_failed(&self) {
        for family in self.of_families() {
            self.metrics.cleanup_failures.get_or_create(&family).inc();
        }
    }

    /// So many bytes were sent to the kernel since the start.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.metrics
            .bytes
            .inc_by(bytes.saturating_sub(self.sent_bytes));
        self.sent_bytes = bytes;
    }

    /// What a family holds now.
    pub(super) fn holds<A: Address>(&mut self, family: &FamilyState<A>) {
        let applied = family.applied();
        let metrics = &self.metrics;
        for (set, count) in applied.elements() {
            // Few change in a sync.
            if self.elements.insert((A::FAMILY, *set), *count) != Some(*count) {
                let of_set = SetLabel::new(A::FAMILY, *set);
                metrics.elements.get_or_create(&of_set).set(number(*count));
            }
        }
        let services = metrics.services.get_or_create(&A::FAMILY.into());
        services.set(number(applied.services()));
        drop(services);
        let without = applied.without_local_endpoints();
        let no_local = &metrics.no_local_endpoints;
        let internal = no_local.get_or_create(&PolicyLabel::internal(A::FAMILY));
        internal.set(number(without.internal));
        drop(internal);
        let external = no_local.get_or_create(&PolicyLabel::external(A::FAMILY));
        external.set(number(without.external));
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What of an object makes no sense.
pub(super) fn rejected(event: &Event) -> Vec<RejectionLabel> {
    let Event::Update(update) = event else {
        return Vec::new();
    };
    let rejected = update.rejected.iter();
    rejected
        .map(|rejected| RejectionLabel::new(update.key.kind, rejected))
        .collect()
}

/// When the endpoints of a slice that is there changed, as far as that is since `started`.
fn triggers(update: &Update, started: i64) -> Option<(Family, i64)> {
    let Some(Object::Slices(slices)) = &update.object else {
        return None;
    };
    let family = match slices.first()?.addresses {
        SliceEndpoints::Ipv4(_) => Family::Ipv4,
        SliceEndpoints::Ipv6(_) => Family::Ipv6,
    };
    let trigger = update.triggered.filter(|trigger| *trigger >= started)?;
    Some((family, trigger))
}

fn milliseconds_of(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::model::parse;

    #[test]
    fn what_is_never_committed_costs_no_more_memory() {
        let (metrics, _) = Metrics::new();
        let mut measure = SyncMetrics::new(metrics, vec![Family::Ipv4]);
        measure.started = 0;
        let slice = "{metadata: {namespace: shop, name: a, \
                     labels: {kubernetes.io/service-name: cart}, annotations: \
                     {endpoints.kubernetes.io/last-change-trigger-time: '2026-01-01T00:00:00Z'}}, \
                     addressType: IPv4}";
        let update = parse::slice(&yaml_serde::from_str(slice).unwrap(), "n1");
        let event = Event::Update(update);
        measure.reported(&event);
        assert_eq!(measure.triggers.len(), 1);
        for _ in 0..TRIGGERS + 10 {
            measure.reported(&event);
        }
        assert_eq!(measure.triggers.len(), TRIGGERS);
    }
}
