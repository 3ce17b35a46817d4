//! The events of the log: a stable name for each line that operators, alerts and tests rely on.
//!
//! The text of a line may change; its field `event` stays. docs/operations.md lists every event.

use std::fmt;

/// Declares the events, each with its name in the log.
macro_rules! log_events {
    ($($(#[$doc:meta])* $event:ident = $name:literal,)*) => {
        /// The kind of a log line, logged as its field `event`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum LogEvent {
            $($(#[$doc])* $event,)*
        }

        impl LogEvent {
            /// All events, in the order of docs/operations.md.
            pub const ALL: &[Self] = &[$(Self::$event,)*];

            /// The name of the event in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$event => $name,)*
                }
            }
        }
    };
}

log_events! {
    /// The daemon is starting.
    DaemonStarting = "daemon_starting",
    /// The mode `ClusterCIDR` has no `clusterCIDR`.
    ClusterCidrMissing = "cluster_cidr_missing",
    /// The daemon received a signal and stops.
    SignalReceived = "signal_received",
    /// The daemon stopped; the rules stay.
    DaemonStopped = "daemon_stopped",
    /// The verbosity of the log changed.
    LogVerbosityChanged = "log_verbosity_changed",
    /// The service manager, systemd, cannot be notified.
    NotifyFailed = "notify_failed",
    /// The configuration was written to a file, as requested.
    ConfigWritten = "config_written",
    /// The configuration file has unknown or duplicate fields.
    ConfigFieldsIgnored = "config_fields_ignored",
    /// The configuration file overrides flags.
    ConfigFlagsIgnored = "config_flags_ignored",
    /// The configured proxy mode is not nftables.
    ProxyModeIgnored = "proxy_mode_ignored",
    /// The configuration has settings that kube-dnat accepts and ignores.
    SettingsWithoutEffect = "settings_without_effect",
    /// The configuration file cannot be read while the daemon is running.
    ConfigFileUnreadable = "config_file_unreadable",
    /// `--init-only` applied the kernel settings.
    KernelSettingsApplied = "kernel_settings_applied",
    /// A kernel setting changed.
    KernelSettingChanged = "kernel_setting_changed",
    /// A kernel setting cannot be changed.
    KernelSettingNotChanged = "kernel_setting_not_changed",
    /// The addresses of the node cannot be watched.
    NodeAddressesWatchFailed = "node_addresses_watch_failed",
    /// kube-dnat connected to an API server.
    ApiServerConnected = "api_server_connected",
    /// An API server cannot be reached, and others are tried.
    ApiServerUnreachable = "api_server_unreachable",
    /// The file with the API servers changed.
    ApiServersChanged = "api_servers_changed",
    /// The file with the API servers cannot be used.
    ApiServersFileInvalid = "api_servers_file_invalid",
    /// The files of the client certificate changed.
    ClientCertificateRenewed = "client_certificate_renewed",
    /// The changed files of the client certificate cannot be used.
    ClientCertificateInvalid = "client_certificate_invalid",
    /// The API server has lost its newer versions.
    ApiServerWentBack = "api_server_went_back",
    /// The API server cannot answer in protobuf.
    JsonOnly = "json_only",
    /// A watch or a list failed.
    WatchFailed = "watch_failed",
    /// The API server rejects a watch for want of credentials or rights.
    WatchForbidden = "watch_forbidden",
    /// The API server answers again after failures.
    WatchRecovered = "watch_recovered",
    /// The API server does not serve an optional kind of object.
    KindUnavailable = "kind_unavailable",
    /// A manifest cannot be read or parsed.
    ManifestUnreadable = "manifest_unreadable",
    /// A manifest or directory that could not be read or parsed can be read again.
    ManifestReadable = "manifest_readable",
    /// A manifest has objects of kinds that kube-dnat does not read.
    ManifestObjectsIgnored = "manifest_objects_ignored",
    /// The directory of manifests does not exist any more.
    ManifestsDirectoryMissing = "manifests_directory_missing",
    /// The directory of manifests exists again.
    ManifestsDirectoryRestored = "manifests_directory_restored",
    /// Changes of manifests may go unnoticed.
    ManifestsWatchFailed = "manifests_watch_failed",
    /// The thread that follows the manifests panicked.
    ManifestsThreadPanicked = "manifests_thread_panicked",
    /// The kernel was probed for table ownership.
    TableOwnershipProbed = "table_ownership_probed",
    /// A table of an earlier process is in use again.
    TableAdopted = "table_adopted",
    /// A table was read back after a failure or after drift.
    TableRead = "table_read",
    /// Large sets are or were dumped, for elements that no Service needs.
    TablesAudited = "tables_audited",
    /// A table of another version is replaced.
    TableReplaced = "table_replaced",
    /// The first sync of the process is committed.
    FirstSyncCommitted = "first_sync_committed",
    /// A sync is committed.
    SyncCommitted = "sync_committed",
    /// A sync failed; a retry follows.
    SyncFailed = "sync_failed",
    /// A sync succeeded after failures.
    SyncRecovered = "sync_recovered",
    /// The kernel rejected a transaction.
    TransactionRejected = "transaction_rejected",
    /// Tables that cannot be repaired are recreated.
    TablesRecreated = "tables_recreated",
    /// A Service is skipped because the kernel rejects its elements.
    ServiceSkipped = "service_skipped",
    /// A Service that was skipped is programmed.
    ServiceProgrammed = "service_programmed",
    /// A part of an object is rejected and the rest is programmed.
    ObjectPartlyProgrammed = "object_partly_programmed",
    /// No Node object has the name of this node.
    NodeUnknown = "node_unknown",
    /// Another process changed the tables; they are repaired.
    DriftRepaired = "drift_repaired",
    /// Another process wrote to the tables and changed nothing.
    DriftNotFound = "drift_not_found",
    /// Changes by other processes go unnoticed.
    DriftUnobserved = "drift_unobserved",
    /// An affinity map is full.
    AffinityMapFull = "affinity_map_full",
    /// The counter of full affinity maps cannot be read.
    AffinityMapUnreadable = "affinity_map_unreadable",
    /// Elements of clients that are pinned to endpoints that are gone are being deleted.
    AffinityCleanup = "affinity_cleanup",
    /// Elements of pinned clients cannot be found or deleted.
    AffinityCleanupFailed = "affinity_cleanup_failed",
    /// Stale conntrack entries are deleted.
    ConntrackCleaned = "conntrack_cleaned",
    /// Stale conntrack entries cannot be deleted.
    ConntrackCleanupFailed = "conntrack_cleanup_failed",
    /// Unused chains cannot be deleted.
    ChainCleanupFailed = "chain_cleanup_failed",
    /// Health or metrics are served after failures.
    ServerListening = "server_listening",
    /// The address for health or metrics is in use.
    ServerListenFailed = "server_listen_failed",
    /// The health check of a Service is served after failures.
    HealthCheckListening = "health_check_listening",
    /// The health-check node port of a Service is in use.
    HealthCheckListenFailed = "health_check_listen_failed",
    /// A node port is served at localhost after failures.
    LocalhostPortListening = "localhost_port_listening",
    /// A node port is in use at localhost.
    LocalhostPortListenFailed = "localhost_port_listen_failed",
    /// A socket for a client at localhost cannot be opened.
    LocalhostSocketFailed = "localhost_socket_failed",
    /// `kube-dnat drain` drained this node.
    NodeDrained = "node_drained",
    /// `kube-dnat undrain` ended that.
    NodeUndrained = "node_undrained",
    /// The control socket, which `drain` needs, is served after failures.
    ControlListening = "control_listening",
    /// The control socket is in use.
    ControlListenFailed = "control_listen_failed",
    /// Kubernetes Events are dropped because there are too many.
    EventsDropped = "events_dropped",
    /// The API server rejects a Kubernetes Event.
    EventRejected = "event_rejected",
    /// The API server forbids writing Kubernetes Events.
    EventsForbidden = "events_forbidden",
    /// A Kubernetes Event cannot be written; a retry follows.
    EventWriteFailed = "event_write_failed",
    /// Kubernetes Events are written again after failures.
    EventWritesRecovered = "event_writes_recovered",
    /// The takeover removed what kube-proxy left.
    KubeProxyRemoved = "kube_proxy_removed",
    /// The takeover found nothing of kube-proxy.
    KubeProxyNotFound = "kube_proxy_not_found",
    /// The takeover cannot remove all that kube-proxy left.
    TakeoverFailed = "takeover_failed",
    /// kube-proxy is running again, so the takeover ends.
    KubeProxyReturned = "kube_proxy_returned",
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
