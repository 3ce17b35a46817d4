//! An evaluator of rules for one symbolic packet: the first of a connection.
//!
//! A source without an address is a kind of source: a match on it holds as it does for that kind, and
//! what depends on the very address is noted in the steps.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Held, Kind, Lookup, Step};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    Chain, ChainName, Element, Entry, Field, Key, List, Part, Program, Rule, SetName, Statement,
    TABLE, Value, layer, program, rule_text, set,
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
    /// Its address, if it is known.
    pub address: Option<A>,
    /// How the rules see it.
    pub kind: Kind,
}

/// How the evaluation of a chain ends, if it does not return to its caller.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// The connection is sent to one of [`Evaluation::drawn`].
    Translated,
    /// It is refused.
    Refused,
    /// It is dropped, by a rule or an element that a rule of this chain looked up.
    Dropped(ChainName),
    /// Its source is masqueraded; the rule that says so.
    Masqueraded(String),
}

/// What comes after a rule.
enum Flow {
    NextRule,
    Return,
    Jump(ChainName),
    Goto(ChainName),
    End(End),
}

/// Whether a match holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// For the endpoint itself, if it is the source.
    Itself,
}

/// An endpoint that the connection may be sent to, and how probable that is.
pub(super) type Drawn<A> = ((A, u16), f64);

/// The evaluation of a connection's first packet.
pub(super) struct Evaluation<'a, A: Address, L> {
    rules: &'a mut L,
    chains: BTreeMap<ChainName, Chain>,
    frontend: Frontend<A>,
    source: Source<A>,
    /// Where the packet goes after DNAT.
    translated: Option<(A, u16)>,
    looked_up: BTreeMap<(SetName, Key<A>), Option<Entry<A>>>,
    /// The probability that no endpoint was drawn yet.
    left: f64,
    /// What was found, in order.
    pub(super) steps: Vec<Step>,
    /// The comment of the first element found that has one.
    pub(super) service: Option<String>,
    /// The chains that were evaluated.
    pub(super) trail: Vec<ChainName>,
    /// All endpoints that may be drawn.
    pub(super) drawn: Vec<Drawn<A>>,
    /// The ranges that the source must be in, where that was looked up.
    pub(super) ranges: Option<Vec<String>>,
    /// The endpoint that the client has had and keeps.
    pub(super) held: Option<Held>,
    /// For how many seconds a client is remembered.
    pub(super) affinity_seconds: Option<u32>,
}

/// nft's word for our table of a family.
pub(super) fn table<A: Address>() -> String {
    format!("{} {TABLE}", layer(A::FAMILY))
}

impl<'a, A: Address, L: Lookup<A>> Evaluation<'a, A, L> {
    pub(super) fn new(
        rules: &'a mut L,
        fixed: &Program,
        frontend: Frontend<A>,
        source: Source<A>,
    ) -> Self {
        let chains = program(fixed).into_iter();
        Self {
            rules,
            chains: chains.map(|chain| (chain.name, chain)).collect(),
            frontend,
            source,
            translated: None,
            looked_up: BTreeMap::new(),
            left: 1.0,
            steps: Vec::new(),
            service: None,
            trail: Vec::new(),
            drawn: Vec::new(),
            ranges: None,
            held: None,
            affinity_seconds: None,
        }
    }

    /// Evaluates what the kernel calls before routing, or where the node itself sends.
    pub(super) fn dispatch(&mut self) -> Result<Option<End>, L::Error> {
        let [first, then] = match self.source.kind {
            Kind::Node => [ChainName::NatOutput, ChainName::NatOutputUnserved],
            Kind::Pod | Kind::Elsewhere => {
                [ChainName::NatPrerouting, ChainName::NatPreroutingUnserved]
            }
        };
        let end = self.chain(first)?;
        if end.is_some() || !self.drawn.is_empty() {
            return Ok(end);
        }
        // The kernel calls it for a connection that no chain has translated.
        self.chain(then)
    }

    /// Evaluates what the kernel calls for a connection that was sent to this endpoint; why its source
    /// is masqueraded, if it is.
    pub(super) fn leave(&mut self, endpoint: (A, u16)) -> Result<Option<String>, L::Error> {
        self.translated = Some(endpoint);
        // What ends on the node without having begun there does not pass postrouting.
        let ends_here = self.source.kind != Kind::Node && self.rules.is_own(endpoint.0);
        let end = self.chain(if ends_here {
            ChainName::NatInput
        } else {
            ChainName::NatPostrouting
        })?;
        Ok(match end {
            Some(End::Masqueraded(why)) => Some(why),
            Some(End::Translated | End::Refused | End::Dropped(_)) | None => None,
        })
    }

