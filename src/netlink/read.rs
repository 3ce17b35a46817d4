//! Reads our table back from the kernel.

use std::collections::{BTreeMap, BTreeSet};

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use super::attribute::{Attribute, Attributes};
use super::encode::{family_number, hook_number, rules};
use super::ffi::Rule;
use super::socket::{Dump, Socket};
use super::{Error, NFT_DATA_VERDICT, table};
use crate::model::addr::Family;
use crate::model::{Address, Protocol};
use crate::ruleset::{
    Chain, ChainType, Data, Element, Key, OnDemand, Program, Set, SetName, TABLE, Table, Value,
    Verdict, program, set,
};

/// Attributes of nf_tables (`linux/netfilter/nf_tables.h`); every kind of object has its table's
/// name first.
const NFTA_TABLE: i32 = 1;
const NFTA_CHAIN_NAME: i32 = 3;
const NFTA_CHAIN_HOOK: i32 = 4;
const NFTA_CHAIN_TYPE: i32 = 7;
const NFTA_HOOK_HOOKNUM: i32 = 1;
const NFTA_HOOK_PRIORITY: i32 = 2;
const NFTA_SET_NAME: i32 = 2;
const NFTA_SET_FLAGS: i32 = 3;
const NFTA_SET_KEY_TYPE: i32 = 4;
const NFTA_SET_KEY_LEN: i32 = 5;
const NFTA_SET_DATA_TYPE: i32 = 6;
const NFTA_SET_DATA_LEN: i32 = 7;
const NFTA_SET_USERDATA: i32 = 13;
const NFTA_SET_EXPR: i32 = 17;
const NFTA_SET_ELEM_LIST_SET: i32 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: i32 = 3;
pub(super) const NFTA_SET_ELEM_KEY: i32 = 1;
const NFTA_SET_ELEM_DATA: i32 = 2;
const NFTA_SET_ELEM_FLAGS: i32 = 3;
const NFTA_SET_ELEM_USERDATA: i32 = 6;
const NFTA_SET_ELEM_KEY_END: i32 = 10;
pub(super) const NFTA_DATA_VALUE: i32 = 1;
const NFTA_DATA_VERDICT: i32 = 2;
const NFTA_VERDICT_CODE: i32 = 1;
const NFTA_VERDICT_CHAIN: i32 = 2;

/// How often a dump is asked for again because the ruleset changed meanwhile.
const ATTEMPTS: usize = 20;

/// What stands in the kernel under our table's name.
#[derive(Debug)]
pub enum Found<A: Address> {
    /// No such table.
    Nothing,
    /// A table that is not of the shape this version makes; why.
    Foreign(String),
    /// Our table.
    Ours(Table<A>),
}

/// Reads the table of family `A`.
pub(super) fn read<A: Address>(socket: &mut Socket, fixed: &Program) -> Result<Found<A>, Error> {
    for _ in 0..ATTEMPTS {
        let mut reader = Reader::<A> {
            socket: &mut *socket,
            table: Table::default(),
        };
        match reader.read(fixed) {
            Ok(()) => return Ok(Found::Ours(reader.table)),
            Err(Stop::NoTable) => return Ok(Found::Nothing),
            Err(Stop::Foreign(why)) => return Ok(Found::Foreign(why)),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Changed) => {}
        }
    }
    Err(Error::Lost)
}

/// A (client, frontend), and the endpoint it has.
pub type Client<A> = (Key<A>, Value<A>);

/// Reads which endpoint the clients of a protocol have.
pub(super) fn affinity<A: Address>(
    socket: &mut Socket,
    protocol: Protocol,
) -> Result<Vec<Client<A>>, Error> {
    let name = SetName::Affinity(protocol);
    let mut clients = Vec::new();
    let dumped = changing(socket, A::FAMILY, name, |attributes| {
        clients.extend(element(name, attributes).map(|element| (element.key, element.value)));
    });
    match dumped {
        Ok(()) | Err(Dump::Refused(Errno::ENOENT)) => Ok(clients),
        Err(Dump::Refused(errno)) => Err(Error::errno("dump the affinity of clients")(errno)),
        Err(Dump::Failed(error)) => Err(error),
    }
}

