//! Reads our table back from the kernel.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::keyed::{self, ElementKey};
use super::table;
use crate::netlink::Error;
use crate::netlink::ffi::Rule;
use crate::netlink::nf_tables::element::{elements, parse, parse_bound, ranges};
use crate::netlink::nf_tables::encode::{family_number, rules};
use crate::netlink::socket::attribute::{Attribute, Attributes, MalformedMessage};
use crate::netlink::socket::{DumpConsistency, RequestError, Socket};
use crate::netlink::uapi::nf_tables::{
    NFT_DATA_VERDICT, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM,
    NFT_SET_INTERVAL, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM,
    NFTA_HOOK_PRIORITY, NFTA_RULE_CHAIN, NFTA_SET_DATA_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_DESC,
    NFTA_SET_DESC_SIZE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_EXPR, NFTA_SET_FLAGS, NFTA_SET_KEY_LEN,
    NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_USERDATA, NFTA_TABLE,
};
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{
    Chain, DynamicChain, Element, ElementType, Key, Program, Set, SetName, TABLE, Table, Value,
    program, set,
};

/// The number of attempts to read the table while others change the ruleset.
const ATTEMPTS: usize = 20;

/// The name of an object whose name is not text; kube-dnat makes no such object.
const NOT_UTF8: &str = "(not UTF-8)";

/// Reads the table of family `A`.
pub(crate) fn read<A: Address>(
    socket: &mut Socket,
    fixed: &Program,
) -> Result<TableStatus<Table<A>>, Error> {
    read_by(socket, |reader| reader.read(fixed))
}

/// Reads the table of family `A` without the elements that [`read_keys`] reads.
pub(crate) fn read_without_keyed<A: Address>(
    socket: &mut Socket,
    fixed: &Program,
) -> Result<TableStatus<Table<A>>, Error> {
    read_by(socket, |reader| {
        reader.shape(fixed)?;
        reader.all_elements(|name| !name.has_service_keys())
    })
}

/// A socket that reads elements by their keys.
pub struct KeyReader<'a> {
    socket: &'a mut Socket,
}

impl<'a> KeyReader<'a> {
    pub(super) fn new(socket: &'a mut Socket) -> Self {
        Self { socket }
    }

    /// Reads the elements that exist of these keys, in time linear in their number.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn read<A: Address>(
        &mut self,
        keys: &[ElementKey<A>],
    ) -> Result<TableStatus<Vec<Element<A>>>, Error> {
        read_keys(self.socket, keys)
    }
}

/// Reads the elements that exist of these keys.
pub(crate) fn read_keys<A: Address>(
    socket: &mut Socket,
    keys: &[ElementKey<A>],
) -> Result<TableStatus<Vec<Element<A>>>, Error> {
    let mut elements = Vec::with_capacity(keys.len());
    let mut wrong = None;
    keyed::read(socket, keys, |set, element| match element {
        Some(element) => elements.push(element),
        None => wrong = Some(set),
    })?;
    Ok(match wrong {
        Some(set) => TableStatus::Foreign(not_ours(set)),
        None => TableStatus::Ours(elements),
    })
}

/// Returns why a table with such an element of a set is not as this version makes it.
fn not_ours(set: SetName) -> String {
    format!("an element of {set} is not one of ours")
}

/// Reads the table of family `A` without its elements.
pub(crate) fn read_shape<A: Address>(
    socket: &mut Socket,
    fixed: &Program,
) -> Result<TableStatus<Table<A>>, Error> {
    read_by(socket, |reader| reader.shape(fixed))
}

/// Reads the elements of these sets and maps into a table of this shape, and does not check the
/// rest of the table.
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

/// Reads a table, again if the ruleset changes meanwhile.
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
    /// The table does not exist.
    NoTable,
    /// The table is not as this version makes it, for this reason.
    Foreign(String),
    /// The ruleset changed during a dump.
    Changed,
    /// The kernel does not dump the table.
    Failed(Error),
}

impl From<RequestError> for ReadStop {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Rejected(Errno::ENOENT) => Self::NoTable,
            RequestError::Rejected(Errno::EINTR | Errno::EAGAIN) => Self::Changed,
            error @ (RequestError::Rejected(_) | RequestError::Failed(_)) => {
                Self::Failed(error.error("dump the table"))
            }
        }
    }
}

