//! The kernel's tables after our transactions equal the applied state, and nft lists the same.

mod adopt;
mod commit;
mod conntrack;
mod golden;
mod read_back;
mod rejections;
mod scale;
mod world;

use libtest_mimic::Trial;

/// Returns the tests of this folder.
pub(crate) fn tests() -> Vec<Trial> {
    [
        adopt::tests(),
        commit::tests(),
        conntrack::tests(),
        golden::tests(),
        read_back::tests(),
        rejections::tests(),
        scale::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
