//! Nodes without a kernel: they watch, and program nothing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use kube_dnat::planner::desired::NodeFacts;
use kube_dnat::planner::model::{Event, Events, Object, ObjectKind, SliceEndpoints};
use kube_dnat::sync::State;
use kube_dnat::watch::apiserver::{client, watch};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, channel};

use super::format::Format;
use super::worker;

/// The number of kinds that an API server lists.
const KINDS: usize = 4;

/// What the nodes of this process have seen.
struct Seen {
    /// The number of nodes that have listed all kinds.
    listed: AtomicU32,
    /// The highest endpoint of the slice that changes, by node.
    highest: Vec<AtomicU32>,
}

/// Runs nodes of this process, and answers how many have seen an endpoint.
///
/// The arguments are the kubeconfig, the format, the number of nodes and the slice that changes.
pub(in super::super) fn nodes(arguments: &[String]) {
    let [kubeconfig, format, count, slice] = arguments else {
        panic!("KUBECONFIG FORMAT NODES SLICE")
    };
    let format: Format = format.parse().expect("a format");
    let count: usize = count.parse().expect("a number");
    let seen = Arc::new(Seen {
        listed: AtomicU32::new(0),
        highest: (0..count).map(|_| AtomicU32::new(0)).collect(),
    });
    let (watching, kubeconfig, slice) = (Arc::clone(&seen), kubeconfig.clone(), slice.clone());
    thread::spawn(move || {
        runtime().block_on(async {
            let nodes = (0..count)
                .map(|number| node(kubeconfig.as_ref(), format, &slice, &watching, number));
            futures::future::join_all(nodes).await;
        });
    });
    worker::answer(|command| {
        let number = match command.parse::<Ipv4Addr>() {
            Ok(address) => {
                let is_seen = |highest: &&AtomicU32| highest.load(Relaxed) == address.to_bits();
                seen.highest.iter().filter(is_seen).count()
            }
            // "listed"
            Err(_) => seen.listed.load(Relaxed) as usize,
        };
        number.to_string()
    });
}

async fn node(kubeconfig: &Path, format: Format, slice: &str, seen: &Seen, number: usize) {
    let mut events = watched(kubeconfig, format).await;
    let mut listed = BTreeSet::new();
    let highest = seen.highest.get(number).expect("a place for each node");
    while let Some(events) = events.recv().await {
        for event in events {
            match event {
                Event::Listed(kind) => {
                    let is_new = listed.insert(kind);
                    if is_new && listed.len() == KINDS {
                        seen.listed.fetch_add(1, Relaxed);
                    }
                }
                Event::Update(update) if *update.key.name == *slice => {
                    if let Some(address) = update.object.as_ref().and_then(highest_endpoint) {
                        highest.store(address.to_bits(), Relaxed);
                    }
                }
                Event::Update(_)
                | Event::Interrupted(..)
                | Event::NodeMissing(_)
                | Event::OwnAddresses(_) => {}
            }
        }
    }
}

fn highest_endpoint(object: &Object) -> Option<Ipv4Addr> {
    let Object::Slices(slices) = object else {
        return None;
    };
    let SliceEndpoints::Ipv4(endpoints) = &slices.first()?.addresses else {
        return None;
    };
    endpoints.iter().map(|endpoint| endpoint.address).max()
}

/// Lists everything once, as other nodes of a cluster have. The tests' API server encodes an object
/// when it first sends it.
pub(in super::super) fn list_once(kubeconfig: &Path) {
    runtime().block_on(async {
        let mut events = watched(kubeconfig, Format::Protobuf).await;
        let mut listed = BTreeSet::new();
        while listed.len() < KINDS {
            let events = events.recv().await.expect("the watch continues");
            listed.extend(events.into_iter().filter_map(|event| match event {
                Event::Listed(kind) => Some(kind),
                Event::Update(_)
                | Event::Interrupted(..)
                | Event::NodeMissing(_)
                | Event::OwnAddresses(_) => None,
            }));
        }
    });
}

/// Watches until all kinds are listed and planned, and prints the milliseconds of CPU time.
///
/// The arguments are the kubeconfig and the format.
pub(in super::super) fn apply(arguments: &[String]) {
    let [kubeconfig, format] = arguments else {
        panic!("KUBECONFIG FORMAT")
    };
    let format: Format = format.parse().expect("a format");
    runtime().block_on(async {
        let before = cpu();
        let mut events = watched(kubeconfig.as_ref(), format).await;
        let mut state = State::new(NodeFacts::default());
        let _ = state.apply(Event::Listed(ObjectKind::Endpoints));
        while !state.is_complete() {
            for event in events.recv().await.expect("the watch continues") {
                let diagnostics = state.apply(event);
                assert_eq!(diagnostics, [], "a cluster without faults");
            }
        }
        let received = cpu();
        let (_, effects) = state.plan_changes().split();
        let _ = state.committed(effects);
        println!("{} {}", received - before, cpu() - received);
    });
}

/// Returns the CPU time of this process in milliseconds.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the usage of this process");
    let milliseconds = |time: TimeVal| {
        let [seconds, micros] = [time.tv_sec(), time.tv_usec()].map(|it| it.to_string());
        let number = |text: String| text.parse::<f64>().expect("a number");
        number(seconds) * 1e3 + number(micros) / 1e3
    };
    milliseconds(usage.user_time()) + milliseconds(usage.system_time())
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Starts the watch of a node with a client of its own.
async fn watched(kubeconfig: &Path, format: Format) -> Receiver<Events> {
    let client = client(&format.settings(kubeconfig)).await;
    let client = client.expect("a client");
    let (sender, events) = channel(16);
    tokio::spawn(watch(client, "node-1".into(), sender));
    events
}