/// Ends reading, because the table is not as this version makes it.
fn foreign<T>(why: impl Into<String>) -> Result<T, ReadStop> {
    Err(ReadStop::Foreign(why.into()))
}

/// Reads a table, and compares it with what this version makes.
struct TableReader<'a, A: Address> {
    socket: &'a mut Socket,
    table: Table<A>,
}

impl<A: Address> TableReader<'_, A> {
    /// Reads everything but the elements of dynamic sets.
    fn read(&mut self, fixed: &Program) -> Result<(), ReadStop> {
        self.shape(fixed)?;
        self.all_elements(|_| true)
    }

    /// Reads the elements of the sets that are not dynamic, if they are also `wanted`.
    ///
    /// Packets add the elements of dynamic sets, which have no desired state to compare with.
    fn all_elements(&mut self, wanted: impl Fn(SetName) -> bool) -> Result<(), ReadStop> {
        for name in SetName::all().filter(|name| set(*name).dynamic.is_none() && wanted(*name)) {
            self.elements(name)?;
        }
        Ok(())
    }

    /// Reads everything but elements.
    fn shape(&mut self, fixed: &Program) -> Result<(), ReadStop> {
        self.sets(fixed)?;
        let chains = self.chains(fixed)?;
        self.rules(&chains)
    }

    /// Dumps objects of our table, and passes the attributes and the message of each to `each`.
    fn dump(
        &mut self,
        kind: u8,
        texts: &[(u16, &str)],
        mut each: impl FnMut(Attributes<'_>, &[u8]) -> Result<(), MalformedMessage>,
    ) -> Result<(), ReadStop> {
        let family = family_number(A::FAMILY);
        let dumped = self.socket.dump_nftables(kind, family, texts, |message| {
            let attributes = message.attributes();
            if text(&attributes, NFTA_TABLE)? == TABLE {
                each(attributes, message.bytes)?;
            }
            Ok(())
        })?;
        match dumped {
            DumpConsistency::Consistent => Ok(()),
            DumpConsistency::Inconsistent => Err(ReadStop::Changed),
        }
    }

    /// Checks the declarations of the sets and maps.
    fn sets(&mut self, fixed: &Program) -> Result<(), ReadStop> {
        let mut wrong = None;
        let mut count = 0;
        self.dump(NFT_MSG_GETSET, &[(NFTA_TABLE, TABLE)], |attributes, _| {
            let name = text(&attributes, NFTA_SET_NAME)?;
            match SetName::parse(name) {
                Some(known) if is_declared(&fixed.set(known), &attributes, A::FAMILY) => {
                    count += 1;
                }
                _ => wrong = Some(format!("set {name} is not as this version declares it")),
            }
            Ok(())
        })?;
        match wrong {
            Some(wrong) => foreign(wrong),
            // The kernel reports no error for a table that does not exist.
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

    /// Returns the chains that the table should have: the fixed chains, and the dynamic chains that
    /// it has.
    fn chains(&mut self, fixed: &Program) -> Result<Vec<Chain>, ReadStop> {
        let mut expected = program(fixed);
        let mut found = BTreeMap::new();
        self.dump(NFT_MSG_GETCHAIN, &[(NFTA_TABLE, TABLE)], |attributes, _| {
            let name = text(&attributes, NFTA_CHAIN_NAME)?;
            found.insert(name.to_owned(), ChainHook::read(&attributes));
            Ok(())
        })?;
        for chain in &expected {
            let name = chain.name.to_string();
            if found.remove(&name) != Some(ChainHook::expected(chain)) {
                return foreign(format!("chain {name} is not as this version makes it"));
            }
        }
        let mut dynamic = BTreeSet::new();
        for (name, hook) in found {
            match name.parse::<DynamicChain>() {
                Ok(chain) if hook == ChainHook::expected(&chain.chain()) => {
                    expected.push(chain.chain());
                    dynamic.insert(chain);
                }
                _ => return foreign(format!("chain {name} is not one of ours")),
            }
        }
        // In ascending order, a chain comes after the chain that it goes to.
        for chain in dynamic {
            if let Err(error) = self.table.add_chain(chain) {
                return foreign(error.to_string());
            }
        }
        Ok(expected)
    }

    /// Checks the rules of the chains.
    fn rules(&mut self, chains: &[Chain]) -> Result<(), ReadStop> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        self.dump(
            NFT_MSG_GETRULE,
            &[(NFTA_TABLE, TABLE)],
            |attributes, message| {
                let chain = text(&attributes, NFTA_RULE_CHAIN)?;
                // No rule of ours has an empty text.
                let rule = Rule::parse(message).map_or_else(String::new, |rule| rule.text());
                found.entry(chain.to_owned()).or_default().push(rule);
                Ok(())
            },
        )?;
        for chain in chains {
            let name = chain.name.to_string();
            let expected = rules(chain, A::FAMILY).map(|rule| rule.text());
            // The dump has no message of a chain without rules.
            let found = found.remove(&name).unwrap_or_default();
            if !expected.eq(found) {
                return foreign(format!(
                    "the rules of chain {name} are not those of this version"
                ));
            }
        }
        Ok(())
    }

    /// Reads the elements of a set or map.
    fn elements(&mut self, name: SetName) -> Result<(), ReadStop> {
        let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
        let mut found = Vec::new();
        let mut bounds = BTreeSet::new();
        let mut wrong = false;
        self.dump(NFT_MSG_GETSETELEM, &texts, |attributes, _| {
            for attributes in elements(&attributes) {
                if set(name).is_ranges() {
                    let bound = parse_bound::<A>(&attributes)?;
                    wrong |= bound.is_none();
                    bounds.extend(bound);
                } else {
                    let element = parse(name, &attributes)?;
                    wrong |= element.is_none();
                    found.extend(element);
                }
            }
            Ok(())
        })?;
        for net in ranges(&bounds) {
            found.push(Element {
                set: name,
                key: Key::Net(net),
                value: Value::Nothing,
                comment: None,
            });
        }
        for element in found {
            wrong |= self.table.add(element).is_err();
        }
        if wrong {
            foreign(not_ours(name))
        } else {
            Ok(())
        }
    }
}

/// Returns a text that each object of its kind has.
fn text<'a>(attributes: &Attributes<'a>, kind: u16) -> Result<&'a str, MalformedMessage> {
    let text = attributes.get(kind).ok_or(MalformedMessage)?.text();
    Ok(text.unwrap_or(NOT_UTF8))
}

