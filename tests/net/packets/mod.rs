//! What packets do once kube-dnat has programmed the node: one file per behaviour.

use libtest_mimic::Trial;

/// The tests of this folder.
pub(crate) fn tests() -> Vec<Trial> {
    Vec::new()
}
