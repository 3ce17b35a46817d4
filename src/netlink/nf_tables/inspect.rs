//! Looks at our tables without changing them, whoever owns them: for the commands that people use.

use std::collections::BTreeMap;
use std::time::Duration;

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use super::{Kernel, table};
use crate::netlink::nf_tables::element::{self};
use crate::netlink::nf_tables::encode::{self, family_number};
use crate::netlink::nf_tables::read::{read_elements, read_shape};
use crate::netlink::socket::attribute::{self, Attribute, Attributes};
use crate::netlink::socket::{DumpError, Socket};
use crate::netlink::uapi::{
    NFTA_CMP_DATA, NFTA_DATA_VALUE, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM,
    NFTA_LOOKUP_SET, NFTA_META_KEY, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_SET_COUNT,
    NFTA_SET_ELEM_EXPIRATION, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET, NFTA_SET_EXPR, NFTA_SET_NAME, NFTA_TABLE,
};
use crate::netlink::{Error, RejectedAt};
use crate::planner::diff::TableStatus;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    Chain, ChainName, DynamicChain, ElementData, EndpointList, FrontendKind, Interface, Key,
    PodMatch, Program, SetName, TABLE, Table, Value, program,
};

/// Bytes of the name of an interface, with its NUL (`IFNAMSIZ`); what is shorter is a beginning.
const IFNAMSIZ: usize = 16;

/// A table of ours, without its elements.
#[derive(Debug)]
pub struct TableShape<A: Address> {
    /// What its fixed chains were made from.
    pub program: Program,
    /// Its chains that are made on demand; no element.
    pub table: Table<A>,
    /// The netlink port of the socket that owns it.
    pub owner: Option<u32>,
}

impl Kernel {
    /// Looks what stands under our table's name.
    ///
    /// # Errors
    /// If the kernel does not give it out.
    pub fn inspect<A: Address>(&mut self) -> Result<TableStatus<TableShape<A>>, Error> {
        let Some(found) = table::find(&mut self.socket, A::FAMILY)? else {
            return Ok(TableStatus::Missing);
        };
        let program = detect::<A>(&mut self.socket)?;
        Ok(match read_shape(&mut self.socket, &program)? {
            TableStatus::Missing => TableStatus::Missing,
            TableStatus::Foreign(why) => TableStatus::Foreign(why),
            TableStatus::Ours(table) => TableStatus::Ours(TableShape {
                program,
                table,
                owner: found.owner,
            }),
        })
    }

    /// The table of this shape with the elements of these sets and maps; `None`: it is no longer of
    /// this shape. A dump costs the square of a set.
    ///
    /// # Errors
    /// If the kernel does not give them out.
    pub fn elements_of<A: Address>(
        &mut self,
        shape: &Table<A>,
        names: &[SetName],
    ) -> Result<Option<Table<A>>, Error> {
        match read_elements(&mut self.socket, shape, names)? {
            TableStatus::Ours(table) => Ok(Some(table)),
            TableStatus::Missing | TableStatus::Foreign(_) => Ok(None),
        }
    }

    /// How many elements each set and map has. By a dump of it where the kernel does not count
    /// (`NFTA_SET_COUNT`, Linux 6.16).
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn counts<A: Address>(&mut self) -> Result<BTreeMap<SetName, usize>, Error> {
        let mut counts = BTreeMap::new();
        let mut uncounted = Vec::new();
        let texts = [(NFTA_TABLE, TABLE)];
        let family = family_number(A::FAMILY);
        let sets = self
            .socket
            .dump(libc::NFT_MSG_GETSET, family, &texts, |message| {
                let attributes = message.attributes();
                let text = |kind| attributes.get(kind).and_then(Attribute::text);
                let name = text(NFTA_SET_NAME).and_then(SetName::parse);
                let Some(name) = name.filter(|_| text(NFTA_TABLE) == Some(TABLE)) else {
                    return;
                };
                match attributes.get(NFTA_SET_COUNT).and_then(Attribute::number) {
                    Some(count) => {
                        let count = usize::try_from(count).unwrap_or(usize::MAX);
                        counts.insert(name, count);
                    }
                    None => uncounted.push(name),
                }
            });
        allowed(sets)?;
        for name in uncounted {
            let mut count = 0;
            let dumped = element::changing(&mut self.socket, A::FAMILY, name, |_| count += 1);
            allowed(dumped.map(|()| true))?;
            counts.insert(name, count);
        }
        Ok(counts)
    }

