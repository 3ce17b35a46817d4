//! The version and the revision that this binary was built from.

use std::sync::LazyLock;

/// The revision of the source in git, which `scripts/package.sh` and the Dockerfile pass to the
/// compiler, or `unknown`.
pub const REVISION: &str = match option_env!("KUBE_DNAT_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// The version, without the revision.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Formats the version as `--version` prints it: with the revision, if it is known.
#[must_use]
pub fn long_version() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (revision {REVISION})"));
    match REVISION {
        "unknown" => VERSION,
        _ => &LONG,
    }
}
