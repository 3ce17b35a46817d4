//! An evaluator of the rules for one symbolic packet, the first of a connection.
//!
//! A source without an address stands for all sources of its kind: a match on the source address
//! has the result that it has for that kind, and the steps note what depends on the address itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use super::{Lookup, LookupStep, PinnedEndpoint, SourceKind, jenkins};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Balance, Protocol};
use crate::planner::ruleset::{
    Chain, ChainName, DynamicChain, Element, ElementData, Key, KeyPart, LookupField, Program,
    RangesHook, Rule, SelectedSlot, SetName, SlotRange, Statement, TABLE, Value, layer, program,
    rule_text, set,
};

/// The protocol, address and port that a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<A> {
    /// The transport protocol of the connection.
    pub protocol: Protocol,
    /// The destination address of the first packet.
    pub address: A,
    /// The destination port of the first packet.
    pub port: u16,
}

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<A> {
    /// The client's address; `None`: any address of its kind.
    pub address: Option<A>,
    /// The kind of source that the rules take the client for.
    pub kind: SourceKind,
}

/// The reason why the evaluation of a base chain stopped before the chain's policy.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ChainEnd {
    /// A dnat statement sent the connection to one of [`Evaluation::candidates`].
    Translated,
    /// A reject statement was reached.
    Rejected,
    /// A drop verdict was reached, in this chain or in an element that it looked up.
    Dropped(ChainName),
    /// A masquerade statement was reached; the text names its rule.
    Masqueraded(String),
}

/// The evaluation's next step after a rule.
enum RuleFlow {
    /// The next rule of the chain.
    NextRule,
    /// The rule after the jump in the calling chain.
    Return,
    /// This chain, then the next rule.
    Jump(ChainName),
    /// This chain, instead of the remaining rules.
    Goto(ChainName),
    /// The end of the evaluation.
    End(ChainEnd),
}

/// The result of a match statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RuleMatch {
    /// The match holds.
    Yes,
    /// The match does not hold.
    No,
    /// The match holds only if the source is the endpoint itself.
    Hairpin,
}

/// An endpoint that the connection may be sent to, and the probability of it.
pub(super) type Candidate<A> = ((A, u16), f64);

/// The state of the evaluation of a connection's first packet.
pub(super) struct Evaluation<'a, A: Address, L> {
    /// The source of elements.
    rules: &'a mut L,
    /// The fixed chains.
    chains: BTreeMap<ChainName, Chain>,
    /// The destination of the packet before DNAT.
    frontend: Destination<A>,
    /// The client.
    source: Source<A>,
    /// The endpoint that DNAT has sent the packet to.
    translated: Option<(A, u16)>,
    /// The results of earlier look-ups.
    looked_up: BTreeMap<(SetName, Key<A>), Option<ElementData<A>>>,
    /// The probability that no rule has chosen an endpoint yet.
    undecided: f64,
    /// The look-ups that decided something, in order.
    pub(super) steps: Vec<LookupStep>,
    /// The comment of the first matching element that has one.
    pub(super) service: Option<String>,
    /// The names of the evaluated chains, in order.
    pub(super) trail: Vec<ChainName>,
    /// The endpoints that a dnat statement may choose.
    pub(super) candidates: Vec<Candidate<A>>,
    /// The `loadBalancerSourceRanges` of the frontend, if a rule looked them up.
    pub(super) ranges: Option<Vec<String>>,
    /// The endpoint that session affinity keeps the client at.
    pub(super) pinned: Option<PinnedEndpoint>,
    /// The session affinity timeout, in seconds.
    pub(super) affinity_seconds: Option<u32>,
}

/// Returns the family and name of kube-dnat's table, in nft's words.
pub(super) fn table<A: Address>() -> String {
    format!("{} {TABLE}", layer(A::FAMILY))
}