/// Dumps a set that packets change all the while, and gives the attributes of each element to
/// `each`: an incomplete dump is as good as a dump of it gets.
pub(super) fn changing(
    socket: &mut Socket,
    family: Family,
    name: SetName,
    mut each: impl FnMut(&Attributes<'_>),
) -> Result<(), Dump> {
    let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
    let family = family_number(family);
    let dumped = socket.dump(libc::NFT_MSG_GETSETELEM, family, &texts, |message| {
        let list = message.attributes().get(NFTA_SET_ELEM_LIST_ELEMENTS);
        for element in list.into_iter().flat_map(Attribute::nested) {
            each(&element.nested());
        }
    });
    dumped.map(|_whole| ())
}

/// Why reading ends early.
enum Stop {
    NoTable,
    Foreign(String),
    Changed,
    Failed(Error),
}

impl From<Dump> for Stop {
    fn from(dump: Dump) -> Self {
        match dump {
            Dump::Refused(Errno::ENOENT) => Self::NoTable,
            Dump::Refused(Errno::EINTR | Errno::EAGAIN) => Self::Changed,
            Dump::Refused(Errno::EPERM) => Self::Failed(Error::Permission),
            Dump::Refused(errno) => Self::Failed(Error::errno("dump the table")(errno)),
            Dump::Failed(error) => Self::Failed(error),
        }
    }
}

fn foreign<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Foreign(why.into()))
}

struct Reader<'a, A: Address> {
    socket: &'a mut Socket,
    table: Table<A>,
}

impl<A: Address> Reader<'_, A> {
    fn read(&mut self, fixed: &Program) -> Result<(), Stop> {
        self.sets(fixed)?;
        let chains = self.chains(fixed)?;
        self.rules(&chains)?;
        // What packets added is not ours to compare.
        let ours = SetName::ALL.into_iter();
        for name in ours.filter(|name| set(*name).dynamic.is_none()) {
            self.elements(name)?;
        }
        Ok(())
    }

    /// Dumps objects of our table and gives the attributes of each to `each`.
    fn dump(
        &mut self,
        kind: i32,
        texts: &[(i32, &str)],
        mut each: impl FnMut(Attributes<'_>, &[u8]),
    ) -> Result<(), Stop> {
        let family = family_number(A::FAMILY);
        let whole = self.socket.dump(kind, family, texts, |message| {
            let attributes = message.attributes();
            let table = attributes.get(NFTA_TABLE).and_then(Attribute::text);
            if table == Some(TABLE) {
                each(attributes, message.bytes);
            }
        })?;
        if whole { Ok(()) } else { Err(Stop::Changed) }
    }

    fn sets(&mut self, fixed: &Program) -> Result<(), Stop> {
        let mut wrong = None;
        let mut count = 0;
        self.dump(
            libc::NFT_MSG_GETSET,
            &[(NFTA_TABLE, TABLE)],
            |attributes, _| {
                let name = attributes.get(NFTA_SET_NAME).and_then(Attribute::text);
                let name = name.unwrap_or_default();
                match SetName::parse(name) {
                    Some(known) if is_declared(&fixed.set(known), &attributes, A::FAMILY) => {
                        count += 1;
                    }
                    _ => wrong = Some(format!("set {name} is not as this version declares it")),
                }
            },
        )?;
        match wrong {
            Some(wrong) => foreign(wrong),
            // A table without sets: the kernel has no error for a table that is not there.
            None if count == 0 => {
                match table::find(self.socket, A::FAMILY).map_err(Stop::Failed)? {
                    Some(_) => foreign("it has no sets"),
                    None => Err(Stop::NoTable),
                }
            }
            None if count < SetName::ALL.len() => foreign("a set is missing"),
            None => Ok(()),
        }
    }

    /// Returns the chains that the table should have: the fixed ones, and the balance chains
    /// found.
    fn chains(&mut self, fixed: &Program) -> Result<Vec<Chain>, Stop> {
        let mut expected = program(fixed);
        let mut found = BTreeMap::new();
        self.dump(
            libc::NFT_MSG_GETCHAIN,
            &[(NFTA_TABLE, TABLE)],
            |attributes, _| {
                let name = attributes.get(NFTA_CHAIN_NAME).and_then(Attribute::text);
                found.insert(
                    name.unwrap_or_default().to_owned(),
                    Hooked::read(&attributes),
                );
            },
        )?;
        for chain in &expected {
            let name = chain.name.to_string();
            if found.remove(&name) != Some(Hooked::of(chain)) {
                return foreign(format!("chain {name} is not as this version makes it"));
            }
        }
        let mut on_demand = BTreeSet::new();
        for (name, hooked) in found {
            match name.parse::<OnDemand>() {
                Ok(chain) if hooked == Hooked::default() => {
                    expected.push(chain.chain());
                    on_demand.insert(chain);
                }
                _ => return foreign(format!("chain {name} is not one of ours")),
            }
        }
        // In order: a chain comes after the one it goes to.
        for chain in on_demand {
            if let Err(error) = self.table.add_chain(chain) {
                return foreign(error.to_string());
            }
        }
        Ok(expected)
    }

    fn rules(&mut self, chains: &[Chain]) -> Result<(), Stop> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        self.dump(
            libc::NFT_MSG_GETRULE,
            &[(NFTA_TABLE, TABLE)],
            |_, message| {
                // What cannot be parsed leaves its chain a rule short.
                if let Some(rule) = Rule::parse(message) {
                    found.entry(rule.chain()).or_default().push(rule.text());
                }
            },
        )?;
        for chain in chains {
            let name = chain.name.to_string();
            let expected = rules(chain, A::FAMILY).map(|rule| rule.text());
            let found = found.remove(&name).unwrap_or_default();
            if !expected.eq(found) {
                return foreign(format!(
                    "the rules of chain {name} are not those of this version"
                ));
            }
        }
        Ok(())
    }

    fn elements(&mut self, name: SetName) -> Result<(), Stop> {
        let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
        let mut elements = Vec::new();
        let mut bounds = BTreeSet::new();
        let mut wrong = false;
        self.dump(libc::NFT_MSG_GETSETELEM, &texts, |attributes, _| {
            let list = attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS);
            for attribute in list.into_iter().flat_map(Attribute::nested) {
                let attributes = attribute.nested();
                if set(name).interval && set(name).key.len() == 1 {
                    let bound = bound::<A>(&attributes);
                    wrong |= bound.is_none();
                    bounds.extend(bound);
                } else {
                    let element = element(name, &attributes);
                    wrong |= element.is_none();
                    elements.extend(element);
                }
            }
        })?;
        for net in ranges(&bounds) {
            elements.push(Element {
                set: name,
                key: Key::Net(net),
                value: Value::Nothing,
                comment: None,
            });
        }
        for element in elements {
            wrong |= self.table.add(element).is_err();
        }
        if wrong {
            foreign(format!("an element of {name} is not one of ours"))
        } else {
            Ok(())
        }
    }
}

