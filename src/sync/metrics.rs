//! The metrics of the sync loop.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::clock;
use crate::events::EventReason;
use crate::metrics::{
    FamilyLabel, InterruptLabel, Metrics, OutcomeLabel, PolicyLabel, ReasonLabel, RejectionLabel,
    SetLabel, seconds_of,
};
use crate::netlink::{Commit, Error};
use crate::planner::model::addr::Family;
use crate::planner::model::{
    Address, Event, InterruptReason, Object, ObjectKind, SliceEndpoints, Update,
};
use crate::planner::ruleset::SetName;

use super::FamilyState;

/// The number of pending slices that count for the latency of programming.
///
/// The limit bounds the memory if the kernel rejects every transaction for days.
const MAX_TRIGGERS: usize = 16_384;

/// The metrics of the sync loop, for the families that the node has.
pub(super) struct SyncMetrics {
    metrics: Metrics,
    families: Vec<Family>,
    /// When the process started, in milliseconds since 1970. Earlier triggers are not measured.
    started: i64,
    /// The triggers of pending slices in milliseconds since 1970, at most [`MAX_TRIGGERS`].
    triggers: Vec<(Family, i64)>,
    /// The number of bytes that the last call of [`Self::sent`] set.
    sent_bytes: u64,
    /// The numbers of elements that the metric has.
    elements: BTreeMap<(Family, SetName), usize>,
    /// The numbers of objects with problems that the metric has.
    objects_not_served: BTreeMap<EventReason, usize>,
}

/// The extent of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncExtent {
    /// Every Service is planned, after a read back or a rebuild of the tables.
    Full,
    /// Only dirty Services are planned.
    Partial,
}

impl SyncMetrics {
    /// Creates the metrics of these families, with a value for every label.
    pub(super) fn new(metrics: Metrics, families: Vec<Family>) -> Self {
        metrics.init(&families);
        for reason in EventReason::OF_OBJECTS {
            let label = ReasonLabel::new(reason.name());
            drop(metrics.objects_not_served.get_or_create(&label));
        }
        for kind in ObjectKind::ALL {
            for reason in InterruptReason::ALL {
                let label = InterruptLabel::new(kind, reason);
                drop(metrics.watch_restarts.get_or_create(&label));
            }
        }
        Self {
            metrics,
            families,
            started: milliseconds_of(clock::now()),
            triggers: Vec::new(),
            sent_bytes: 0,
            elements: BTreeMap::new(),
            objects_not_served: BTreeMap::new(),
        }
    }

    fn family_labels(&self) -> impl Iterator<Item = FamilyLabel> {
        self.families.iter().copied().map(FamilyLabel::from)
    }

