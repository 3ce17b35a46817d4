//! An evaluator of rules for one symbolic packet: the first of a connection.
//!
//! A source without an address is a kind of source: a match on it holds as it does for that kind, and
//! what depends on the very address is noted in the steps.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Lookup, LookupStep, PinnedEndpoint, SourceKind};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    Chain, ChainName, Element, ElementData, EndpointList, Key, KeyPart, LookupField, Program, Rule,
    SetName, Statement, TABLE, Value, layer, program, rule_text, set,
};

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<A> {
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
    pub kind: SourceKind,
}

/// How the evaluation of a chain ends, if it does not return to its caller.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ChainEnd {
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
enum RuleFlow {
    NextRule,
    Return,
    Jump(ChainName),
    Goto(ChainName),
    End(ChainEnd),
}

/// Whether a match holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RuleMatch {
    Yes,
    No,
    /// For the endpoint itself, if it is the source.
    Itself,
}

/// An endpoint that the connection may be sent to, and how probable that is.
pub(super) type DrawnEndpoint<A> = ((A, u16), f64);

/// The evaluation of a connection's first packet.
pub(super) struct Evaluation<'a, A: Address, L> {
    rules: &'a mut L,
    chains: BTreeMap<ChainName, Chain>,
    frontend: Destination<A>,
    source: Source<A>,
    /// Where the packet goes after DNAT.
    translated: Option<(A, u16)>,
    looked_up: BTreeMap<(SetName, Key<A>), Option<ElementData<A>>>,
    /// The probability that no endpoint was drawn yet.
    left: f64,
    /// What was found, in order.
    pub(super) steps: Vec<LookupStep>,
    /// The comment of the first element found that has one.
    pub(super) service: Option<String>,
    /// The chains that were evaluated.
    pub(super) trail: Vec<ChainName>,
    /// All endpoints that may be drawn.
    pub(super) drawn: Vec<DrawnEndpoint<A>>,
    /// The ranges that the source must be in, where that was looked up.
    pub(super) ranges: Option<Vec<String>>,
    /// The endpoint that the client has had and keeps.
    pub(super) held: Option<PinnedEndpoint>,
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
        frontend: Destination<A>,
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
    pub(super) fn dispatch(&mut self) -> Result<Option<ChainEnd>, L::Error> {
        let [first, then] = match self.source.kind {
            SourceKind::Node => [ChainName::NatOutput, ChainName::NatOutputUnserved],
            SourceKind::Pod | SourceKind::Elsewhere => {
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
        let ends_here = self.source.kind != SourceKind::Node && self.rules.is_own(endpoint.0);
        let end = self.chain(if ends_here {
            ChainName::NatInput
        } else {
            ChainName::NatPostrouting
        })?;
        Ok(match end {
            Some(ChainEnd::Masqueraded(why)) => Some(why),
            Some(ChainEnd::Translated | ChainEnd::Refused | ChainEnd::Dropped(_)) | None => None,
        })
    }

    fn chain(&mut self, name: ChainName) -> Result<Option<ChainEnd>, L::Error> {
        let rules = if let ChainName::OnDemand(chain) = name {
            chain.chain().rules
        } else {
            let chain = self.chains.get(&name);
            chain.map_or_else(Vec::new, |chain| chain.rules.clone())
        };
        self.trail.push(name);
        for rule in &rules {
            let end = match self.rule(name, rule)? {
                RuleFlow::NextRule => None,
                RuleFlow::Return => return Ok(None),
                RuleFlow::Jump(chain) => self.chain(chain)?,
                RuleFlow::Goto(chain) => return self.chain(chain),
                RuleFlow::End(end) => Some(end),
            };
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }

    fn rule(&mut self, chain: ChainName, rule: &Rule) -> Result<RuleFlow, L::Error> {
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
                    Statement::Masquerade if itself && self.source.address.is_none() => {
                        RuleFlow::End(ChainEnd::Masqueraded(
                            "only if it reaches itself (@hairpin)".to_owned(),
                        ))
                    }
                    Statement::Masquerade => {
                        let matches = rule.get(..position).unwrap_or_default();
                        let by = masqueraded_by(chain, matches, A::FAMILY);
                        RuleFlow::End(ChainEnd::Masqueraded(by))
                    }
                    Statement::RejectTcp if self.frontend.protocol != Protocol::Tcp => {
                        break 'rule RuleFlow::NextRule;
                    }
                    Statement::RejectTcp | Statement::Reject => RuleFlow::End(ChainEnd::Refused),
                    Statement::Drop => RuleFlow::End(ChainEnd::Dropped(chain)),
                    Statement::Return => RuleFlow::Return,
                    Statement::Jump(chain) => RuleFlow::Jump(*chain),
                    Statement::Goto(chain) => RuleFlow::Goto(*chain),
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
                            RuleMatch::Yes => continue,
                            RuleMatch::Itself => {
                                itself = true;
                                continue;
                            }
                            RuleMatch::No => break 'rule RuleFlow::NextRule,
                        }
                    }
                };
                break 'rule flow;
            }
            RuleFlow::NextRule
        };
        let before = self.translated.is_none();
        // Source ranges that do not hold the source are what decides.
        let denied = chain == ChainName::Restricted;
        if before && (denied || !matches!(flow, RuleFlow::NextRule | RuleFlow::Return)) {
            self.steps.append(&mut steps);
        }
        Ok(flow)
    }

    fn matches(
        &mut self,
        chain: ChainName,
        statement: &Statement,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleMatch, L::Error> {
        let (holds, inverted) = match statement {
            Statement::NotDnat => (self.translated.is_none(), false),
            // What is explained are new connections.
            Statement::Confirmed => (false, false),
            Statement::SourceIsLocal => {
                let address = self.source.address;
                let own = address.is_some_and(|address| self.rules.is_own(address));
                (self.source.kind == SourceKind::Node || own, false)
            }
            Statement::DestinationIsLocal => (self.rules.is_own(self.frontend.address), false),
            Statement::InputInterface { inverted, .. } => {
                (self.source.kind == SourceKind::Pod, *inverted)
            }
            Statement::Protocol(protocol) => (self.frontend.protocol == *protocol, false),
            Statement::Lookup {
                fields,
                set,
                inverted,
            } => match self.is_in(chain, fields, *set, steps)? {
                RuleMatch::Itself => return Ok(RuleMatch::Itself),
                RuleMatch::Yes => (true, *inverted),
                RuleMatch::No => (false, *inverted),
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
            RuleMatch::No
        } else {
            RuleMatch::Yes
        })
    }

    fn is_in(
        &mut self,
        chain: ChainName,
        fields: &[LookupField],
        name: SetName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleMatch, L::Error> {
        let yes = |holds| if holds { RuleMatch::Yes } else { RuleMatch::No };
        if set(name).is_ranges() {
            let Some([KeyPart::Address(address)]) =
                self.parts(fields).as_deref().map(|parts| [parts[0]])
            else {
                return Ok(yes(self.source.kind == SourceKind::Pod));
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
                    return Ok(RuleMatch::No);
                };
                let found = self.get(name, key)?;
                if let Some(entry) = &found {
                    steps.push(found_element(chain, name, key, entry));
                }
                Ok(yes(found.is_some()))
            }
            // Of all Pods the endpoint itself is the one that the set of hairpins may have.
            None if self.source.kind == SourceKind::Pod => {
                let endpoint = self.destination().0;
                let found = self.get(name, Key::Pair(endpoint, endpoint))?;
                Ok(match found {
                    Some(_) => RuleMatch::Itself,
                    None => RuleMatch::No,
                })
            }
            None => Ok(RuleMatch::No),
        }
    }

    fn is_in_source_ranges(
        &mut self,
        chain: ChainName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<bool, L::Error> {
        let Destination {
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
        fields: &[LookupField],
        map: SetName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleFlow, L::Error> {
        let key = self.parts(fields);
        let Some(key) = key.and_then(|parts| Key::of_parts(&parts)) else {
            return Ok(RuleFlow::NextRule);
        };
        let Some(entry) = self.get(map, key)? else {
            return Ok(RuleFlow::NextRule);
        };
        steps.push(found_element(chain, map, key, &entry));
        if let Some(comment) = &entry.comment {
            self.service.get_or_insert_with(|| comment.to_string());
        }
        Ok(match entry.value {
            Value::Verdict(verdict) => match verdict.chain() {
                Some(chain) => RuleFlow::Goto(chain),
                None => RuleFlow::End(ChainEnd::Dropped(chain)),
            },
            Value::Nothing | Value::Endpoint(..) => RuleFlow::NextRule,
        })
    }

    fn dnat(
        &mut self,
        chain: ChainName,
        fields: &[LookupField],
        map: SetName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleFlow, L::Error> {
        let Some(LookupField::Random { slots, list }) = fields.last() else {
            self.keep(chain, fields)?;
            return Ok(RuleFlow::NextRule);
        };
        let mut keys = Vec::new();
        let share = self.left / f64::from(*slots);
        let known = self.parts(fields.get(..fields.len() - 1).unwrap_or_default());
        let known = known.unwrap_or_default();
        for slot in list.base()..list.base() + slots {
            let parts = [&known[..], &[KeyPart::Slot(slot)]].concat();
            let Some(key) = Key::of_parts(&parts) else {
                continue;
            };
            keys.push(key);
            if let Some(ElementData {
                value: Value::Endpoint(address, port),
                ..
            }) = self.rules.get(map, &key)?
            {
                self.drawn.push(((address, port), share));
                self.left -= share;
            }
        }
        if self.drawn.is_empty() {
            return Ok(RuleFlow::NextRule);
        }
        steps.push(LookupStep {
            chain: chain.to_string(),
            found: format!("one of {slots} at random"),
            command: format!("nft list chain {} {chain}", table::<A>()),
        });
        steps.push(of_slots(chain, map, *list, *slots, &keys));
        if self.left > f64::EPSILON * f64::from(*slots) {
            // What is drawn from a slot that is empty goes on to the next rule.
            self.steps.append(steps);
            return Ok(RuleFlow::NextRule);
        }
        Ok(RuleFlow::End(ChainEnd::Translated))
    }

    /// Looks for the endpoint that the client has had.
    fn keep(&mut self, chain: ChainName, fields: &[LookupField]) -> Result<(), L::Error> {
        let key = self.parts(fields);
        let Some(key) = key.and_then(|parts| Key::of_parts(&parts)) else {
            return Ok(());
        };
        let protocol = self.frontend.protocol;
        if let Some((Value::Endpoint(address, port), left)) = self.rules.client(protocol, &key)? {
            let map = SetName::Affinity(protocol);
            self.steps.push(LookupStep {
                chain: chain.to_string(),
                found: format!("@{map}: {key} : {address} . {port}"),
                command: format!("nft get element {} {map} '{{ {key} }}'", table::<A>()),
            });
            self.held = Some(PinnedEndpoint {
                endpoint: SocketAddr::new(address.into(), port).to_string(),
                seconds_left: left.as_secs(),
            });
        }
        Ok(())
    }

    fn get(&mut self, name: SetName, key: Key<A>) -> Result<Option<ElementData<A>>, L::Error> {
        if let Some(known) = self.looked_up.get(&(name, key)) {
            return Ok(known.clone());
        }
        let entry = self.rules.get(name, &key)?;
        self.looked_up.insert((name, key), entry.clone());
        Ok(entry)
    }

    /// Where the packet goes now.
    fn destination(&self) -> (A, u16) {
        let Destination { address, port, .. } = self.frontend;
        self.translated.unwrap_or((address, port))
    }

    /// The values of these fields; `None` if one of them is not known.
    fn parts(&self, fields: &[LookupField]) -> Option<Vec<KeyPart<A>>> {
        let (address, port) = self.destination();
        let value = |field: &LookupField| {
            Some(match field {
                LookupField::Protocol => KeyPart::Protocol(self.frontend.protocol),
                LookupField::Saddr => KeyPart::Address(self.source.address?),
                LookupField::Daddr => KeyPart::Address(address),
                LookupField::Dport => KeyPart::Port(port),
                LookupField::OriginalDaddr => KeyPart::Address(self.frontend.address),
                LookupField::OriginalDport => KeyPart::Port(self.frontend.port),
                LookupField::Direction => KeyPart::Original,
                LookupField::Random { .. } => return None,
            })
        };
        fields.iter().map(value).collect()
    }
}

fn found_element<A: Address>(
    chain: ChainName,
    name: SetName,
    key: Key<A>,
    entry: &ElementData<A>,
) -> LookupStep {
    let value = match entry.value {
        Value::Nothing => String::new(),
        Value::Verdict(verdict) => format!(" : {verdict}"),
        Value::Endpoint(address, port) => format!(" : {address} . {port}"),
    };
    LookupStep {
        chain: chain.to_string(),
        found: format!("@{name}: {key}{value}"),
        command: format!("nft get element {} {name} '{{ {key} }}'", table::<A>()),
    }
}

fn listed<A: Address>(chain: ChainName, name: SetName, found: &str) -> LookupStep {
    LookupStep {
        chain: chain.to_string(),
        found: format!("@{name}: {found}"),
        command: format!("nft list set {} {name}", table::<A>()),
    }
}

/// Where the endpoints of a list stand, and how nft shows them.
fn of_slots<A: Address>(
    chain: ChainName,
    map: SetName,
    list: EndpointList,
    slots: u32,
    keys: &[Key<A>],
) -> LookupStep {
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
    LookupStep {
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
