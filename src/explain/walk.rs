//! The way of a connection through the maps.

use super::draw::Draw;
use super::{Kind, Lookup, Outcome, Path, Step};
use crate::model::{Address, Protocol};
use crate::ruleset::{ChainName, Entry, Key, Program, SetName, TABLE, Value, Verdict, layer};

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

/// A connection on its way.
pub(super) struct Walk<'a, A: Address, L> {
    pub(super) rules: &'a mut L,
    pub(super) program: &'a Program,
    pub(super) frontend: Frontend<A>,
    pub(super) source: Source<A>,
    pub(super) steps: Vec<Step>,
    service: Option<String>,
}

/// nft's word for our table of a family.
pub(super) fn table<A: Address>() -> String {
    format!("{} {TABLE}", layer(A::FAMILY))
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