    /// What is under `key` of a set or map; in constant time.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn element<A: Address>(
        &mut self,
        name: SetName,
        key: &Key<A>,
    ) -> Result<Option<ElementData<A>>, Error> {
        self.ask_element(name, key, |element| {
            let element = element::element::<A>(name, element)?;
            Some(ElementData {
                value: element.value,
                comment: element.comment,
            })
        })
    }

    /// The endpoint that a client is remembered to have, and for how long still.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn client<A: Address>(
        &mut self,
        protocol: Protocol,
        client: &Key<A>,
    ) -> Result<Option<(Value<A>, Duration)>, Error> {
        let name = SetName::Affinity(protocol);
        self.ask_element(name, client, |element| {
            let left = element.get(NFTA_SET_ELEM_EXPIRATION)?.value;
            let left = u64::from_be_bytes(left.try_into().ok()?);
            let element = element::element::<A>(name, element)?;
            Some((element.value, Duration::from_millis(left)))
        })
    }

    fn ask_element<A: Address, T>(
        &mut self,
        name: SetName,
        key: &Key<A>,
        take: impl FnOnce(&Attributes<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let kind = attribute::kind(libc::NFNL_SUBSYS_NFTABLES, libc::NFT_MSG_GETSETELEM);
        let family = family_number(A::FAMILY);
        let answer = self
            .socket
            .ask_for(kind, family, &request(name, key), |message| {
                let list = message.attributes().get(NFTA_SET_ELEM_LIST_ELEMENTS)?;
                take(&list.nested().next()?.nested())
            });
        match answer {
            Ok(found) => Ok(found),
            Err(DumpError::Rejected(Errno::ENOENT)) => Ok(None),
            Err(dump) => Err(dump.error("look for an element")),
        }
    }

    /// Whether the kernel would take our tables of these families, with what elements need later: it checks
    /// all of a transaction and undoes it. Nothing of it is ever there.
    ///
    /// # Errors
    /// [`Error::Rejected`] names what it would not take.
    pub fn dry_run(&mut self, fixed: &Program, families: &[Family]) -> Result<(), Error> {
        let mut batch = crate::netlink::nf_tables::batch::Batch::new();
        for family in families {
            table::push_anew(&mut batch, *family, false);
            encode::push_objects(&mut batch, *family, fixed, &rehearsed(fixed));
        }
        table::push_undo(&mut batch);
        match self.send(batch, &crate::netlink::Commit::default()) {
            Err(Error::Rejected(mut rejections)) => {
                rejections.retain(|rejection| rejection.at != RejectedAt::Undo);
                if rejections.is_empty() {
                    Ok(())
                } else {
                    Err(Error::Rejected(rejections))
                }
            }
            result => result,
        }
    }
}

/// The chains of the program, and one of each kind that is made on demand.
fn rehearsed(fixed: &Program) -> Vec<Chain> {
    let on_demand = [FrontendKind::Address, FrontendKind::Nodeport]
        .map(|frontends| DynamicChain::Sticky(frontends, EndpointList::Own, 1))
        .into_iter()
        .chain([DynamicChain::Learn(1), DynamicChain::Gone]);
    let mut chains = program(fixed);
    chains.extend(on_demand.map(DynamicChain::chain));
    chains
}

/// The request for one element.
fn request<A: Address>(name: SetName, key: &Key<A>) -> Vec<u8> {
    let (mut value, mut element, mut list) = (Vec::new(), Vec::new(), Vec::new());
    attribute::push(&mut value, NFTA_DATA_VALUE, &key.to_bytes());
    attribute::push_nested(&mut element, NFTA_SET_ELEM_KEY, &value);
    attribute::push_nested(&mut list, NFTA_LIST_ELEM, &element);
    let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
    let mut attributes = attribute::texts(&texts);
    attribute::push_nested(&mut attributes, NFTA_SET_ELEM_LIST_ELEMENTS, &list);
    attributes
}

