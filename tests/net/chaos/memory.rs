//! A memory cgroup, which limits the memory of the daemon.

use std::fs;
use std::path::PathBuf;

/// A memory cgroup, of version 1 or 2.
pub(super) struct MemoryGroup {
    path: PathBuf,
    limit: &'static str,
}

impl MemoryGroup {
    /// Creates a group, where this process may.
    pub(super) fn create() -> Option<Self> {
        let name = format!("kube-dnat-chaos-{}", std::process::id());
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        places.into_iter().find_map(|(root, limit)| {
            let path = PathBuf::from(root).join(&name);
            fs::create_dir(&path).ok()?;
            let group = Self { path, limit };
            group.path.join(limit).exists().then_some(group)
        })
    }

    pub(super) fn add(&self, pid: u32) {
        // The daemon may have ended.
        let _gone = fs::write(self.path.join("cgroup.procs"), pid.to_string());
    }

    /// Limits the memory to so many bytes; `None`: not any more.
    pub(super) fn limit(&self, bytes: Option<u64>) {
        let unlimited = if self.limit == "memory.max" {
            "max"
        } else {
            "-1"
        };
        let text = bytes.map_or_else(|| unlimited.to_owned(), |bytes| bytes.to_string());
        // The kernel refuses a limit below what it cannot reclaim, and reclaims what it can first.
        let _refused = fs::write(self.path.join(self.limit), text);
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It is empty, since the daemon ended.
        let _left = fs::remove_dir(&self.path);
    }
}
