//! Any sequence of objects, each as JSON, YAML and protobuf, to the tables in memory.

#![no_main]

use kube_dnat_fuzz::{Cluster, facts, sync};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|cluster: Cluster| {
    sync(facts(), &cluster.events, cluster.every);
});