    /// Counts an event of a source of objects.
    pub(super) fn count_event(&mut self, event: &Event) {
        let update = match event {
            Event::Interrupted(kind, reason) => {
                let restarts = &self.metrics.watch_restarts;
                restarts
                    .get_or_create(&InterruptLabel::new(*kind, *reason))
                    .inc();
                return;
            }
            Event::Update(update) => update,
            Event::Listed(_) | Event::NodeMissing(_) | Event::OwnAddresses(_) => return,
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
                let room = MAX_TRIGGERS - self.triggers.len();
                let trigger = trigger(update, self.started);
                self.triggers.extend(trigger.into_iter().take(room));
            }
            ObjectKind::Node | ObjectKind::ServiceCidr => {}
        }
        let now = seconds_of(clock::now());
        for family in self.family_labels() {
            self.metrics.last_queued.get_or_create(&family).set(now);
        }
    }

    /// Counts rejected parts of an object.
    pub(super) fn count_rejected_parts(&self, labels: Vec<RejectionLabel>) {
        for label in labels {
            self.metrics
                .rejected_object_parts
                .get_or_create(&label)
                .inc();
        }
    }

    /// Sets the numbers of objects that are not or only partly programmed.
    pub(super) fn set_objects_not_served(&mut self, objects: &BTreeMap<EventReason, usize>) {
        if self.objects_not_served == *objects {
            return;
        }
        self.objects_not_served.clone_from(objects);
        for (reason, count) in objects {
            let objects = &self.metrics.objects_not_served;
            objects
                .get_or_create(&ReasonLabel::new(reason.name()))
                .set(number(*count));
        }
    }

    /// Counts a committed sync, which took `elapsed` as a whole and `in_kernel` in the kernel;
    /// returns the longest time from a change of an endpoint until it was programmed.
    pub(super) fn committed(
        &mut self,
        commit: &Commit,
        extent: SyncExtent,
        elapsed: Duration,
        in_kernel: Duration,
    ) -> Option<Duration> {
        let metrics = &self.metrics;
        metrics
            .transactions
            .get_or_create(&OutcomeLabel::COMMITTED)
            .inc();
        metrics
            .transaction_durations
            .observe(in_kernel.as_secs_f64());
        metrics.operations.inc_by(count(commit.len()));
        metrics.endpoint_changes_pending.set(0);
        metrics.service_changes_pending.set(0);
        let now = clock::now();
        for family in self.family_labels() {
            metrics
                .last_sync
                .get_or_create(&family)
                .set(seconds_of(now));
            self.observe(&family, extent, elapsed);
        }
        let now = milliseconds_of(now);
        let mut longest = None;
        for (family, trigger) in self.triggers.drain(..) {
            let took = Duration::from_millis(u64::try_from(now - trigger).unwrap_or(0));
            let programming = metrics.programming.get_or_create(&family.into());
            programming.observe(took.as_secs_f64());
            longest = longest.max(Some(took));
        }
        longest
    }

    fn observe(&self, family: &FamilyLabel, extent: SyncExtent, elapsed: Duration) {
        let metrics = &self.metrics;
        let seconds = elapsed.as_secs_f64();
        metrics.syncs.get_or_create(family).observe(seconds);
        let by_extent = match extent {
            SyncExtent::Full => &metrics.full_syncs,
            SyncExtent::Partial => &metrics.partial_syncs,
        };
        by_extent.get_or_create(family).observe(seconds);
    }

    /// Counts a sync whose transaction was not committed.
    pub(super) fn commit_failed(&self, error: &Error, extent: SyncExtent, elapsed: Duration) {
        let outcome = match error {
            Error::Rejected(rejections) => {
                self.metrics
                    .rejected_operations
                    .inc_by(count(rejections.len()));
                OutcomeLabel::REJECTED
            }
            Error::Socket { .. }
            | Error::TooLarge { .. }
            | Error::Lost
            | Error::Owned(_)
            | Error::Permission
            | Error::Lacks(_)
            | Error::NoNftables => OutcomeLabel::FAILED,
        };
        self.metrics.transactions.get_or_create(&outcome).inc();
        self.sync_failed(extent, elapsed);
    }

    /// Counts the reasons why parts of Services are not served.
    pub(super) fn count_unserved(&self, reasons: usize) {
        self.metrics.skipped_service_parts.inc_by(count(reasons));
    }

    /// Counts a failed sync.
    pub(super) fn sync_failed(&self, extent: SyncExtent, elapsed: Duration) {
        for family in self.family_labels() {
            self.metrics.sync_failures.get_or_create(&family).inc();
            self.observe(&family, extent, elapsed);
        }
    }

    /// Sets the number of Services that a read-back has not read yet.
    pub(super) fn unread(&self, services: usize) {
        self.metrics
            .unread_services
            .set(i64::try_from(services).unwrap_or(i64::MAX));
    }

    /// Sets whether flows may continue to endpoints that are gone.
    pub(super) fn cleanup_pending(&self, pending: bool) {
        self.metrics
            .conntrack_cleanup_pending
            .set(i64::from(pending));
    }

    /// Counts a repair of drift.
    pub(super) fn repaired(&self) {
        self.metrics.repairs.inc();
    }

    /// Counts a failure to delete unused chains.
    pub(super) fn cleanup_failed(&self) {
        for family in self.family_labels() {
            self.metrics.cleanup_failures.get_or_create(&family).inc();
        }
    }

    /// Sets the number of bytes that were sent to the kernel since the start.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.metrics
            .bytes
            .inc_by(bytes.saturating_sub(self.sent_bytes));
        self.sent_bytes = bytes;
    }

    /// Sets the numbers of elements, Services and frontends without local endpoints of a family.
    pub(super) fn set_applied<A: Address>(&mut self, family: &FamilyState<A>) {
        let applied = family.applied();
        let metrics = &self.metrics;
        for (set, count) in applied.element_counts() {
            // A sync changes few of them.
            if self.elements.insert((A::FAMILY, *set), *count) != Some(*count) {
                let label = SetLabel::new(A::FAMILY, *set);
                metrics.elements.get_or_create(&label).set(number(*count));
            }
        }
        let services = metrics.services.get_or_create(&A::FAMILY.into());
        services.set(number(applied.service_count()));
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

/// Returns a number of items as the value of a gauge.
fn number(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

/// Returns a number of items as the increment of a counter.
pub(super) fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

/// Returns the labels of the rejected parts of an object.
pub(super) fn rejected_parts(event: &Event) -> Vec<RejectionLabel> {
    let Event::Update(update) = event else {
        return Vec::new();
    };
    update
        .rejected
        .iter()
        .map(|rejected| RejectionLabel::new(update.key.kind, rejected))
        .collect()
}

/// Returns when the endpoints of a slice changed, if that was not before `started`.
fn trigger(update: &Update, started: i64) -> Option<(Family, i64)> {
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
    fn the_memory_of_pending_changes_is_bounded() {
        let (metrics, _) = Metrics::new();
        let mut sync_metrics = SyncMetrics::new(metrics, vec![Family::Ipv4]);
        sync_metrics.started = 0;
        let slice = "{metadata: {namespace: shop, name: a, \
                     labels: {kubernetes.io/service-name: cart}, annotations: \
                     {endpoints.kubernetes.io/last-change-trigger-time: '2026-01-01T00:00:00Z'}}, \
                     addressType: IPv4}";
        let update = parse::slice(&yaml_serde::from_str(slice).unwrap(), "n1");
        let event = Event::Update(update);
        sync_metrics.count_event(&event);
        assert_eq!(sync_metrics.triggers.len(), 1);
        for _ in 0..MAX_TRIGGERS + 10 {
            sync_metrics.count_event(&event);
        }
        assert_eq!(sync_metrics.triggers.len(), MAX_TRIGGERS);
    }
}
