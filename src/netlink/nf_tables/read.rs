//! Reads our table back from the kernel.

use std::collections::{BTreeMap, BTreeSet};

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use super::{NFT_DATA_VERDICT, table};
use crate::netlink::Error;
use crate::netlink::ffi::Rule;
use crate::netlink::nf_tables::element::{bound, element, ranges};
use crate::netlink::nf_tables::encode::{family_number, rules};
use crate::netlink::socket::attribute::{Attribute, Attributes};
use crate::netlink::socket::{DumpError, Socket};
use crate::netlink::uapi::{
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY,
    NFTA_SET_DATA_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_DESC, NFTA_SET_DESC_SIZE,
    NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_EXPR, NFTA_SET_FLAGS,
    NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_USERDATA, NFTA_TABLE,
};
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{
    Chain, DynamicChain, Element, ElementType, Key, Program, Set, SetName, TABLE, Table, Value,
    program, set,
};

/// How often a dump is asked for again because the ruleset changed meanwhile.
const ATTEMPTS: usize = 20;

/// Reads the table of family `A`.
pub(crate) fn read<A: Address>(
    socket: &mut Socket,
    fixed: &Program,
) -> Result<TableStatus<Table<A>>, Error> {
    read_by(socket, |reader| reader.read(fixed))
}

/// Reads all of it but elements.
pub(crate) fn read_shape<A: Address>(
    socket: &mut Socket,
    fixed: &Program,
) -> Result<TableStatus<Table<A>>, Error> {
    read_by(socket, |reader| reader.shape(fixed))
}

/// Reads nothing but the elements of these sets and maps, whatever else is there.
pub(crate) fn read_elements<A: Address>(
    socket: &mut Socket,
    shape: &Table<A>,
    names: &[SetName],
) -> Result<TableStatus<Table<A>>, Error> {
    read_by(socket, |reader| {
        reader.table = shape.clone();
        names.iter().try_for_each(|name| reader.elements(*name))
    })
}

fn read_by<A: Address>(
    socket: &mut Socket,
    read: impl Fn(&mut TableReader<'_, A>) -> Result<(), ReadStop>,
) -> Result<TableStatus<Table<A>>, Error> {
    for _ in 0..ATTEMPTS {
        let mut reader = TableReader::<A> {
            socket: &mut *socket,
            table: Table::default(),
        };
        match read(&mut reader) {
            Ok(()) => return Ok(TableStatus::Ours(reader.table)),
            Err(ReadStop::NoTable) => return Ok(TableStatus::Missing),
            Err(ReadStop::Foreign(why)) => return Ok(TableStatus::Foreign(why)),
            Err(ReadStop::Failed(error)) => return Err(error),
            Err(ReadStop::Changed) => {}
        }
    }
    Err(Error::Lost)
}

/// Why reading ends early.
enum ReadStop {
    NoTable,
    Foreign(String),
    Changed,
    Failed(Error),
}

impl From<DumpError> for ReadStop {
    fn from(dump: DumpError) -> Self {
        match dump {
            DumpError::Rejected(Errno::ENOENT) => Self::NoTable,
            DumpError::Rejected(Errno::EINTR | Errno::EAGAIN) => Self::Changed,
            dump @ (DumpError::Rejected(_) | DumpError::Failed(_)) => {
                Self::Failed(dump.error("dump the table"))
            }
        }
    }
}

fn foreign<T>(why: impl Into<String>) -> Result<T, ReadStop> {
    Err(ReadStop::Foreign(why.into()))
}

struct TableReader<'a, A: Address> {
    socket: &'a mut Socket,
    table: Table<A>,
}