impl<'a, A: Address, L: Lookup<A>> Evaluation<'a, A, L> {
    /// Prepares the evaluation of the first packet of a connection.
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
            undecided: 1.0,
            steps: Vec::new(),
            service: None,
            trail: Vec::new(),
            candidates: Vec::new(),
            ranges: None,
            pinned: None,
            affinity_seconds: None,
        }
    }

    /// Evaluates the NAT chains at prerouting, or at output for connections of the node itself.
    pub(super) fn dispatch(&mut self) -> Result<Option<ChainEnd>, L::Error> {
        let ranges = |hook| ChainName::Dynamic(DynamicChain::PortRanges(hook));
        let chains = match self.source.kind {
            SourceKind::Node => [
                ChainName::NatOutput,
                ranges(RangesHook::Output),
                ChainName::NatOutputUnserved,
            ],
            SourceKind::Pod | SourceKind::Elsewhere => [
                ChainName::NatPrerouting,
                ranges(RangesHook::Prerouting),
                ChainName::NatPreroutingUnserved,
            ],
        };
        for chain in chains {
            let end = self.chain(chain)?;
            // The kernel calls the later NAT chains only for connections without a translation.
            if end.is_some() || !self.candidates.is_empty() {
                return Ok(end);
            }
        }
        Ok(None)
    }

    /// Evaluates the source NAT chains for a connection to this endpoint, and returns the rule that
    /// masquerades it, if any.
    pub(super) fn masquerading_rule(
        &mut self,
        endpoint: (A, u16),
    ) -> Result<Option<String>, L::Error> {
        self.translated = Some(endpoint);
        // A connection from outside to an endpoint on the node itself does not pass postrouting.
        let ends_here =
            self.source.kind != SourceKind::Node && self.rules.is_local_address(endpoint.0);
        let of_ranges = ChainName::Dynamic(DynamicChain::PortRanges(RangesHook::Postrouting));
        let chains = if ends_here {
            &[ChainName::NatInput][..]
        } else {
            &[of_ranges, ChainName::NatPostrouting]
        };
        for chain in chains {
            if let Some(ChainEnd::Masqueraded(rule)) = self.chain(*chain)? {
                return Ok(Some(rule));
            }
        }
        Ok(None)
    }

    /// Evaluates a chain; `None` means that it returned to its caller.
    fn chain(&mut self, name: ChainName) -> Result<Option<ChainEnd>, L::Error> {
        let rules = if let ChainName::Dynamic(chain) = name {
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

    /// Evaluates a rule of a chain.
    fn rule(&mut self, chain: ChainName, rule: &Rule) -> Result<RuleFlow, L::Error> {
        let mut steps = Vec::new();
        let mut hairpin_only = false;
        let flow = 'rule: {
            for (position, statement) in rule.iter().enumerate() {
                let flow = match statement {
                    Statement::Vmap { fields, map } => {
                        self.verdict(chain, fields, *map, &mut steps)?
                    }
                    Statement::Dnat { fields, map } => {
                        self.dnat(chain, fields, *map, &mut steps)?
                    }
                    Statement::Masquerade if hairpin_only && self.source.address.is_none() => {
                        RuleFlow::End(ChainEnd::Masqueraded(
                            "only hairpin connections (@hairpin)".to_owned(),
                        ))
                    }
                    Statement::Masquerade => {
                        let (matches, _) = rule.split_at(position);
                        let rule = rule_with_matches(chain, matches, A::FAMILY);
                        RuleFlow::End(ChainEnd::Masqueraded(rule))
                    }
                    Statement::RejectTcp if self.frontend.protocol != Protocol::Tcp => {
                        break 'rule RuleFlow::NextRule;
                    }
                    Statement::RejectTcp | Statement::Reject => RuleFlow::End(ChainEnd::Rejected),
                    Statement::Drop => RuleFlow::End(ChainEnd::Dropped(chain)),
                    Statement::Return => RuleFlow::Return,
                    Statement::Jump(chain) => RuleFlow::Jump(*chain),
                    Statement::Goto(chain) => RuleFlow::Goto(*chain),
                    Statement::CtStatusNotDnat
                    | Statement::CtStatusConfirmed
                    | Statement::CtStateNotInvalid
                    | Statement::TcpMidstream
                    | Statement::SourceIsLocal
                    | Statement::DestinationIsLocal
                    | Statement::InputInterface { .. }
                    | Statement::Protocol(_)
                    | Statement::UpdateAffinity { .. }
                    | Statement::DeleteAffinity { .. }
                    | Statement::Lookup { .. } => {
                        match self.matches(chain, statement, &mut steps)? {
                            RuleMatch::Yes => continue,
                            RuleMatch::Hairpin => {
                                hairpin_only = true;
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
        let before_dnat = self.translated.is_none();
        // Source ranges decide the outcome also if none includes the source and no rule matches.
        let restricted = chain == ChainName::Restricted;
        if before_dnat && (restricted || !matches!(flow, RuleFlow::NextRule | RuleFlow::Return)) {
            self.steps.append(&mut steps);
        }
        Ok(flow)
    }

    /// Evaluates a match statement.
    fn matches(
        &mut self,
        chain: ChainName,
        statement: &Statement,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleMatch, L::Error> {
        let (holds, inverted) = match statement {
            Statement::CtStatusNotDnat => (self.translated.is_none(), false),
            // The packet is the first of its connection.
            Statement::CtStatusConfirmed | Statement::TcpMidstream => (false, false),
            Statement::SourceIsLocal => {
                let address = self.source.address;
                let local = address.is_some_and(|address| self.rules.is_local_address(address));
                (self.source.kind == SourceKind::Node || local, false)
            }
            Statement::DestinationIsLocal => {
                (self.rules.is_local_address(self.frontend.address), false)
            }
            Statement::InputInterface { inverted, .. } => {
                (self.source.kind == SourceKind::Pod, *inverted)
            }
            Statement::Protocol(protocol) => (self.frontend.protocol == *protocol, false),
            Statement::Lookup {
                fields,
                set,
                inverted,
            } => match self.is_in(chain, fields, *set, steps)? {
                RuleMatch::Hairpin => return Ok(RuleMatch::Hairpin),
                RuleMatch::Yes => (true, *inverted),
                RuleMatch::No => (false, *inverted),
            },
            Statement::UpdateAffinity { seconds, .. } => {
                self.affinity_seconds = Some(*seconds);
                (true, false)
            }
            Statement::CtStateNotInvalid
            | Statement::DeleteAffinity { .. }
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

    /// Evaluates a look-up in a set.
    fn is_in(
        &mut self,
        chain: ChainName,
        fields: &[LookupField],
        name: SetName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleMatch, L::Error> {
        let matched = |holds| if holds { RuleMatch::Yes } else { RuleMatch::No };
        if set(name).is_ranges() {
            let Some([KeyPart::Address(address)]) =
                self.parts(fields).as_deref().map(|parts| [parts[0]])
            else {
                return Ok(matched(self.source.kind == SourceKind::Pod));
            };
            let contains = |element: &Element<A>| matches!(element.key, Key::Net(net) if A::contains(net, address));
            let found = self.rules.all(name)?.into_iter().find(contains);
            if let Some(element) = &found {
                steps.push(set_step::<A>(chain, name, &element.key.to_string()));
            }
            return Ok(matched(found.is_some()));
        }
        if name == SetName::SourceRanges {
            return self.is_in_source_ranges(chain, steps).map(matched);
        }
        if name == SetName::PortRanges {
            return self.is_in_port_ranges(chain, steps).map(matched);
        }
        match self.parts(fields) {
            Some(parts) => {
                let Some(key) = Key::from_parts(&parts) else {
                    return Ok(RuleMatch::No);
                };
                let found = self.get(name, key)?;
                if let Some(data) = &found {
                    steps.push(element_step(chain, name, key, data));
                }
                Ok(matched(found.is_some()))
            }
            // The set `hairpin` pairs each endpoint with itself: no other Pod can match.
            None if self.source.kind == SourceKind::Pod => {
                let endpoint = self.destination().0;
                let found = self.get(name, Key::Pair(endpoint, endpoint))?;
                Ok(match found {
                    Some(_) => RuleMatch::Hairpin,
                    None => RuleMatch::No,
                })
            }
            None => Ok(RuleMatch::No),
        }
    }

    /// Returns whether the port ranges of the address include the port.
    fn is_in_port_ranges(
        &mut self,
        chain: ChainName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<bool, L::Error> {
        let frontend = self.frontend;
        let elements = self.rules.all(SetName::PortRanges)?;
        let mut keys = elements.iter().map(|element| element.key);
        let found = keys.find(|key| {
            matches!(*key, Key::PortRange(protocol, address, range)
                if (protocol, address) == (frontend.protocol, frontend.address)
                    && range.contains(frontend.port))
        });
        if let Some(key) = found {
            steps.push(set_step::<A>(chain, SetName::PortRanges, &key.to_string()));
        }
        Ok(found.is_some())
    }

    /// Returns whether the `loadBalancerSourceRanges` of the frontend include the source.
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
                allowed |= source.is_none_or(|source| A::contains(net, source));
                ranges.push(net.to_string());
            }
        }
        let found = match &ranges[..] {
            [] => "no range".to_owned(),
            ranges => format!("only from {}", ranges.join(", ")),
        };
        steps.push(set_step::<A>(chain, SetName::SourceRanges, &found));
        self.ranges = Some(ranges);
        Ok(allowed)
    }

    /// Evaluates a verdict map statement.
    fn verdict(
        &mut self,
        chain: ChainName,
        fields: &[LookupField],
        map: SetName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleFlow, L::Error> {
        let Some(key) = self.key(fields) else {
            return Ok(RuleFlow::NextRule);
        };
        let Some(data) = self.get(map, key)? else {
            return Ok(RuleFlow::NextRule);
        };
        steps.push(element_step(chain, map, key, &data));
        if let Some(comment) = &data.comment {
            self.service.get_or_insert_with(|| comment.to_string());
        }
        Ok(match data.value {
            Value::Verdict(verdict) => match verdict.chain() {
                Some(chain) => RuleFlow::Goto(chain),
                None => RuleFlow::End(ChainEnd::Dropped(chain)),
            },
            Value::Nothing | Value::Endpoint(..) | Value::Address(_) => RuleFlow::NextRule,
        })
    }

    /// Evaluates a dnat statement: adds the endpoints of its map to the candidates.
    fn dnat(
        &mut self,
        chain: ChainName,
        fields: &[LookupField],
        map: SetName,
        steps: &mut Vec<LookupStep>,
    ) -> Result<RuleFlow, L::Error> {
        let last = fields.split_last();
        let Some((slot, frontend_fields)) =
            last.and_then(|(last, others)| Some((last.selected_slot()?, others)))
        else {
            self.find_pinned(chain, fields)?;
            return Ok(RuleFlow::NextRule);
        };
        let SelectedSlot { slots, list, .. } = slot;
        let mut keys = Vec::new();
        let selected = self.selected_slots(slot);
        let share = self.undecided / f64::from(selected.end - selected.start);
        let Some(frontend) = self.parts(frontend_fields) else {
            return Ok(RuleFlow::NextRule);
        };
        for number in selected.clone() {
            let parts = [&frontend[..], &[KeyPart::Slot(list.base() + number)]].concat();
            let Some(key) = Key::from_parts(&parts) else {
                continue;
            };
            keys.push(key);
            let value = self.rules.get(map, &key)?.map(|data| data.value);
            let endpoint = match value {
                Some(Value::Endpoint(address, port)) => Some((address, port)),
                Some(Value::Address(address)) => Some((address, self.frontend.port)),
                Some(Value::Nothing | Value::Verdict(_)) | None => None,
            };
            if let Some(endpoint) = endpoint {
                self.add_candidate(endpoint, share);
            }
        }
        if self.candidates.is_empty() {
            return Ok(RuleFlow::NextRule);
        }
        steps.push(LookupStep {
            chain: chain.to_string(),
            found: selection(slot),
            command: format!("nft list chain {} {chain}", table::<A>()),
        });
        steps.push(slots_step(chain, map, list, selected, &keys));
        if self.undecided > f64::EPSILON * f64::from(slots) {
            // An empty slot does not match: the evaluation continues with the next rule.
            self.steps.append(steps);
            return Ok(RuleFlow::NextRule);
        }
        Ok(RuleFlow::End(ChainEnd::Translated))
    }

    /// Returns the numbers of the slots that a rule may select: one, if a hash of a known address
    /// selects it.
    fn selected_slots(&self, SelectedSlot { slots, hash, .. }: SelectedSlot) -> Range<u32> {
        match (hash, self.source.address) {
            (Some(Balance::Source), Some(client)) => {
                let mut bytes = Vec::with_capacity(A::LEN);
                client.push_bytes(&mut bytes);
                let slot = jenkins::slot(&bytes, LookupField::HASH_SEED, slots);
                slot..slot + 1
            }
            _ => 0..slots,
        }
    }

    /// Adds the probability of an endpoint to its candidate.
    fn add_candidate(&mut self, endpoint: (A, u16), probability: f64) {
        let known = self.candidates.iter_mut();
        let known = known.rev().find(|(known, _)| *known == endpoint);
        match known {
            Some((_, sum)) => *sum += probability,
            None => self.candidates.push((endpoint, probability)),
        }
        self.undecided -= probability;
    }

    /// Looks up the endpoint that session affinity keeps the client at.
    fn find_pinned(&mut self, chain: ChainName, fields: &[LookupField]) -> Result<(), L::Error> {
        let Some(key) = self.key(fields) else {
            return Ok(());
        };
        let protocol = self.frontend.protocol;
        if let Some((Value::Endpoint(address, port), left)) = self.rules.pinned(protocol, &key)? {
            let map = SetName::Affinity(protocol);
            self.steps.push(LookupStep {
                chain: chain.to_string(),
                found: format!("@{map}: {key} : {address} . {port}"),
                command: format!("nft get element {} {map} '{{ {key} }}'", table::<A>()),
            });
            self.pinned = Some(PinnedEndpoint {
                endpoint: SocketAddr::new(address.into(), port).to_string(),
                seconds_left: left.as_secs(),
            });
        }
        Ok(())
    }

    /// Looks up an element, and remembers the result for the paths of other candidates.
    fn get(&mut self, name: SetName, key: Key<A>) -> Result<Option<ElementData<A>>, L::Error> {
        if let Some(data) = self.looked_up.get(&(name, key)) {
            return Ok(data.clone());
        }
        let data = self.rules.get(name, &key)?;
        self.looked_up.insert((name, key), data.clone());
        Ok(data)
    }

    /// Returns the current destination of the packet, after DNAT if there was any.
    fn destination(&self) -> (A, u16) {
        let Destination { address, port, .. } = self.frontend;
        self.translated.unwrap_or((address, port))
    }

    /// Builds the key of a look-up from the packet; `None` if a field has no value yet.
    fn key(&self, fields: &[LookupField]) -> Option<Key<A>> {
        Key::from_parts(&self.parts(fields)?)
    }

    /// Returns the values of these fields; `None` if one of them has no value yet.
    fn parts(&self, fields: &[LookupField]) -> Option<Vec<KeyPart<A>>> {
        let (address, port) = self.destination();
        let value = |field: &LookupField| {
            Some(match field {
                LookupField::Protocol => KeyPart::Protocol(self.frontend.protocol),
                LookupField::Saddr => KeyPart::Address(self.source.address?),
                LookupField::Daddr => KeyPart::Address(address),
                LookupField::Dport | LookupField::TcpDport => KeyPart::Port(port),
                LookupField::OriginalDaddr => KeyPart::Address(self.frontend.address),
                LookupField::OriginalDport => KeyPart::Port(self.frontend.port),
                LookupField::Direction => KeyPart::Original,
                LookupField::Random { .. } | LookupField::Hash { .. } => return None,
            })
        };
        fields.iter().map(value).collect()
    }
}

/// Returns how a rule selects a slot, in words.
fn selection(SelectedSlot { slots, hash, .. }: SelectedSlot) -> String {
    match hash {
        Some(Balance::Maglev) => format!("one of {slots} by a hash of source address and port"),
        Some(Balance::Source) => format!("one of {slots} by a hash of the source address"),
        None => format!("one of {slots} at random"),
    }
}

/// Returns the step for an element that matched.
fn element_step<A: Address>(
    chain: ChainName,
    name: SetName,
    key: Key<A>,
    data: &ElementData<A>,
) -> LookupStep {
    let value = match data.value {
        Value::Nothing => String::new(),
        Value::Verdict(verdict) => format!(" : {verdict}"),
        Value::Endpoint(address, port) => format!(" : {address} . {port}"),
        Value::Address(address) => format!(" : {address}"),
    };
    LookupStep {
        chain: chain.to_string(),
        found: format!("@{name}: {key}{value}"),
        command: format!("nft get element {} {name} '{{ {key} }}'", table::<A>()),
    }
}

/// Returns the step for a set whose elements cannot be read one by one.
fn set_step<A: Address>(chain: ChainName, name: SetName, found: &str) -> LookupStep {
    LookupStep {
        chain: chain.to_string(),
        found: format!("@{name}: {found}"),
        command: format!("nft list set {} {name}", table::<A>()),
    }
}

/// Returns the step for the slots of a list of endpoints.
fn slots_step<A: Address>(
    chain: ChainName,
    map: SetName,
    list: SlotRange,
    slots: Range<u32>,
    keys: &[Key<A>],
) -> LookupStep {
    /// The maximum number of keys in a command line; above, the command greps the map.
    const MAX_KEYS: usize = 16;
    let keys: Vec<_> = keys.iter().map(Key::to_string).collect();
    let (from, after) = (list.base() + slots.start, list.base() + slots.end);
    let found = match after - from {
        1 => format!("@{map}: slot {from}"),
        _ => format!("@{map}: slots {from} to {}", after - 1),
    };
    let table = table::<A>();
    let command = if let [key, _, ..] = &keys[..]
        && keys.len() > MAX_KEYS
        && let Some((frontend, _)) = key.rsplit_once(' ')
    {
        format!("nft list map {table} {map} | grep '{frontend} '")
    } else {
        format!("nft get element {table} {map} '{{ {} }}'", keys.join(", "))
    };
    LookupStep {
        chain: chain.to_string(),
        found,
        command,
    }
}

/// Names a rule by its chain and its matches, in nft's words.
fn rule_with_matches(chain: ChainName, matches: &[Statement], family: Family) -> String {
    match matches {
        [] => chain.to_string(),
        matches => format!("{chain}: {}", rule_text(matches, family)),
    }
}