    fn chain(&mut self, name: ChainName) -> Result<Option<End>, L::Error> {
        let rules = if let ChainName::OnDemand(chain) = name {
            chain.chain().rules
        } else {
            let chain = self.chains.get(&name);
            chain.map_or_else(Vec::new, |chain| chain.rules.clone())
        };
        self.trail.push(name);
        for rule in &rules {
            let end = match self.rule(name, rule)? {
                Flow::NextRule => None,
                Flow::Return => return Ok(None),
                Flow::Jump(chain) => self.chain(chain)?,
                Flow::Goto(chain) => return self.chain(chain),
                Flow::End(end) => Some(end),
            };
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }

    fn rule(&mut self, chain: ChainName, rule: &Rule) -> Result<Flow, L::Error> {
        let mut steps = Vec::new();
        let mut itself = false;
        let flow = 'rule: {
            for (position, statement) in rule.iter().enumerate() {
                let flow = match statement {
                    Statement::Vmap { fields, map } => {
                        self.verdict(chain, fields, *map, &mut steps)?
                    }
                    Statement::Dnat { fields, map } => {
                        self.dnat(chain, fields, *map, &mut steps)?
                    }
                    Statement::Masquerade if itself && self.source.address.is_none() => Flow::End(
                        End::Masqueraded("only if it reaches itself (@hairpin)".to_owned()),
                    ),
                    Statement::Masquerade => {
                        let matches = rule.get(..position).unwrap_or_default();
                        Flow::End(End::Masqueraded(masqueraded_by(chain, matches, A::FAMILY)))
                    }
                    Statement::RejectTcp if self.frontend.protocol != Protocol::Tcp => {
                        break 'rule Flow::NextRule;
                    }
                    Statement::RejectTcp | Statement::Reject => Flow::End(End::Refused),
                    Statement::Drop => Flow::End(End::Dropped(chain)),
                    Statement::Return => Flow::Return,
                    Statement::Jump(chain) => Flow::Jump(*chain),
                    Statement::Goto(chain) => Flow::Goto(*chain),
                    Statement::NotDnat
                    | Statement::Confirmed
                    | Statement::SourceIsLocal
                    | Statement::DestinationIsLocal
                    | Statement::InputInterface { .. }
                    | Statement::Protocol(_)
                    | Statement::Learn { .. }
                    | Statement::Forget { .. }
                    | Statement::Lookup { .. } => {
                        match self.matches(chain, statement, &mut steps)? {
                            Match::Yes => continue,
                            Match::Itself => {
                                itself = true;
                                continue;
                            }
                            Match::No => break 'rule Flow::NextRule,
                        }
                    }
                };
                break 'rule flow;
            }
            Flow::NextRule
        };
        let before = self.translated.is_none();
        // Source ranges that do not hold the source are what decides.
        let denied = chain == ChainName::Restricted;
        if before && (denied || !matches!(flow, Flow::NextRule | Flow::Return)) {
            self.steps.append(&mut steps);
        }
        Ok(flow)
    }

    fn matches(
        &mut self,
        chain: ChainName,
        statement: &Statement,
        steps: &mut Vec<Step>,
    ) -> Result<Match, L::Error> {
        let (holds, inverted) = match statement {
            Statement::NotDnat => (self.translated.is_none(), false),
            // What is explained are new connections.
            Statement::Confirmed => (false, false),
            Statement::SourceIsLocal => {
                let address = self.source.address;
                let own = address.is_some_and(|address| self.rules.is_own(address));
                (self.source.kind == Kind::Node || own, false)
            }
            Statement::DestinationIsLocal => (self.rules.is_own(self.frontend.address), false),
            Statement::InputInterface { inverted, .. } => {
                (self.source.kind == Kind::Pod, *inverted)
            }
            Statement::Protocol(protocol) => (self.frontend.protocol == *protocol, false),
            Statement::Lookup {
                fields,
                set,
                inverted,
            } => match self.is_in(chain, fields, *set, steps)? {
                Match::Itself => return Ok(Match::Itself),
                Match::Yes => (true, *inverted),
                Match::No => (false, *inverted),
            },
            Statement::Learn { seconds, .. } => {
                self.affinity_seconds = Some(*seconds);
                (true, false)
            }
            Statement::Forget { .. }
            | Statement::Vmap { .. }
            | Statement::Dnat { .. }
            | Statement::Masquerade
            | Statement::RejectTcp
            | Statement::Reject
            | Statement::Drop
            | Statement::Return
            | Statement::Jump(_)
            | Statement::Goto(_) => (true, false),
        };
        Ok(if holds == inverted {
            Match::No
        } else {
            Match::Yes
        })
    }