/// From which program the rules were made, if they are ours at all.
fn detect<A: Address>(socket: &mut Socket) -> Result<Program, Error> {
    let mut program = Program::default();
    let external_local = ChainName::ExternalLocal.to_string();
    let to_cluster_ip = ChainName::ToClusterIp.to_string();
    let mut sources = Vec::new();
    let texts = [(NFTA_TABLE, TABLE)];
    let family = family_number(A::FAMILY);
    let rules = socket.dump(libc::NFT_MSG_GETRULE, family, &texts, |message| {
        let attributes = message.attributes();
        let text = |kind| attributes.get(kind).and_then(Attribute::text);
        let chain = text(NFTA_RULE_CHAIN).unwrap_or_default();
        let ours = text(NFTA_TABLE) == Some(TABLE);
        if ours && chain == external_local {
            sources.push(matched(&attributes));
        } else if ours && chain == to_cluster_ip {
            // Without a match before it, it masquerades all.
            let matched = matched(&attributes);
            program.masquerade_all |= matched.interface.is_none() && matched.sets.is_empty();
        }
    });
    allowed(rules)?;
    let pods = SetName::PodCidrsLocal.as_str();
    program.pods = match sources.into_iter().next() {
        Some(MatchedLookups {
            interface: Some(interface),
            ..
        }) => PodMatch::Interface(interface),
        Some(MatchedLookups { sets, .. }) if sets.first().is_some_and(|set| set == pods) => {
            PodMatch::Cidrs
        }
        _ => PodMatch::Unknown,
    };
    let sets = socket.dump(libc::NFT_MSG_GETSET, family, &texts, |message| {
        let attributes = message.attributes();
        let text = |kind| attributes.get(kind).and_then(Attribute::text);
        if text(NFTA_TABLE) == Some(TABLE)
            && text(NFTA_SET_NAME) == Some(SetName::Services.as_str())
        {
            program.counters = attributes.get(NFTA_SET_EXPR).is_some();
        }
    });
    allowed(sets)?;
    Ok(program)
}

fn allowed(dumped: Result<bool, DumpError>) -> Result<(), Error> {
    match dumped {
        Ok(_) | Err(DumpError::Rejected(Errno::ENOENT)) => Ok(()),
        Err(dump) => Err(dump.error("dump the table")),
    }
}

/// What a rule looks up, in order, and the interface that it compares with.
struct MatchedLookups {
    sets: Vec<String>,
    interface: Option<Interface>,
}

fn matched(rule: &Attributes<'_>) -> MatchedLookups {
    let mut matched = MatchedLookups {
        sets: Vec::new(),
        interface: None,
    };
    let expressions = rule.get(NFTA_RULE_EXPRESSIONS);
    let mut loads_name = false;
    for expression in expressions.into_iter().flat_map(Attribute::nested) {
        let expression = expression.nested();
        let name = expression.get(NFTA_EXPR_NAME).and_then(Attribute::text);
        let Some(data) = expression.get(NFTA_EXPR_DATA).map(Attribute::nested) else {
            continue;
        };
        match name {
            Some("meta") => loads_name = loads_interface(&data),
            Some("lookup") => {
                let set = data.get(NFTA_LOOKUP_SET).and_then(Attribute::text);
                matched.sets.extend(set.map(str::to_owned));
            }
            Some("cmp") if loads_name => matched.interface = interface(&data),
            _ => {}
        }
    }
    matched
}

fn loads_interface(meta: &Attributes<'_>) -> bool {
    let key = meta.get(NFTA_META_KEY).and_then(Attribute::number);
    key == Some(libc::NFT_META_IIFNAME.unsigned_abs())
}

fn interface(cmp: &Attributes<'_>) -> Option<Interface> {
    let value = cmp.get(NFTA_CMP_DATA)?.nested().get(NFTA_DATA_VALUE)?.value;
    let name = std::str::from_utf8(value).ok()?;
    let text = name.trim_end_matches('\0');
    Some(if value.len() == IFNAMSIZ {
        Interface::Named(text.into())
    } else {
        Interface::Prefixed(text.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_chain_is_rehearsed() {
        let chains = rehearsed(&Program::default());
        let names: Vec<_> = chains.iter().map(|chain| chain.name.to_string()).collect();
        for name in [
            "nat-prerouting",
            "pick-1",
            "pick-nodeport-1",
            "sticky-1",
            "sticky-nodeport-1",
            "learn-1s",
            "gone",
        ] {
            assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
        }
    }
}