/// Whether a set in the kernel is as we declare it.
fn is_declared(declared: &Set, found: &Attributes<'_>, family: Family) -> bool {
    let number = |attribute| {
        found
            .get(attribute)
            .and_then(Attribute::number)
            .unwrap_or(0)
    };
    let (data_type, data_len) = match declared.data {
        Data::Nothing => (0, 0),
        Data::Verdict => (NFT_DATA_VERDICT, 0),
        Data::Endpoint => (Set::endpoint_type(family), Set::endpoint_len(family)),
    };
    let interval = number(NFTA_SET_FLAGS) & libc::NFT_SET_INTERVAL.unsigned_abs() != 0;
    let user_data = found.get(NFTA_SET_USERDATA).map(|data| data.value);
    number(NFTA_SET_KEY_TYPE) == declared.key_type(family)
        && number(NFTA_SET_KEY_LEN) == declared.key_len(family)
        && number(NFTA_SET_DATA_TYPE) == data_type
        // The kernel gives the length of a verdict in its own terms.
        && (declared.data == Data::Verdict || number(NFTA_SET_DATA_LEN) == data_len)
        && interval == declared.interval
        && found.get(NFTA_SET_EXPR).is_some() == declared.counter
        && user_data == Some(&declared.user_data(family)[..])
}

/// The chain that an element of a verdict map goes to.
pub(super) fn chain(attributes: &Attributes<'_>) -> Option<String> {
    let data = attributes.get(NFTA_SET_ELEM_DATA)?.nested();
    let verdict = data.get(NFTA_DATA_VERDICT)?.nested();
    verdict.get(NFTA_VERDICT_CHAIN)?.text().map(str::to_owned)
}

