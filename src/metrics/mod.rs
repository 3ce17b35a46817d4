//! What is counted, under kube-proxy's names where it counts the same
//! (`pkg/proxy/metrics/metrics.go`), else under `kube_dnat_`. docs/metrics.md lists it.

mod labels;
mod process;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Labelled;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::planner::model::addr::Family;
pub use labels::{
    CodeLabel, FamilyLabel, KindLabel, OutcomeLabel, PolicyLabel, ReasonLabel, RejectionLabel,
    SetLabel,
};

/// A number with a fraction.
pub type Seconds = Gauge<f64, AtomicU64>;

/// Histograms by family.
pub type Durations = Labelled<FamilyLabel, Histogram, fn() -> Histogram>;

/// Declares what is counted: a field, its type, the name and help of the metric, and its first value.
macro_rules! metrics {
    ($($field:ident: $Type:ty = $name:literal, $help:literal, $new:expr;)*) => {
        /// Everything that is counted; clones count together.
        #[derive(Clone)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $Type,)*
        }

        impl Metrics {
            /// The names and helps of all that is registered, but for the process and the build.
            pub const LISTED: &[(&str, &str)] = &[$(($name, $help),)*];

            /// Nothing counted yet, registered.
            #[must_use]
            pub fn new() -> (Self, Exposition) {
                let mut registry = Registry::default();
                let version = vec![("version", env!("CARGO_PKG_VERSION"))];
                registry.register("kube_dnat_build", "What was built", Info::new(version));
                $(
                    let $field: $Type = $new;
                    registry.register($name, $help, $field.clone());
                )*
                registry.register_collector(Box::new(process::ProcessCollector));
                (Self { $($field,)* }, Exposition(registry))
            }
        }
    };
}

// The library adds `_total` to the name of a counter.
metrics! {
    syncs: Durations = "kubeproxy_sync_proxy_rules_duration_seconds",
        "Time of a sync: planned, committed, taken in; of failed ones too", durations(sync_durations);
    full_syncs: Durations = "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "Time of a sync of everything", durations(sync_durations);
    partial_syncs: Durations = "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        "Time of a sync of what changed", durations(sync_durations);
    programming: Durations = "kubeproxy_network_programming_duration_seconds",
        "Time from the change of a Pod or Service until the kernel has it", durations(programming_durations);
    last_sync: Labelled<FamilyLabel, Seconds> = "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "When the last sync was committed, in seconds since 1970", Labelled::default();
    last_queued: Labelled<FamilyLabel, Seconds> = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "When something was last reported that wants a sync, in seconds since 1970", Labelled::default();
    endpoint_changes_pending: Gauge = "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        "Changes of EndpointSlices that wait for a sync", Gauge::default();
    endpoint_changes: Counter = "kubeproxy_sync_proxy_rules_endpoint_changes",
        "Changes of EndpointSlices", Counter::default();
    service_changes_pending: Gauge = "kubeproxy_sync_proxy_rules_service_changes_pending",
        "Changes of Services that wait for a sync", Gauge::default();
    service_changes: Counter = "kubeproxy_sync_proxy_rules_service_changes",
        "Changes of Services", Counter::default();
    no_local_endpoints: Labelled<PolicyLabel, Gauge> = "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "Ports of Services with policy Local that have endpoints on other nodes only", Labelled::default();
    sync_failures: Labelled<FamilyLabel, Counter> = "kubeproxy_sync_proxy_rules_nftables_sync_failures",
        "Syncs that failed", Labelled::default();
    cleanup_failures: Labelled<FamilyLabel, Counter> = "kubeproxy_sync_proxy_rules_nftables_cleanup_failures",
        "Deletions of unused chains that failed", Labelled::default();
    conntrack: Durations = "kubeproxy_conntrack_reconciler_sync_duration_seconds",
        "Time of a look through connection tracking", durations(sync_durations);
    conntrack_deleted: Labelled<FamilyLabel, Counter> = "kubeproxy_conntrack_reconciler_deleted_entries",
        "Entries deleted from connection tracking", Labelled::default();
    healthz: Labelled<CodeLabel, Counter> = "kubeproxy_proxy_healthz",
        "Answers of /healthz", Labelled::default();
    livez: Labelled<CodeLabel, Counter> = "kubeproxy_proxy_livez",
        "Answers of /livez", Labelled::default();
    elements: Labelled<SetLabel, Gauge> = "kube_dnat_elements",
        "Elements of each set and map", Labelled::default();
    services: Labelled<FamilyLabel, Gauge> = "kube_dnat_services",
        "Services with elements", Labelled::default();
    transactions: Labelled<OutcomeLabel, Counter> = "kube_dnat_transactions",
        "Transactions by what became of them", Labelled::default();
    transaction_durations: Histogram = "kube_dnat_transaction_duration_seconds",
        "Time to encode a transaction and have it committed",
        Histogram::new(exponential_buckets(0.000_01, 4.0, 10));
    operations: Counter = "kube_dnat_operations",
        "Operations of committed transactions", Counter::default();
    bytes: Counter = "kube_dnat_netlink_sent_bytes",
        "Bytes of transactions", Counter::default();
    refused: Counter = "kube_dnat_refused_operations",
        "Messages that the kernel refused", Counter::default();
    rejected: Labelled<RejectionLabel, Counter> = "kube_dnat_rejected",
        "Parts of objects that make no sense and are left out", Labelled::default();
    not_served: Counter = "kube_dnat_not_served",
        "Parts of valid Services that were found not to be served", Counter::default();
    objects_not_served: Labelled<ReasonLabel, Gauge> = "kube_dnat_objects_not_served",
        "Objects that are not served, or not as asked, by the reason that Events have", Labelled::default();
    repairs: Counter = "kube_dnat_drift_repairs",
        "Repairs of what other processes did to the tables", Counter::default();
    interruptions: Labelled<KindLabel, Counter> = "kube_dnat_watch_restarts",
        "Watches that failed and began anew", Labelled::default();
    events_dropped: Counter = "kube_dnat_events_dropped",
        "Events for users that were not written: too many, or not taken by the API server", Counter::default();
}

fn sync_durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// kube-proxy's: up to a minute by seconds, then coarser, up to five.
fn programming_durations() -> Histogram {
    let first = [0.25, 0.5].into_iter();
    let seconds = (1..60).map(f64::from);
    let by_five = (60..120).step_by(5).map(f64::from);
    let by_thirty = (120..=300).step_by(30).map(f64::from);
    Histogram::new(first.chain(seconds).chain(by_five).chain(by_thirty))
}

fn durations(make: fn() -> Histogram) -> Durations {
    Durations::new_with_constructor(make)
}

impl Metrics {
    /// Shows these families with zeros from the start, as kube-proxy does.
    pub fn begin(&self, families: &[Family]) {
        for family in families.iter().copied().map(FamilyLabel::from) {
            drop(self.last_sync.get_or_create(&family));
            drop(self.last_queued.get_or_create(&family));
            drop(self.sync_failures.get_or_create(&family));
            drop(self.cleanup_failures.get_or_create(&family));
            drop(self.conntrack_deleted.get_or_create(&family));
            drop(self.services.get_or_create(&family));
        }
    }
}

/// Seconds since 1970.
#[must_use]
pub fn seconds_of(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.as_ref().map_or(0.0, Duration::as_secs_f64)
}

/// What a scrape gets.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// Shows this, too.
    pub fn add(&mut self, collector: impl Collector) {
        self.0.register_collector(Box::new(collector));
    }

    /// The text of `OpenMetrics` 1.0.
    ///
    /// # Errors
    /// Never: a `String` takes everything.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}
