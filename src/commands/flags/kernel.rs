//! The flags for kernel settings.

use clap::Args;

use super::set;
use super::syntax::{SWITCH, switch};
use crate::config::KubeProxyConfiguration;
use crate::duration::GoDuration;

/// The flags for connection tracking and for the OOM killer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub(in crate::commands) struct KernelFlags {
    /// Maximum number of conntrack entries per CPU core; 0 keeps the kernel's limit
    /// [default: 32768].
    #[arg(long, value_name = "N")]
    conntrack_max_per_core: Option<i32>,

    /// Minimum number of conntrack entries, regardless of --conntrack-max-per-core
    /// [default: 131072].
    #[arg(long, value_name = "N")]
    conntrack_min: Option<i32>,

    /// Timeout of idle established TCP connections; 0 keeps the kernel's timeout [default: 24h].
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_established: Option<GoDuration>,

    /// Timeout of TCP connections in state CLOSE-WAIT; 0 keeps the kernel's timeout [default: 1h].
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_close_wait: Option<GoDuration>,

    /// Do not treat TCP segments outside the window as invalid.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    conntrack_tcp_be_liberal: Option<bool>,

    /// Timeout of UDP flows without replies; 0 keeps the kernel's timeout [default: 0].
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout: Option<GoDuration>,

    /// Timeout of UDP flows with replies; 0 keeps the kernel's timeout [default: 0].
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout_stream: Option<GoDuration>,

    /// OOM score adjustment of this process, -1000 to 1000; the kernel kills processes with a lower
    /// score later [default: -999].
    #[arg(long, value_name = "N")]
    oom_score_adj: Option<i32>,
}

impl KernelFlags {
    /// Moves the given flags into `to`.
    pub(in crate::commands) fn apply(self, to: &mut KubeProxyConfiguration) {
        let Self {
            conntrack_max_per_core,
            conntrack_min,
            conntrack_tcp_timeout_established,
            conntrack_tcp_timeout_close_wait,
            conntrack_tcp_be_liberal,
            conntrack_udp_timeout,
            conntrack_udp_timeout_stream,
            oom_score_adj,
        } = self;
        let conntrack = &mut to.conntrack;
        let some = |value: Option<GoDuration>| value.map(Some);
        set(
            conntrack_max_per_core.map(Some),
            &mut conntrack.max_per_core,
        );
        set(conntrack_min.map(Some), &mut conntrack.min);
        set(
            some(conntrack_tcp_timeout_established),
            &mut conntrack.tcp_established_timeout,
        );
        set(
            some(conntrack_tcp_timeout_close_wait),
            &mut conntrack.tcp_close_wait_timeout,
        );
        set(conntrack_tcp_be_liberal, &mut conntrack.tcp_be_liberal);
        set(conntrack_udp_timeout, &mut conntrack.udp_timeout);
        set(
            conntrack_udp_timeout_stream,
            &mut conntrack.udp_stream_timeout,
        );
        set(oom_score_adj.map(Some), &mut to.oom_score_adj);
    }
}
