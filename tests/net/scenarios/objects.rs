//! The objects of a step in the directory of manifests, and their random order.

use std::collections::BTreeSet;
use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::thread;
use std::time::Duration;

use super::read::Step;
use crate::lab::Manifests;

/// The pause between two writes. It is longer than the time for which kube-dnat collects changes
/// of files, so each write is a change of its own.
pub(super) const APART: Duration = Duration::from_millis(15);

/// Replaces the objects in the directory with those of this step, each in a file of its own.
pub(super) fn write(
    manifests: &Manifests,
    step: &Step,
    written: &mut BTreeSet<String>,
    order: impl FnOnce(Vec<(String, &str)>) -> Vec<(String, &str)>,
    apart: Duration,
) {
    let objects = step
        .objects
        .iter()
        .map(|object| (file(object), object.as_str()));
    let objects: Vec<_> = objects.collect();
    let wanted: BTreeSet<_> = objects.iter().map(|(file, _)| file.clone()).collect();
    assert_eq!(
        wanted.len(),
        objects.len(),
        "two objects have one name: {wanted:?}"
    );
    for (file, object) in order(objects) {
        manifests.write(&file, object);
        thread::sleep(apart);
    }
    for gone in written.difference(&wanted) {
        manifests.remove(gone);
        thread::sleep(apart);
    }
    *written = wanted;
}

/// Returns the file name of an object. A Node or `ServiceCIDR` of the scenario replaces the
/// default one.
fn file(object: &str) -> String {
    let field = |name: &str| {
        let mut words = object
            .lines()
            .filter_map(|line| line.trim().strip_prefix(name));
        words.next().map(|value| value.trim().to_owned())
    };
    let kind = field("kind:").expect("an object has a kind");
    match kind.as_str() {
        "Node" => "node.yaml".to_owned(),
        "ServiceCIDR" => "service-cidr.yaml".to_owned(),
        _ => {
            let name = field("name:").expect("an object has a name");
            format!("{}-{name}.yaml", kind.to_lowercase())
        }
    }
}

/// A random order that the seed repeats.
pub(super) struct Order {
    pub(super) seed: u64,
    state: u64,
}

impl Order {
    pub(super) fn new() -> Self {
        let seed = match env::var("SCENARIO_SEED") {
            Ok(seed) => seed.parse().expect("SCENARIO_SEED is a number"),
            Err(_) => RandomState::new().build_hasher().finish() | 1,
        };
        Self { seed, state: seed }
    }

    /// Shuffles items with the algorithm of Fisher and Yates and Marsaglia's xorshift64.
    pub(super) fn shuffle<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for last in (1..items.len()).rev() {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let bound = u64::try_from(last).expect("a length") + 1;
            let other = usize::try_from(self.state % bound).expect("below a length");
            items.swap(last, other);
        }
        items
    }
}
