//! The way of a connection through the maps.

use std::net::SocketAddr;

use super::{Chance, Held, Kind, Lookup, Outcome, Path, Step, masquerade};
use crate::model::addr::Family;
use crate::model::{Address, Protocol};
use crate::ruleset::{
    ChainName, Entry, Frontends, Key, List, OnDemand, Program, SetName, TABLE, Value, Verdict,
};

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend<A> {
    /// The protocol.
    pub protocol: Protocol,
    /// The address.
    pub address: A,
    /// The port.
    pub port: u16,
}

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<A> {
    /// Its address, if one is asked for.
    pub address: Option<A>,
    /// How the rules see it.
    pub kind: Kind,
}

/// What becomes of a connection, and the Service's name for it.
///
/// # Errors
/// If the elements cannot be told.
pub fn walk<A: Address, L: Lookup<A>>(
    rules: &mut L,
    program: &Program,
    frontend: Frontend<A>,
    source: Source<A>,
) -> Result<(Option<String>, Path), L::Error> {
    let mut walk = Walk {
        rules,
        program,
        frontend,
        source,
        steps: Vec::new(),
        service: None,
    };
    let outcome = walk.outcome()?;
    let path = Path {
        from: vec![source.kind],
        steps: walk.steps,
        outcome,
    };
    Ok((walk.service, path))
}

struct Walk<'a, A: Address, L> {
    rules: &'a mut L,
    program: &'a Program,
    frontend: Frontend<A>,
    source: Source<A>,
    steps: Vec<Step>,
    service: Option<String>,
}

/// A chain that draws, as a verdict names it.
#[derive(Clone, Copy)]
struct Draw {
    frontends: Frontends,
    list: List,
    slots: u32,
    sticky: bool,
}

