//! The memory of a node's state in this process, without a kernel, by owner.
//!
//! Resident memory is measured after free memory was returned to the system, so that a figure
//! contains what the allocator keeps between the objects, and nothing that a sync freed again.

use std::net::Ipv4Addr;

use kube_dnat::netlink::release_free_memory;
use kube_dnat::planner::desired::{Claims, NodeFacts};
use kube_dnat::planner::model::{Event, ObjectKind, Service, ServiceName, Store, Update, parse};
use kube_dnat::sync::State;
use serde_json::Value;

use super::cluster::Cluster;
use super::objects;
use super::process::field;
use super::report::Report;

/// The node of the objects that the endpoints are compared with.
const NODE: &str = "node-1";

/// Measures each cluster.
pub(crate) fn measure(report: &mut Report, clusters: &[Cluster]) {
    for cluster in clusters.iter().copied() {
        let mut meter = Meter {
            report: &mut *report,
            cluster,
            before: 0.0,
        };
        meter.before = settled();
        let mut store = Store::default();
        for update in services(cluster) {
            let _ = store.apply(update);
        }
        meter.add("Services");
        for update in slices(cluster) {
            let _ = store.apply(update);
        }
        meter.add("EndpointSlices");
        let mut claims = Claims::<Ipv4Addr>::default();
        for number in 0..cluster.services {
            let name = ServiceName::new("default", &format!("service-{number}"));
            let service: Option<&Service> = store.service(&name).map(AsRef::as_ref);
            let _ = claims.update(None, service);
        }
        meter.add("holders of frontends");
        drop((store, claims));
        meter.before = settled();

        let mut state = State::new(NodeFacts::default());
        for update in services(cluster).chain(slices(cluster)) {
            let _ = state.apply(Event::Update(update));
        }
        for kind in ObjectKind::ALL {
            let _ = state.apply(Event::Listed(kind));
        }
        meter.add("objects, holders and pending changes");
        let (transactions, effects) = state.plan_everything().split();
        meter.add_at("plan of everything, at its peak", highest());
        drop(transactions);
        let _ = state.committed(effects);
        drop(state.take_dirty_frontends());
        meter.add("applied state, without pending changes");
    }
}

/// The measurements of one cluster.
struct Meter<'a> {
    report: &'a mut Report,
    cluster: Cluster,
    /// The memory before the current owner.
    before: f64,
}

impl Meter<'_> {
    /// Reports what was allocated since the last owner.
    fn add(&mut self, owner: &str) {
        let now = settled();
        let before = std::mem::replace(&mut self.before, now);
        self.report_mb(owner, now - before);
    }

    /// Reports memory that is not kept.
    fn add_at(&mut self, what: &str, peak: f64) {
        self.report_mb(what, peak - self.before);
    }

    fn report_mb(&mut self, owner: &str, resident: f64) {
        let each = resident * 1e6 / f64::from(self.cluster.services);
        let values = [("resident_mb", resident), ("bytes_each_service", each)];
        self.report.add("memory", self.cluster, owner, values);
    }
}

/// Returns the Services of a cluster as the daemon reads them.
fn services(cluster: Cluster) -> impl Iterator<Item = Update> {
    objects::services(cluster).map(|service| parse::service(&decoded(service)))
}

/// Returns the slices of a cluster as the daemon reads them.
fn slices(cluster: Cluster) -> impl Iterator<Item = Update> {
    objects::slices(cluster).map(|slice| parse::slice(&decoded(slice), NODE))
}

fn decoded<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

/// Returns the resident memory in MB, once free memory is returned to the system.
fn settled() -> f64 {
    release_free_memory();
    field(&status(), "VmRSS:") / 1e3
}

/// Returns the highest resident memory so far in MB.
fn highest() -> f64 {
    field(&status(), "VmHWM:") / 1e3
}

fn status() -> String {
    std::fs::read_to_string("/proc/self/status").expect("/proc")
}