impl<A: Address> TableReader<'_, A> {
    fn read(&mut self, fixed: &Program) -> Result<(), ReadStop> {
        self.shape(fixed)?;
        // What packets added is not ours to compare.
        for name in SetName::all().filter(|name| set(*name).dynamic.is_none()) {
            self.elements(name)?;
        }
        Ok(())
    }

    fn shape(&mut self, fixed: &Program) -> Result<(), ReadStop> {
        self.sets(fixed)?;
        let chains = self.chains(fixed)?;
        self.rules(&chains)
    }

    /// Dumps objects of our table and gives the attributes of each to `each`.
    fn dump(
        &mut self,
        kind: i32,
        texts: &[(u16, &str)],
        mut each: impl FnMut(Attributes<'_>, &[u8]),
    ) -> Result<(), ReadStop> {
        let family = family_number(A::FAMILY);
        let whole = self.socket.dump(kind, family, texts, |message| {
            let attributes = message.attributes();
            let table = attributes.get(NFTA_TABLE).and_then(Attribute::text);
            if table == Some(TABLE) {
                each(attributes, message.bytes);
            }
        })?;
        if whole {
            Ok(())
        } else {
            Err(ReadStop::Changed)
        }
    }

    fn sets(&mut self, fixed: &Program) -> Result<(), ReadStop> {
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
                match table::find(self.socket, A::FAMILY).map_err(ReadStop::Failed)? {
                    Some(_) => foreign("it has no sets"),
                    None => Err(ReadStop::NoTable),
                }
            }
            None if count < SetName::all().count() => foreign("a set is missing"),
            None => Ok(()),
        }
    }

    /// Returns the chains that the table should have: the fixed ones, and the balance chains
    /// found.
    fn chains(&mut self, fixed: &Program) -> Result<Vec<Chain>, ReadStop> {
        let mut expected = program(fixed);
        let mut found = BTreeMap::new();
        self.dump(
            libc::NFT_MSG_GETCHAIN,
            &[(NFTA_TABLE, TABLE)],
            |attributes, _| {
                let name = attributes.get(NFTA_CHAIN_NAME).and_then(Attribute::text);
                found.insert(
                    name.unwrap_or_default().to_owned(),
                    ChainHook::read(&attributes),
                );
            },
        )?;
        for chain in &expected {
            let name = chain.name.to_string();
            if found.remove(&name) != Some(ChainHook::of(chain)) {
                return foreign(format!("chain {name} is not as this version makes it"));
            }
        }
        let mut on_demand = BTreeSet::new();
        for (name, hooked) in found {
            match name.parse::<DynamicChain>() {
                Ok(chain) if hooked == ChainHook::default() => {
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

    fn rules(&mut self, chains: &[Chain]) -> Result<(), ReadStop> {
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

    fn elements(&mut self, name: SetName) -> Result<(), ReadStop> {
        let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
        let mut elements = Vec::new();
        let mut bounds = BTreeSet::new();
        let mut wrong = false;
        self.dump(libc::NFT_MSG_GETSETELEM, &texts, |attributes, _| {
            let list = attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS);
            for attribute in list.into_iter().flat_map(Attribute::nested) {
                let attributes = attribute.nested();
                if set(name).is_ranges() {
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
        ElementType::Nothing => (0, 0),
        ElementType::Verdict => (NFT_DATA_VERDICT, 0),
        ElementType::Endpoint => (Set::endpoint_type(family), Set::endpoint_len(family)),
    };
    let interval = number(NFTA_SET_FLAGS) & libc::NFT_SET_INTERVAL.unsigned_abs() != 0;
    let size = found.get(NFTA_SET_DESC).map(Attribute::nested);
    let size = size.and_then(|size| size.get(NFTA_SET_DESC_SIZE)?.number());
    let user_data = found.get(NFTA_SET_USERDATA).map(|data| data.value);
    number(NFTA_SET_KEY_TYPE) == declared.key_type(family)
        && number(NFTA_SET_KEY_LEN) == declared.key_len(family)
        && number(NFTA_SET_DATA_TYPE) == data_type
        // The kernel gives the length of a verdict in its own terms.
        && (declared.data == ElementType::Verdict || number(NFTA_SET_DATA_LEN) == data_len)
        && interval == declared.is_interval()
        && size == declared.dynamic
        && found.get(NFTA_SET_EXPR).is_some() == declared.counter
        && user_data == Some(&declared.user_data(family)[..])
}

/// How a chain is hooked; all empty for a chain that others call.
#[derive(Debug, Default, PartialEq, Eq)]
struct ChainHook {
    kind: Option<String>,
    hook: Option<u32>,
    priority: Option<i32>,
}

impl ChainHook {
    fn of(chain: &Chain) -> Self {
        let Some((hook, priority)) = chain.hook else {
            return Self::default();
        };
        Self {
            kind: Some("nat".to_owned()),
            hook: Some(hook.number()),
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