impl Draw {
    fn of(chain: OnDemand) -> Option<Self> {
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

/// nft's word for our table of a family.
fn table<A: Address>() -> String {
    let family = match A::FAMILY {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    };
    format!("{family} {TABLE}")
}

impl<A: Address, L: Lookup<A>> Walk<'_, A, L> {
    /// Looks up a key; what is found is a step.
    fn find(
        &mut self,
        chain: ChainName,
        set: SetName,
        key: Key<A>,
    ) -> Result<Option<Entry<A>>, L::Error> {
        let Some(entry) = self.rules.get(set, &key)? else {
            return Ok(None);
        };
        let value = match entry.value {
            Value::Nothing => String::new(),
            Value::Verdict(verdict) => format!(" : {verdict}"),
            Value::Endpoint(address, port) => format!(" : {address} . {port}"),
        };
        self.steps.push(Step {
            chain: chain.to_string(),
            found: format!("@{set}: {key}{value}"),
            command: format!("nft get element {} {set} '{{ {key} }}'", table::<A>()),
        });
        if let Some(comment) = &entry.comment {
            self.service.get_or_insert_with(|| comment.to_string());
        }
        Ok(Some(entry))
    }

    fn key(&self) -> Key<A> {
        let Frontend {
            protocol,
            address,
            port,
        } = self.frontend;
        Key::Frontend(protocol, address, port)
    }

    fn nodeport(&self) -> Key<A> {
        Key::Nodeport(self.frontend.protocol, self.frontend.port)
    }

    fn outcome(&mut self) -> Result<Outcome, L::Error> {
        let only_from = match self.source_ranges()? {
            Ok(only_from) => only_from,
            Err(why) => return Ok(Outcome::Dropped { why }),
        };
        if let Some(draw) = self.dispatch()? {
            return self.draw(draw, only_from);
        }
        self.filter()
    }

    /// `source-ranges`: the only ranges that are let through, or why the source is none of them.
    fn source_ranges(&mut self) -> Result<Result<Option<Vec<String>>, String>, L::Error> {
        let (chain, key) = (ChainName::SourceRanges, self.key());
        let checked = self.find(chain, SetName::SourceRangesChecked, key)?;
        if checked.is_none() {
            return Ok(Ok(None));
        }
        let mut ranges = Vec::new();
        let mut admitted = false;
        for element in self.rules.all(SetName::SourceRanges)? {
            let Key::SourceRange(protocol, address, port, net) = element.key else {
                continue;
            };
            if Key::Frontend(protocol, address, port) == key {
                let source = self.source.address;
                admitted |= source.is_some_and(|source| A::holds(net, source));
                ranges.push(net.to_string());
            }
        }
        self.steps.push(Step {
            chain: chain.to_string(),
            found: format!("@{}: only from {}", SetName::SourceRanges, list(&ranges)),
            command: format!("nft list set {} {}", table::<A>(), SetName::SourceRanges),
        });
        Ok(match self.source.address {
            Some(source) if !admitted => Err(format!(
                "loadBalancerSourceRanges do not hold {source}: only {}",
                list(&ranges)
            )),
            Some(_) => Ok(None),
            None => Ok(Some(ranges)),
        })
    }

    /// `services` and the chains of policy Local: how an endpoint is drawn.
    fn dispatch(&mut self) -> Result<Option<Draw>, L::Error> {
        let (chain, frontend, nodeport) = (ChainName::Services, self.key(), self.nodeport());
        if let Some(entry) = self.find(chain, SetName::Services, frontend)? {
            return self.follow(&entry);
        }
        let address = Key::Address(self.frontend.address);
        if self.rules.get(SetName::NodeIps, &address)?.is_none() {
            return Ok(None);
        }
        match self.find(chain, SetName::Nodeports, nodeport)? {
            Some(entry) => self.follow(&entry),
            None => Ok(None),
        }
    }

    fn follow(&mut self, entry: &Entry<A>) -> Result<Option<Draw>, L::Error> {
        let Value::Verdict(verdict) = entry.value else {
            return Ok(None);
        };
        let (chain, key, [wide, here]) = match verdict {
            Verdict::OnDemand(chain) => return Ok(Draw::of(chain)),
            Verdict::ExternalLocal => (
                ChainName::ExternalLocal,
                self.key(),
                [SetName::ServicesWide, SetName::ServicesNodeLocal],
            ),
            Verdict::NodeportExternalLocal => (
                ChainName::NodeportExternalLocal,
                self.nodeport(),
                [SetName::NodeportsWide, SetName::NodeportsNodeLocal],
            ),
            Verdict::Refuse | Verdict::Drop => return Ok(None),
        };
        if self.source.kind != Kind::Elsewhere
            && let Some(entry) = self.find(chain, wide, key)?
        {
            return self.follow(&entry);
        }
        match self.find(chain, here, key)? {
            Some(entry) => self.follow(&entry),
            None => Ok(None),
        }
    }

    fn draw(&mut self, draw: Draw, only_from: Option<Vec<String>>) -> Result<Outcome, L::Error> {
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

    /// What was not translated: `no-endpoints`, then `cluster-ips`.
    fn filter(&mut self) -> Result<Outcome, L::Error> {
        let (chain, frontend, nodeport) = (ChainName::NoEndpoints, self.key(), self.nodeport());
        let address = Key::Address(self.frontend.address);
        let mut none = self.find(chain, SetName::NoEndpoints, frontend)?;
        if none.is_none() && self.rules.get(SetName::NodeIps, &address)?.is_some() {
            none = self.find(chain, SetName::NoEndpointsNodeports, nodeport)?;
        }
        match none.map(|entry| entry.value) {
            Some(Value::Verdict(Verdict::Drop)) => {
                let why = "its traffic policy is Local, and no endpoint is on this node";
                return Ok(Outcome::Dropped {
                    why: why.to_owned(),
                });
            }
            Some(_) => {
                let why = "the Service has no endpoint that is ready".to_owned();
                return Ok(Outcome::Refused { why });
            }
            None => {}
        }
        let chain = ChainName::ClusterIps;
        if self.find(chain, SetName::ClusterIps, address)?.is_some() {
            let why = "the ClusterIP is in use, and its Service has no such port".to_owned();
            return Ok(Outcome::Refused { why });
        }
        let cidrs = self.rules.all(SetName::ServiceCidrs)?;
        for element in cidrs {
            if let Key::Net(net) = element.key
                && A::holds(net, self.frontend.address)
            {
                let set = SetName::ServiceCidrs;
                self.steps.push(Step {
                    chain: chain.to_string(),
                    found: format!("@{set}: {net}"),
                    command: format!("nft list set {} {set}", table::<A>()),
                });
                let why =
                    format!("no Service has this address, and ClusterIPs are taken from {net}");
                return Ok(Outcome::Dropped { why });
            }
        }
        Ok(Outcome::Untouched {
            why: "no Service has this address and port".to_owned(),
        })
    }
}

fn list(ranges: &[String]) -> String {
    if ranges.is_empty() {
        return "nobody".to_owned();
    }
    ranges.join(", ")
}