/// The comment of an element.
pub(super) fn comment(attributes: &Attributes<'_>) -> Option<String> {
    let data = attributes.get(NFTA_SET_ELEM_USERDATA)?;
    // Kind and length, then a text with a NUL: see `encode::comment_data`.
    let text = data.value.get(2..)?.strip_suffix(&[0])?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// How a chain is hooked; all empty for a chain that others call.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hooked {
    kind: Option<String>,
    hook: Option<u32>,
    priority: Option<i32>,
}

impl Hooked {
    fn of(chain: &Chain) -> Self {
        let Some((kind, hook, priority)) = chain.hook else {
            return Self::default();
        };
        let kind = match kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        Self {
            kind: Some(kind.to_owned()),
            hook: Some(hook_number(hook)),
            priority: Some(priority),
        }
    }

    fn read(attributes: &Attributes<'_>) -> Self {
        let hook = attributes.get(NFTA_CHAIN_HOOK).map(Attribute::nested);
        let number = |kind| hook.as_ref()?.get(kind)?.number();
        let kind = attributes.get(NFTA_CHAIN_TYPE).and_then(Attribute::text);
        Self {
            kind: kind.map(str::to_owned),
            hook: number(NFTA_HOOK_HOOKNUM),
            priority: number(NFTA_HOOK_PRIORITY).map(u32::cast_signed),
        }
    }
}

/// The element of a set or map that is no interval set; `None` if it is not one of ours.
fn element<A: Address>(name: SetName, attributes: &Attributes<'_>) -> Option<Element<A>> {
    let value_of = |kind| attributes.get(kind)?.nested().get(NFTA_DATA_VALUE);
    let start = value_of(NFTA_SET_ELEM_KEY)?.value;
    let key = match value_of(NFTA_SET_ELEM_KEY_END) {
        Some(end) => Key::range_from_bytes(start, end.value)?,
        None => Key::from_bytes(name, start)?,
    };
    let value = match set(name).data {
        Data::Nothing => Value::Nothing,
        Data::Endpoint => Value::endpoint_from_bytes(value_of(NFTA_SET_ELEM_DATA)?.value)?,
        Data::Verdict => {
            let data = attributes.get(NFTA_SET_ELEM_DATA)?.nested();
            Value::Verdict(verdict(&data.get(NFTA_DATA_VERDICT)?.nested())?)
        }
    };
    let comment = match attributes.get(NFTA_SET_ELEM_USERDATA) {
        Some(_) => Some(comment(attributes)?.into()),
        None => None,
    };
    Some(Element {
        set: name,
        key,
        value,
        comment,
    })
}

fn verdict(attributes: &Attributes<'_>) -> Option<Verdict> {
    match attributes.get(NFTA_VERDICT_CODE)?.number()?.cast_signed() {
        libc::NF_DROP => Some(Verdict::Drop),
        libc::NFT_GOTO => Verdict::goto(attributes.get(NFTA_VERDICT_CHAIN)?.text()?),
        _ => None,
    }
}

/// Where a range of an interval set starts (`true`), or the address after its end (`false`). In
/// order, the end of a range comes before the start of the next at the same address.
fn bound<A: Address>(attributes: &Attributes<'_>) -> Option<(A, bool)> {
    let key = attributes.get(NFTA_SET_ELEM_KEY)?.nested();
    let address = A::from_bytes(key.get(NFTA_DATA_VALUE)?.value)?;
    let flags = attributes.get(NFTA_SET_ELEM_FLAGS);
    let flags = flags.and_then(Attribute::number).unwrap_or(0);
    let end = flags & libc::NFT_SET_ELEM_INTERVAL_END.unsigned_abs() != 0;
    Some((address, !end))
}

fn ranges<A: Address>(bounds: &BTreeSet<(A, bool)>) -> Vec<A::Net> {
    let mut nets = Vec::new();
    let mut start = None;
    for (address, starts) in bounds {
        match (starts, start.take()) {
            (true, _) => start = Some(*address),
            (false, Some(first)) => nets.extend(A::range(first, Some(*address))),
            // nft marks the beginning of the space as the end of nothing.
            (false, None) => {}
        }
    }
    nets.extend(start.into_iter().flat_map(|first| A::range(first, None)));
    nets
}
