//! How an endpoint is drawn from a frontend's list, and which a client keeps.

use std::net::SocketAddr;

use super::walk::{Frontend, Walk, table};
use super::{Chance, Held, Kind, Lookup, Outcome, Step, masquerade};
use crate::model::Address;
use crate::ruleset::{Entry, Frontends, Key, List, OnDemand, SetName, Value, Verdict};

/// A chain that draws, as a verdict names it.
#[derive(Clone, Copy)]
pub(super) struct Draw {
    frontends: Frontends,
    list: List,
    slots: u32,
    sticky: bool,
}

impl Draw {
    pub(super) fn of(chain: OnDemand) -> Option<Self> {
        let (frontends, list, slots, sticky) = match chain {
            OnDemand::Pick(frontends, list, slots) => (frontends, list, slots, false),
            OnDemand::Sticky(frontends, list, slots) => (frontends, list, slots, true),
            OnDemand::Learn(_) => return None,
        };
        Some(Self {
            frontends,
            list,
            slots,
            sticky,
        })
    }

    /// The map that it draws from.
    fn map(self) -> SetName {
        match self.frontends {
            Frontends::Address => SetName::Endpoints,
            Frontends::Nodeport => SetName::NodeportEndpoints,
        }
    }

    fn chain(self) -> OnDemand {
        let Self {
            frontends,
            list,
            slots,
            sticky,
        } = self;
        if sticky {
            OnDemand::Sticky(frontends, list, slots)
        } else {
            OnDemand::Pick(frontends, list, slots)
        }
    }
}

/// Where the endpoints of a list stand, and how nft shows them.
fn of_slots<A: Address>(chain: OnDemand, draw: Draw, slots: &[Key<A>]) -> Step {
    /// Keys that a command names one by one.
    const NAMED: usize = 16;
    let map = draw.map();
    let keys = slots.iter().map(Key::to_string).collect::<Vec<_>>();
    let (first, last) = (draw.list.base(), draw.list.base() + draw.slots.max(1) - 1);
    let table = table::<A>();
    let command = if let [key, _, ..] = &keys[..]
        && keys.len() > NAMED
        && let Some((frontend, _)) = key.rsplit_once(' ')
    {
        format!("nft list map {table} {map} | grep '{frontend} '")
    } else {
        format!("nft get element {table} {map} '{{ {} }}'", keys.join(", "))
    };
    Step {
        chain: chain.to_string(),
        found: format!("@{map}: slots {first} to {last}"),
        command,
    }
}

impl<A: Address, L: Lookup<A>> Walk<'_, A, L> {
    /// One of the endpoints, or the one that the client has.
    pub(super) fn draw(
        &mut self,
        draw: Draw,
        only_from: Option<Vec<String>>,
    ) -> Result<Outcome, L::Error> {
        let chain = draw.chain();
        let slots = self.slots(draw);
        self.steps.push(Step {
            chain: chain.to_string(),
            found: format!("one of {} at random", draw.slots),
            command: format!("nft list chain {} {chain}", table::<A>()),
        });
        self.steps.push(of_slots(chain, draw, &slots));
        let why = {
            let (frontend, source) = (self.frontend, self.source);
            masquerade::whatever_endpoint(self.rules, self.program, &frontend, &source)?
        };
        let mut endpoints = Vec::new();
        for key in slots {
            let Some(Entry {
                value: Value::Endpoint(address, port),
                ..
            }) = self.rules.get(draw.map(), &key)?
            else {
                continue;
            };
            let masqueraded = self.masqueraded(address, why.as_ref())?;
            endpoints.push(Chance {
                endpoint: SocketAddr::new(address.into(), port).to_string(),
                probability: 1.0 / f64::from(draw.slots),
                masqueraded,
            });
        }
        let (affinity_seconds, held) = if draw.sticky {
            (self.affinity_seconds()?, self.held()?)
        } else {
            (None, None)
        };
        Ok(Outcome::Served {
            affinity_seconds,
            held,
            endpoints,
            only_from,
        })
    }

    /// The keys that it draws one of.
    fn slots(&self, draw: Draw) -> Vec<Key<A>> {
        let Frontend {
            protocol,
            address,
            port,
        } = self.frontend;
        let slots = (0..draw.slots).map(|slot| draw.list.base() + slot);
        let key = |slot| match draw.frontends {
            Frontends::Address => Key::Slot(protocol, address, port, slot),
            Frontends::Nodeport => Key::NodeportSlot(protocol, port, slot),
        };
        slots.map(key).collect()
    }

    fn masqueraded(&mut self, to: A, why: Option<&String>) -> Result<Option<String>, L::Error> {
        // What ends on the node without having begun there does not pass postrouting.
        if self.source.kind != Kind::Node && self.rules.is_own(to) {
            return Ok(None);
        }
        let hairpin = masquerade::hairpin(self.rules, to, &self.source)?;
        // The hairpin is said of the Pod alone; what holds for all says more.
        Ok(why.cloned().or(hairpin))
    }

    fn affinity_seconds(&mut self) -> Result<Option<u32>, L::Error> {
        let Frontend {
            protocol,
            address,
            port,
        } = self.frontend;
        let at = Key::AddressPort(address, port);
        let mut entry = self.rules.get(SetName::Sticky(protocol), &at)?;
        if entry.is_none() {
            let set = SetName::StickyNodeport(protocol);
            entry = self.rules.get(set, &Key::Port(port))?;
        }
        Ok(match entry.map(|entry| entry.value) {
            Some(Value::Verdict(Verdict::OnDemand(OnDemand::Learn(seconds)))) => Some(seconds),
            Some(Value::Nothing | Value::Verdict(_) | Value::Endpoint(..)) | None => None,
        })
    }

    fn held(&mut self) -> Result<Option<Held>, L::Error> {
        let Some(source) = self.source.address else {
            return Ok(None);
        };
        let Frontend {
            protocol,
            address,
            port,
        } = self.frontend;
        let key = Key::Client(source, address, port);
        let Some((Value::Endpoint(address, port), left)) = self.rules.client(protocol, &key)?
        else {
            return Ok(None);
        };
        let (set, endpoint) = (
            SetName::Affinity(protocol),
            SocketAddr::new(address.into(), port).to_string(),
        );
        self.steps.push(Step {
            chain: "affinity".to_owned(),
            found: format!("@{set}: {key} : {address} . {port}"),
            command: format!("nft get element {} {set} '{{ {key} }}'", table::<A>()),
        });
        Ok(Some(Held {
            endpoint,
            seconds_left: left.as_secs(),
        }))
    }
}
