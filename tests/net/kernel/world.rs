//! A node's state, its kernel, and the syncs between them, without the daemon.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kube_dnat::netlink::{Commit, Error, FamilyCommit, Kernel};
use kube_dnat::per_family;
use kube_dnat::planner::desired::{NodeFacts, PodSource};
use kube_dnat::planner::diff::Plan;
use kube_dnat::planner::diff::TableStatus;
use kube_dnat::planner::dual::Dual;
use kube_dnat::planner::model::{Address, OwnAddresses};
use kube_dnat::planner::ruleset::{PodMatch, Program, Table, Value};
use kube_dnat::sync::{State, StepStatus, SyncPlan, read_next};
use kube_dnat::watch::manifests;
use serde_json::Value as Json;

use crate::lab::Namespace;

/// The program of every test in this folder.
pub(super) const PROGRAM: Program = Program {
    pods: PodMatch::Cidrs,
    masquerade_all: false,
    refuse_load_balancer_ports: false,
    counters: true,
};

/// A network namespace, its kernel, and the state of its node.
pub(super) struct World {
    pub(super) namespace: Namespace,
    pub(super) kernel: Kernel,
    pub(super) state: State,
}

impl World {
    pub(super) fn new() -> Self {
        let namespace = Namespace::new("kernel");
        let kernel = namespace.run(|| Kernel::open().expect("nf_tables"));
        Self {
            namespace,
            kernel,
            state: Self::node(),
        }
    }

    /// Returns the state of a node without objects.
    fn node() -> State {
        let cidrs = ["10.244.0.0/16", "fd00:10:244::/56"];
        let cidrs = cidrs.map(|cidr| cidr.parse().expect("a CIDR"));
        State::new(NodeFacts {
            pods: PodSource::ClusterCidr(cidrs.into()),
            own_addresses: Some(OwnAddresses {
                of_default_route: vec![IpAddr::from([192, 168, 77, 2])],
                ..OwnAddresses::default()
            }),
            ..NodeFacts::default()
        })
    }

    /// Applies every object of a YAML text to the state.
    pub(super) fn apply_yaml(&mut self, yaml: &str) {
        let listing = manifests::read_text(yaml, "node-1").expect("YAML");
        for event in listing.events {
            let diagnostics = self.state.apply(event);
            assert_eq!(diagnostics, []);
        }
    }

    /// Recreates the tables.
    pub(super) fn rebuild(&mut self) {
        let plan = self.state.plan_everything();
        self.commit(plan, Some(&PROGRAM))
            .expect("the kernel accepts it");
    }

    /// Commits the difference from the applied state; returns the number of operations.
    pub(super) fn sync(&mut self) -> usize {
        let plan = self.state.plan_changes();
        self.commit(plan, None).expect("the kernel accepts it")
    }

    /// Commits a plan; returns the number of operations.
    pub(super) fn commit(
        &mut self,
        plan: SyncPlan,
        rebuild: Option<&Program>,
    ) -> Result<usize, Error> {
        let (transactions, effects) = plan.split();
        let commit = per_family!(transactions, |transaction| FamilyCommit {
            rebuild: rebuild.cloned(),
            transaction,
        });
        self.kernel.commit(&commit)?;
        let _ = self.state.committed(effects);
        Ok(commit.len())
    }

    /// Forgets the state, as a restart does, and applies objects again.
    pub(super) fn restart(&mut self, yaml: &str) {
        self.state = Self::node();
        self.apply_yaml(yaml);
    }

    /// Begins to read the tables back.
    pub(super) fn begin_read_back(&mut self) {
        let tables = Dual::both(Some(self.shape()), Some(self.shape()));
        self.state.begin_read_back(tables);
    }

    fn shape<A: Address>(&mut self) -> Table<A> {
        match self.kernel.read_without_keyed::<A>(&PROGRAM) {
            Ok(TableStatus::Ours(table)) => table,
            other => panic!("{other:?}"),
        }
    }

    /// Reads the Services that changed and `others` more, and commits what differs; returns the
    /// number of operations.
    pub(super) fn read_step(&mut self, others: usize) -> usize {
        let statuses = read_next(&mut self.kernel, &self.state, others).expect("answers");
        let steps = per_family!(statuses, |status| match status {
            StepStatus::Read(step) => step,
            StepStatus::Foreign(why) => panic!("{why}"),
        });
        self.state.adopt(steps);
        self.sync()
    }

