//! The Prometheus metrics of the daemon.
//!
//! A metric with the meaning of one of kube-proxy's has its name (`pkg/proxy/metrics/metrics.go`).
//! The others begin with `kube_dnat_`. docs/metrics.md lists all of them.

mod format;
mod labels;
mod process;

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

use crate::planner::model::Protocol;
use crate::planner::model::addr::Family;
use crate::revision;
pub use format::TextFormat;
pub use labels::{
    CodeLabel, FamilyLabel, InterruptLabel, OutcomeLabel, PolicyLabel, ProtocolLabel, ReasonLabel,
    RefusalLabel, RejectionLabel, SetLabel,
};
pub use process::ProcessUsage;

/// A gauge of seconds, with fractions.
pub type Seconds = Gauge<f64, AtomicU64>;

/// Histograms of durations by IP family.
pub type Durations = Labelled<FamilyLabel, Histogram, fn() -> Histogram>;

/// Declares the metrics: field, type, name and help of each, and its initial value.
macro_rules! metrics {
    ($($field:ident: $Type:ty = $name:literal, $help:literal, $new:expr;)*) => {
        /// The metrics of the daemon. Clones share their values.
        #[derive(Clone)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $Type,)*
        }

        impl Metrics {
            /// The names and help texts of all metrics except those of the process and of the
            /// build.
            pub const LISTED: &[(&str, &str)] = &[$(($name, $help),)*];

            /// Creates the metrics and registers them.
            #[must_use]
            pub fn new() -> (Self, Exposition) {
                let mut registry = Registry::default();
                let version = vec![("version", revision::VERSION), ("revision", revision::REVISION)];
                registry.register("kube_dnat_build", "Version and revision of kube-dnat; the value is always 1", Info::new(version));
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
        "Duration of a sync, whether it failed or not", durations(sync_durations);
    full_syncs: Durations = "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "Duration of a full sync", durations(sync_durations);
    partial_syncs: Durations = "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        "Duration of a partial sync, which programs only changes", durations(sync_durations);
    programming: Durations = "kubeproxy_network_programming_duration_seconds",
        "Time from the change of an endpoint until it is programmed", durations(programming_durations);
    last_sync: Labelled<FamilyLabel, Seconds> = "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "Unix time of the last committed sync", Labelled::default();
    last_queued: Labelled<FamilyLabel, Seconds> = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "Unix time of the last change that required a sync", Labelled::default();
    endpoint_changes_pending: Gauge = "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        "Pending changes of EndpointSlices", Gauge::default();
    endpoint_changes: Counter = "kubeproxy_sync_proxy_rules_endpoint_changes",
        "Changes of EndpointSlices", Counter::default();
    service_changes_pending: Gauge = "kubeproxy_sync_proxy_rules_service_changes_pending",
        "Pending changes of Services", Gauge::default();
    service_changes: Counter = "kubeproxy_sync_proxy_rules_service_changes",
        "Changes of Services", Counter::default();
    no_local_endpoints: Labelled<PolicyLabel, Gauge> = "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "Service ports with policy Local whose endpoints are all on other nodes", Labelled::default();
    sync_failures: Labelled<FamilyLabel, Counter> = "kubeproxy_sync_proxy_rules_nftables_sync_failures",
        "Failed syncs", Labelled::default();
    cleanup_failures: Labelled<FamilyLabel, Counter> = "kubeproxy_sync_proxy_rules_nftables_cleanup_failures",
        "Failed deletions of unused chains", Labelled::default();
    conntrack: Durations = "kubeproxy_conntrack_reconciler_sync_duration_seconds",
        "Duration of a conntrack cleanup", durations(sync_durations);
    conntrack_deleted: Labelled<FamilyLabel, Counter> = "kubeproxy_conntrack_reconciler_deleted_entries",
        "Deleted conntrack entries", Labelled::default();
    healthz: Labelled<CodeLabel, Counter> = "kubeproxy_proxy_healthz",
        "Responses of /healthz by status code", Labelled::default();
    livez: Labelled<CodeLabel, Counter> = "kubeproxy_proxy_livez",
        "Responses of /livez by status code", Labelled::default();
    localhost_listeners: Labelled<FamilyLabel, Gauge> = "kubeproxy_nftables_localhost_nodeport_listeners",
        "Node ports that are served at localhost", Labelled::default();
    localhost_failures: Labelled<FamilyLabel, Counter> = "kubeproxy_nftables_localhost_nodeport_listener_creation_failures",
        "Node ports that could not be bound at localhost", Labelled::default();
    elements: Labelled<SetLabel, Gauge> = "kube_dnat_elements",
        "Elements by set or map", Labelled::default();
    services: Labelled<FamilyLabel, Gauge> = "kube_dnat_services",
        "Services that have elements in the tables", Labelled::default();
    unread_services: Gauge = "kube_dnat_unread_services",
        "Services whose elements a read-back of the tables has not read yet", Gauge::default();
    conntrack_cleanup_pending: Gauge = "kube_dnat_conntrack_cleanup_pending",
        "Whether flows may continue to endpoints that are gone, since conntrack is not cleaned up yet",
        Gauge::default();
    transactions: Labelled<OutcomeLabel, Counter> = "kube_dnat_transactions",
        "Transactions by outcome: committed, rejected or failed", Labelled::default();
    transaction_durations: Histogram = "kube_dnat_transaction_duration_seconds",
        "Time to encode and commit a transaction",
        Histogram::new(exponential_buckets(0.000_01, 4.0, 10));
    operations: Counter = "kube_dnat_operations",
        "Operations in committed transactions", Counter::default();
    bytes: Counter = "kube_dnat_netlink_sent_bytes",
        "Bytes of transactions sent to the kernel", Counter::default();
    rejected_operations: Counter = "kube_dnat_rejected_operations",
        "Operations that the kernel rejected", Counter::default();
    rejected_object_parts: Labelled<RejectionLabel, Counter> = "kube_dnat_rejected_object_parts",
        "Invalid parts of objects that kube-dnat rejected", Labelled::default();
    skipped_service_parts: Counter = "kube_dnat_skipped_service_parts",
        "Parts of valid Services that were skipped", Counter::default();
    objects_not_served: Labelled<ReasonLabel, Gauge> = "kube_dnat_objects_not_served",
        "Objects that are skipped or only partly programmed, by the reason of their Events", Labelled::default();
    repairs: Counter = "kube_dnat_drift_repairs",
        "Repairs of the tables after changes by other processes", Counter::default();
    watch_restarts: Labelled<InterruptLabel, Counter> = "kube_dnat_watch_restarts",
        "Lists and watches that failed and were restarted", Labelled::default();
    localhost_active: Labelled<ProtocolLabel, Gauge> = "kube_dnat_localhost_connections_active",
        "Open connections and UDP flows to node ports at localhost", Labelled::default();
    localhost_connections: Labelled<ProtocolLabel, Counter> = "kube_dnat_localhost_connections",
        "Connections and UDP flows to node ports at localhost that an endpoint serves", Labelled::default();
    localhost_refused: Labelled<RefusalLabel, Counter> = "kube_dnat_localhost_connections_refused",
        "Connections to node ports at localhost that were reset, and UDP flows that were ended: above the limit, or without an endpoint that accepts",
        Labelled::default();
    localhost_socket_failures: Labelled<ProtocolLabel, Counter> = "kube_dnat_localhost_socket_failures",
        "Sockets for clients of node ports at localhost that could not be opened, for lack of file descriptors or memory", Labelled::default();
    node_drained: Gauge = "kube_dnat_node_drained",
        "Whether the node is drained: load-balancer health checks answer 503 while it serves", Gauge::default();
    events_dropped: Counter = "kube_dnat_events_dropped",
        "Events that were dropped: too many, or not accepted by the API server", Counter::default();
}

/// Creates a histogram of sync durations, with kube-proxy's buckets.
fn sync_durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// Creates a histogram of programming latency, with kube-proxy's buckets: every second up to one
/// minute, then coarser up to five minutes.
fn programming_durations() -> Histogram {
    let first = [0.25, 0.5].into_iter();
    let seconds = (1..60).map(f64::from);
    let by_five = (60..120).step_by(5).map(f64::from);
    let by_thirty = (120..=300).step_by(30).map(f64::from);
    Histogram::new(first.chain(seconds).chain(by_five).chain(by_thirty))
}

/// Creates histograms by IP family.
fn durations(make: fn() -> Histogram) -> Durations {
    Durations::new_with_constructor(make)
}

impl Metrics {
    /// Initializes the metrics of these families, and each counter with fixed labels, to zero, so
    /// that a query sees their first increase.
    pub fn init(&self, families: &[Family]) {
        for outcome in OutcomeLabel::ALL {
            drop(self.transactions.get_or_create(&outcome));
        }
        for code in [200, 503].map(CodeLabel::new) {
            drop(self.healthz.get_or_create(&code));
            drop(self.livez.get_or_create(&code));
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let label = ProtocolLabel::new(protocol);
            drop(self.localhost_active.get_or_create(&label));
            drop(self.localhost_connections.get_or_create(&label));
            drop(self.localhost_socket_failures.get_or_create(&label));
            for refusal in RefusalLabel::all(protocol) {
                drop(self.localhost_refused.get_or_create(&refusal));
            }
        }
        for rejection in RejectionLabel::all() {
            drop(self.rejected_object_parts.get_or_create(&rejection));
        }
        for family in families.iter().copied() {
            for policy in [PolicyLabel::internal(family), PolicyLabel::external(family)] {
                drop(self.no_local_endpoints.get_or_create(&policy));
            }
        }
        for family in families.iter().copied().map(FamilyLabel::from) {
            drop(self.last_sync.get_or_create(&family));
            drop(self.last_queued.get_or_create(&family));
            drop(self.sync_failures.get_or_create(&family));
            drop(self.cleanup_failures.get_or_create(&family));
            drop(self.conntrack_deleted.get_or_create(&family));
            drop(self.services.get_or_create(&family));
            drop(self.localhost_listeners.get_or_create(&family));
            drop(self.localhost_failures.get_or_create(&family));
            for durations in [
                &self.syncs,
                &self.full_syncs,
                &self.partial_syncs,
                &self.programming,
                &self.conntrack,
            ] {
                drop(durations.get_or_create(&family));
            }
        }
    }
}

/// Converts a time to Unix time in seconds.
#[must_use]
pub fn seconds_of(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.as_ref().map_or(0.0, Duration::as_secs_f64)
}

/// The response to a scrape.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// Adds a collector, which is read at each scrape.
    pub fn add(&mut self, collector: impl Collector) {
        self.0.register_collector(Box::new(collector));
    }

    /// Formats the metrics as text.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "encoding only fails if the writer fails, and a String does not"
    )]
    pub fn text(&self, format: TextFormat) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a String accepts any text");
        match format {
            TextFormat::OpenMetrics => text,
            TextFormat::Prometheus => format::to_prometheus(&text),
        }
    }
}
