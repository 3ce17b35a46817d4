//! One family's side of the crank: what is dirty, what it should be, what the kernel holds. Pure.

use std::collections::BTreeSet;

use crate::desired::{Claims, Contribution, Endpoint, NodeContribution, NodeFacts, NotServed};
use crate::desired::{PortContribution, contribution};
use crate::diff::{Change, Picture, Plan, Transaction, between};
use crate::model::{Address, Changed, ServiceName, Store};
use crate::ruleset::{Element, Inconsistent, Table, Value};

/// What is known of the kernel's table before a plan is made.
#[derive(Debug)]
pub enum Basis<A: Address> {
    /// The picture is right.
    Picture,
    /// The table holds nothing of ours, or will be made anew.
    Empty,
    /// The table holds this, and the picture does not count.
    Found(Box<Table<A>>),
}

/// A plan for one family that can be sent and then taken in.
#[derive(Debug)]
pub struct Prepared<A: Address> {
    /// What to send.
    pub transaction: Transaction<A>,
    /// What of each planned Service is not served.
    pub not_served: Vec<(ServiceName, Vec<NotServed>)>,
    plan: Plan<A>,
    basis: Basis<A>,
    names: BTreeSet<ServiceName>,
}

/// The state of one family.
#[derive(Debug)]
pub struct FamilyState<A: Address> {
    claims: Claims<A>,
    picture: Picture<A>,
    dirty: BTreeSet<ServiceName>,
    node_dirty: bool,
    /// Services whose operations the kernel refused: left out until the next retry.
    refused: BTreeSet<ServiceName>,
}

impl<A: Address> Default for FamilyState<A> {
    fn default() -> Self {
        Self {
            claims: Claims::default(),
            picture: Picture::default(),
            dirty: BTreeSet::new(),
            node_dirty: true,
            refused: BTreeSet::new(),
        }
    }
}

impl<A: Address> FamilyState<A> {
    /// Marks what a change of the store makes dirty.
    pub fn note(&mut self, changed: &Changed) {
        match changed {
            Changed::Nothing => {}
            Changed::Service { before, after } => {
                let (before, after) = (before.as_deref(), after.as_deref());
                self.dirty.extend(self.claims.update(before, after));
                for service in [before, after].into_iter().flatten() {
                    self.dirty.insert(service.name.clone());
                }
            }
            Changed::Endpoints(services) => self.dirty.extend(services.iter().cloned()),
            Changed::Node => self.node_dirty = true,
        }
    }

    /// Whether anything may differ from the picture and can be tried now.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.node_dirty || self.dirty.difference(&self.refused).next().is_some()
    }

    /// Whether the kernel holds everything that it should.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.node_dirty && self.dirty.is_empty()
    }

    /// Leaves the Service out of the next plans: the kernel refused an operation of it. `false` if
    /// it is left out already.
    pub fn leave_out(&mut self, service: &ServiceName) -> bool {
        self.dirty.insert(service.clone());
        self.refused.insert(service.clone())
    }

    /// Takes the Services that were left out in again. `false` if there are none.
    pub fn take_in_again(&mut self) -> bool {
        !std::mem::take(&mut self.refused).is_empty()
    }

    /// Plans what is dirty; on another basis than the picture, everything.
    ///
    /// # Errors
    /// Never, unless the planner is wrong.
    pub fn prepare(
        &self,
        store: &Store,
        facts: &NodeFacts,
        basis: Basis<A>,
    ) -> Result<Prepared<A>, Inconsistent> {
        let everything = !matches!(basis, Basis::Picture);
        let names = if everything {
            store.service_names()
        } else {
            self.dirty.clone()
        };
        let names: BTreeSet<_> = names.difference(&self.refused).cloned().collect();
        let mut not_served = Vec::new();
        let mut change = Change::default();
        if everything || self.node_dirty {
            change.node = Some(NodeContribution::new(facts, store));
        }
        for name in &names {
            let (wanted, reasons) = self.wanted(store, name, &basis);
            not_served.push((name.clone(), reasons));
            change.services.insert(name.clone(), wanted);
        }
        let from_nothing = Picture::default();
        let picture = if everything {
            &from_nothing
        } else {
            &self.picture
        };
        let plan = Plan::new(picture, change);
        let transaction = match &basis {
            Basis::Found(found) => {
                let mut wanted = Table::default();
                plan.transaction.apply(&mut wanted)?;
                let kept = self.picture.keys_of(&self.refused);
                let keep = |element: &Element<A>| {
                    kept.contains(&(element.set, element.key)) || self.is_refused(element)
                };
                between(found, &wanted, &plan.transaction, keep)
            }
            Basis::Picture | Basis::Empty => plan.transaction.clone(),
        };
        Ok(Prepared {
            transaction,
            not_served,
            plan,
            basis,
            names,
        })
    }

    /// Whether an element found in the kernel names a Service that is left out: what is programmed
    /// of it stays, also what an earlier process programmed.
    fn is_refused(&self, element: &Element<A>) -> bool {
        let comment = element.comment.as_deref().unwrap_or_default();
        let service = comment.split(':').next().unwrap_or_default();
        !service.is_empty() && self.refused.iter().any(|name| name.as_str() == service)
    }

    fn wanted(
        &self,
        store: &Store,
        name: &ServiceName,
        basis: &Basis<A>,
    ) -> (Option<Contribution<A>>, Vec<NotServed>) {
        let Some(service) = store.service(name) else {
            return (None, Vec::new());
        };
        let slices: Vec<_> = store.slices(service).collect();
        let (mut wanted, reasons) = contribution(service, &slices, &self.claims);
        wanted.settle(|port| match basis {
            Basis::Picture => self.picture.slots_of(name, port),
            Basis::Found(found) => slots_in(found, port),
            Basis::Empty => Vec::new(),
        });
        (
            Some(wanted).filter(|wanted| !wanted.ports.is_empty()),
            reasons,
        )
    }

    /// Takes in that the kernel committed what was prepared.
    pub fn committed(&mut self, prepared: Prepared<A>) {
        let Prepared {
            plan, basis, names, ..
        } = prepared;
        if !matches!(basis, Basis::Picture) {
            self.picture = Picture::default();
        }
        self.picture.committed(plan);
        if let Basis::Found(found) = basis {
            self.picture.has_unused(found.balance().iter().copied());
        }
        self.node_dirty = false;
        self.dirty.retain(|name| !names.contains(name));
    }

    /// The picture of the kernel.
    #[must_use]
    pub fn picture(&self) -> &Picture<A> {
        &self.picture
    }

    /// The picture of the kernel, to take in what was done to balance chains.
    pub fn picture_mut(&mut self) -> &mut Picture<A> {
        &mut self.picture
    }
}

/// The slots of a port in a table that was read from the kernel.
fn slots_in<A: Address>(found: &Table<A>, port: &PortContribution<A>) -> Vec<Endpoint<A>> {
    let endpoint = |slot| {
        let (set, key) = port.slot_key(slot)?;
        match found.get(set, &key)?.value {
            Value::Endpoint(address, port) => Some((address, port)),
            Value::Nothing | Value::Verdict(_) => None,
        }
    };
    (0..).map_while(endpoint).collect()
}