    /// Ends a read-back; returns the number of operations.
    pub(super) fn end_read_back(&mut self) -> usize {
        let transactions = self.state.plan_end_of_read_back().expect("all is read");
        let commit: Commit = per_family!(transactions, |transaction| transaction.into());
        self.kernel.commit(&commit).expect("the kernel accepts it");
        let _known = self.state.end_read_back();
        commit.len()
    }

    /// Reads the tables back and commits what differs; returns the number of operations.
    pub(super) fn read_back(&mut self) -> usize {
        self.begin_read_back();
        let mut operations = 0;
        while self.state.unread_count() > 0 {
            operations += self.read_step(50);
        }
        operations + self.end_read_back()
    }

    /// Unpins every client whose endpoint must not keep it.
    pub(super) fn unpin_clients(&mut self) {
        let families = self.state.families.as_mut();
        let commit = per_family!(families, |family| match family.plan_all_unpinned() {
            Some(Plan { transaction, delta }) => {
                family.applied_mut().committed(delta);
                transaction.into()
            }
            None => FamilyCommit::default(),
        });
        self.kernel.commit(&commit).expect("the kernel accepts it");
    }

    /// Reads the table of a family, which must be ours.
    pub(super) fn read<A: Address>(&mut self) -> Table<A> {
        match self
            .kernel
            .read::<A>(&PROGRAM)
            .expect("the table can be read")
        {
            TableStatus::Ours(table) => table,
            other @ (TableStatus::Missing | TableStatus::Foreign(_)) => panic!("{other:?}"),
        }
    }

    /// Asserts that the applied state, the table as kube-dnat reads it, and the table as nft lists
    /// it are equal.
    pub(super) fn check(&mut self) {
        let ipv4 = self.read::<Ipv4Addr>();
        let ipv6 = self.read::<Ipv6Addr>();
        assert_eq!(ipv4, self.state.families.ipv4.applied().table());
        assert_eq!(
            ipv6,
            self.state
                .families
                .ipv6
                .as_ref()
                .expect("IPv6")
                .applied()
                .table()
        );
        let json = crate::lab::nft::list_json(&self.namespace);
        assert_eq!(our_lines(&ipv4), nft_lines(&json, "ip"));
        assert_eq!(our_lines(&ipv6), nft_lines(&json, "ip6"));
    }
}

/// Returns the elements of a table as lines `set key = value # comment`.
fn our_lines<A: Address>(table: &Table<A>) -> BTreeSet<String> {
    let line = |element: kube_dnat::planner::ruleset::Element<A>| {
        let value = match element.value {
            Value::Nothing => String::new(),
            Value::Verdict(verdict) => verdict.to_string(),
            Value::Endpoint(address, port) => format!("{address} . {port}"),
            Value::Address(address) => address.to_string(),
        };
        let comment = element.comment.as_ref().map_or("", |text| text.parts().0);
        format!("{} {} = {value} # {comment}", element.set, element.key)
    };
    table.elements().map(line).collect()
}

/// Returns the same lines of a family from the output of `nft -j list ruleset`.
fn nft_lines(json: &Json, family: &str) -> BTreeSet<String> {
    let objects = json["nftables"].as_array().expect("a list");
    let sets = objects
        .iter()
        .flat_map(|object| [&object["set"], &object["map"]])
        .filter(|set| set["family"] == family && set["table"] == "kube-dnat");
    let mut lines = BTreeSet::new();
    for set in sets {
        let name = set["name"].as_str().expect("a name");
        for element in set["elem"].as_array().into_iter().flatten() {
            let (element, value) = match element.as_array().map(Vec::as_slice) {
                Some([key, value]) => (key, nft_text(value)),
                _ => (element, String::new()),
            };
            let inner = &element["elem"];
            let key = nft_text(if inner.is_null() {
                element
            } else {
                &inner["val"]
            });
            let comment = inner["comment"].as_str().unwrap_or_default();
            lines.insert(format!("{name} {key} = {value} # {comment}"));
        }
    }
    lines
}

/// Returns a value of nft's JSON in nft's own language.
fn nft_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        Json::Object(object) => {
            let (kind, value) = object.iter().next().expect("one key");
            match kind.as_str() {
                "concat" => {
                    let parts = value.as_array().expect("a list").iter().map(nft_text);
                    parts.collect::<Vec<_>>().join(" . ")
                }
                "drop" => "drop".to_owned(),
                "goto" => format!("goto {}", value["target"].as_str().expect("a chain")),
                "prefix" => {
                    format!("{}/{}", nft_text(&value["addr"]), nft_text(&value["len"]))
                }
                other => panic!("{other} in nft's JSON: {value}"),
            }
        }
        Json::Null | Json::Bool(_) | Json::Array(_) => panic!("{value} in nft's JSON"),
    }
}
