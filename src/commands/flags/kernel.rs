//! Flags of kernel settings.

use clap::Args;

use super::set;
use super::value::{SWITCH, switch};
use crate::config::{GoDuration, KubeProxyConfiguration};

/// Connection tracking, and memory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub(in crate::commands) struct KernelFlags {
    /// Connection-tracking entries for each CPU; 0 leaves the kernel's limit [default: 32768].
    #[arg(long, value_name = "N")]
    conntrack_max_per_core: Option<i32>,

    /// Connection-tracking entries at least [default: 131072].
    #[arg(long, value_name = "N")]
    conntrack_min: Option<i32>,

    /// How long idle TCP connections are tracked; 0 leaves the kernel's [default: 24h].
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_established: Option<GoDuration>,

    /// The same of those that one side has closed [default: 1h].
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_close_wait: Option<GoDuration>,

    /// Let TCP segments outside the window pass as tracked.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    conntrack_tcp_be_liberal: Option<bool>,

    /// How long UDP without an answer is tracked; 0 leaves the kernel's [default: 0].
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout: Option<GoDuration>,

    /// The same of UDP with answers [default: 0].
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout_stream: Option<GoDuration>,

    /// How unwilling the kernel is to end this process for want of memory, -1000 to 1000
    /// [default: -999].
    #[arg(long, value_name = "N")]
    oom_score_adj: Option<i32>,
}

impl KernelFlags {
    /// Moves what was given into `to`.
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
