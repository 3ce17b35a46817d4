//! What the kernel holds after our transactions: against the picture, and against nft's reading.

mod adopt;
mod commit;
mod conntrack;
mod golden;
mod refuse;
mod scale;
mod world;

use libtest_mimic::Trial;

/// The tests of this folder.
pub(crate) fn tests() -> Vec<Trial> {
    [
        adopt::tests(),
        commit::tests(),
        conntrack::tests(),
        golden::tests(),
        refuse::tests(),
        scale::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