    fn is_in(
        &mut self,
        chain: ChainName,
        fields: &[Field],
        name: SetName,
        steps: &mut Vec<Step>,
    ) -> Result<Match, L::Error> {
        let yes = |holds| if holds { Match::Yes } else { Match::No };
        if set(name).is_ranges() {
            let Some([Part::Address(address)]) =
                self.parts(fields).as_deref().map(|parts| [parts[0]])
            else {
                return Ok(yes(self.source.kind == Kind::Pod));
            };
            let holds = |element: &Element<A>| matches!(element.key, Key::Net(net) if A::holds(net, address));
            let found = self.rules.all(name)?.into_iter().find(holds);
            if let Some(element) = &found {
                steps.push(listed::<A>(chain, name, &element.key.to_string()));
            }
            return Ok(yes(found.is_some()));
        }
        if name == SetName::SourceRanges {
            return self.is_in_source_ranges(chain, steps).map(yes);
        }
        match self.parts(fields) {
            Some(parts) => {
                let Some(key) = Key::of_parts(&parts) else {
                    return Ok(Match::No);
                };
                let found = self.get(name, key)?;
                if let Some(entry) = &found {
                    steps.push(found_element(chain, name, key, entry));
                }
                Ok(yes(found.is_some()))
            }
            // Of all Pods the endpoint itself is the one that the set of hairpins may have.
            None if self.source.kind == Kind::Pod => {
                let endpoint = self.destination().0;
                let found = self.get(name, Key::Pair(endpoint, endpoint))?;
                Ok(match found {
                    Some(_) => Match::Itself,
                    None => Match::No,
                })
            }
            None => Ok(Match::No),
        }
    }

    fn is_in_source_ranges(
        &mut self,
        chain: ChainName,
        steps: &mut Vec<Step>,
    ) -> Result<bool, L::Error> {
        let Frontend {
            protocol,
            address,
            port,
        } = self.frontend;
        let frontend = Key::Frontend(protocol, address, port);
        let (mut ranges, mut allowed) = (Vec::new(), false);
        for element in self.rules.all(SetName::SourceRanges)? {
            let Key::SourceRange(protocol, address, port, net) = element.key else {
                continue;
            };
            if Key::Frontend(protocol, address, port) == frontend {
                let source = self.source.address;
                allowed |= source.is_none_or(|source| A::holds(net, source));
                ranges.push(net.to_string());
            }
        }
        let only = format!("only from {}", list(&ranges));
        steps.push(listed::<A>(chain, SetName::SourceRanges, &only));
        self.ranges = Some(ranges);
        Ok(allowed)
    }

    fn verdict(
        &mut self,
        chain: ChainName,
        fields: &[Field],
        map: SetName,
        steps: &mut Vec<Step>,
    ) -> Result<Flow, L::Error> {
        let key = self.parts(fields);
        let Some(key) = key.and_then(|parts| Key::of_parts(&parts)) else {
            return Ok(Flow::NextRule);
        };
        let Some(entry) = self.get(map, key)? else {
            return Ok(Flow::NextRule);
        };
        steps.push(found_element(chain, map, key, &entry));
        if let Some(comment) = &entry.comment {
            self.service.get_or_insert_with(|| comment.to_string());
        }
        Ok(match entry.value {
            Value::Verdict(verdict) => match verdict.chain() {
                Some(chain) => Flow::Goto(chain),
                None => Flow::End(End::Dropped(chain)),
            },
            Value::Nothing | Value::Endpoint(..) => Flow::NextRule,
        })
    }

    fn dnat(
        &mut self,
        chain: ChainName,
        fields: &[Field],
        map: SetName,
        steps: &mut Vec<Step>,
    ) -> Result<Flow, L::Error> {
        let Some(Field::Random { slots, list }) = fields.last() else {
            self.keep(chain, fields)?;
            return Ok(Flow::NextRule);
        };
        let mut keys = Vec::new();
        let share = self.left / f64::from(*slots);
        let known = self.parts(fields.get(..fields.len() - 1).unwrap_or_default());
        let known = known.unwrap_or_default();
        for slot in list.base()..list.base() + slots {
            let parts = [&known[..], &[Part::Slot(slot)]].concat();
            let Some(key) = Key::of_parts(&parts) else {
                continue;
            };
            keys.push(key);
            if let Some(Entry {
                value: Value::Endpoint(address, port),
                ..
            }) = self.rules.get(map, &key)?
            {
                self.drawn.push(((address, port), share));
                self.left -= share;
            }
        }
        if self.drawn.is_empty() {
            return Ok(Flow::NextRule);
        }
        steps.push(Step {
            chain: chain.to_string(),
            found: format!("one of {slots} at random"),
            command: format!("nft list chain {} {chain}", table::<A>()),
        });
        steps.push(of_slots(chain, map, *list, *slots, &keys));
        if self.left > f64::EPSILON * f64::from(*slots) {
            // What is drawn from a slot that is empty goes on to the next rule.
            self.steps.append(steps);
            return Ok(Flow::NextRule);
        }
        Ok(Flow::End(End::Translated))
    }