/// Whether a set in the kernel is as this version declares it.
fn is_declared(declared: &Set, found: &Attributes<'_>, family: Family) -> bool {
    // The kernel omits a type or a length of 0.
    let number = |attribute| {
        found
            .get(attribute)
            .and_then(Attribute::number)
            .unwrap_or(0)
    };
    let (data_type, data_len) = match declared.data {
        ElementType::Verdict => (NFT_DATA_VERDICT, 0),
        ElementType::Nothing | ElementType::Endpoint | ElementType::Address => {
            (declared.data_type(family), declared.data_len(family))
        }
    };
    let interval = number(NFTA_SET_FLAGS) & NFT_SET_INTERVAL != 0;
    let size = found
        .get(NFTA_SET_DESC)
        .and_then(|description| description.nested().get(NFTA_SET_DESC_SIZE)?.number());
    let user_data = found.get(NFTA_SET_USERDATA).map(|data| data.value);
    number(NFTA_SET_KEY_TYPE) == declared.key_type(family)
        && number(NFTA_SET_KEY_LEN) == declared.key_len(family)
        && number(NFTA_SET_DATA_TYPE) == data_type
        // The length of a verdict is the size of a type of the kernel.
        && (declared.data == ElementType::Verdict || number(NFTA_SET_DATA_LEN) == data_len)
        && interval == declared.is_interval()
        && size == declared.dynamic
        && found.get(NFTA_SET_EXPR).is_some() == declared.counter
        && user_data == Some(&declared.user_data(family)[..])
}

/// The hook of a base chain; every field is `None` for a chain that other chains call.
#[derive(Debug, Default, PartialEq, Eq)]
struct ChainHook {
    /// The type of the chain.
    kind: Option<String>,
    /// The number of the hook.
    hook: Option<u32>,
    /// The priority among the chains of the hook.
    priority: Option<i32>,
}

impl ChainHook {
    /// Returns the hook that a chain should have.
    fn expected(chain: &Chain) -> Self {
        let Some((hook, priority)) = chain.hook else {
            return Self::default();
        };
        Self {
            kind: chain.chain_type().map(|kind| kind.as_str().to_owned()),
            hook: Some(hook.number()),
            priority: Some(priority),
        }
    }

    /// Reads the hook that a chain has in the kernel.
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