    /// Looks for the endpoint that the client has had.
    fn keep(&mut self, chain: ChainName, fields: &[Field]) -> Result<(), L::Error> {
        let key = self.parts(fields);
        let Some(key) = key.and_then(|parts| Key::of_parts(&parts)) else {
            return Ok(());
        };
        let protocol = self.frontend.protocol;
        if let Some((Value::Endpoint(address, port), left)) = self.rules.client(protocol, &key)? {
            let map = SetName::Affinity(protocol);
            self.steps.push(Step {
                chain: chain.to_string(),
                found: format!("@{map}: {key} : {address} . {port}"),
                command: format!("nft get element {} {map} '{{ {key} }}'", table::<A>()),
            });
            self.held = Some(Held {
                endpoint: SocketAddr::new(address.into(), port).to_string(),
                seconds_left: left.as_secs(),
            });
        }
        Ok(())
    }

    fn get(&mut self, name: SetName, key: Key<A>) -> Result<Option<Entry<A>>, L::Error> {
        if let Some(known) = self.looked_up.get(&(name, key)) {
            return Ok(known.clone());
        }
        let entry = self.rules.get(name, &key)?;
        self.looked_up.insert((name, key), entry.clone());
        Ok(entry)
    }

    /// Where the packet goes now.
    fn destination(&self) -> (A, u16) {
        let Frontend { address, port, .. } = self.frontend;
        self.translated.unwrap_or((address, port))
    }

    /// The values of these fields; `None` if one of them is not known.
    fn parts(&self, fields: &[Field]) -> Option<Vec<Part<A>>> {
        let (address, port) = self.destination();
        let value = |field: &Field| {
            Some(match field {
                Field::Protocol => Part::Protocol(self.frontend.protocol),
                Field::Saddr => Part::Address(self.source.address?),
                Field::Daddr => Part::Address(address),
                Field::Dport => Part::Port(port),
                Field::OriginalDaddr => Part::Address(self.frontend.address),
                Field::OriginalDport => Part::Port(self.frontend.port),
                Field::Direction => Part::Original,
                Field::Random { .. } => return None,
            })
        };
        fields.iter().map(value).collect()
    }
}

fn found_element<A: Address>(
    chain: ChainName,
    name: SetName,
    key: Key<A>,
    entry: &Entry<A>,
) -> Step {
    let value = match entry.value {
        Value::Nothing => String::new(),
        Value::Verdict(verdict) => format!(" : {verdict}"),
        Value::Endpoint(address, port) => format!(" : {address} . {port}"),
    };
    Step {
        chain: chain.to_string(),
        found: format!("@{name}: {key}{value}"),
        command: format!("nft get element {} {name} '{{ {key} }}'", table::<A>()),
    }
}

fn listed<A: Address>(chain: ChainName, name: SetName, found: &str) -> Step {
    Step {
        chain: chain.to_string(),
        found: format!("@{name}: {found}"),
        command: format!("nft list set {} {name}", table::<A>()),
    }
}

/// Where the endpoints of a list stand, and how nft shows them.
fn of_slots<A: Address>(
    chain: ChainName,
    map: SetName,
    list: List,
    slots: u32,
    keys: &[Key<A>],
) -> Step {
    /// Keys that a command names one by one.
    const NAMED: usize = 16;
    let keys: Vec<_> = keys.iter().map(Key::to_string).collect();
    let (from, to) = (list.base(), list.base() + slots.max(1) - 1);
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
        found: format!("@{map}: slots {from} to {to}"),
        command,
    }
}

pub(super) fn list(ranges: &[String]) -> String {
    if ranges.is_empty() {
        return "nobody".to_owned();
    }
    ranges.join(", ")
}

/// Which rule of a chain masquerades, in nft's words.
fn masqueraded_by(chain: ChainName, matches: &[Statement], family: Family) -> String {
    match matches {
        [] => chain.to_string(),
        matches => format!("{chain}: {}", rule_text(matches, family)),
    }
}
