//! Reads kube-dnat's tables for the commands. It changes nothing, and works whoever owns the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Kernel, table};
use crate::netlink::nf_tables::batch::Batch;
use crate::netlink::nf_tables::encode::{self, family_number};
use crate::netlink::nf_tables::read::{read_elements, read_shape};
use crate::netlink::nf_tables::{counters, element};
use crate::netlink::socket::attribute::{self, Attribute, Attributes, MalformedMessage};
use crate::netlink::socket::{DumpConsistency, RequestError, Socket};
use crate::netlink::uapi::NFNL_SUBSYS_NFTABLES;
use crate::netlink::uapi::nf_tables::{
    IFNAMSIZ, NFT_META_IIFNAME, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFTA_CMP_DATA,
    NFTA_DATA_VALUE, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM, NFTA_LOOKUP_SET,
    NFTA_META_KEY, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_SET_COUNT,
    NFTA_SET_ELEM_EXPIRATION, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET, NFTA_SET_EXPR, NFTA_SET_NAME, NFTA_TABLE,
};
use crate::netlink::{Commit, Error, RejectedAt};
use crate::planner::diff::TableStatus;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    Chain, ChainName, ClientHook, DynamicChain, Element, ElementData, FrontendKind, Interface, Key,
    PodMatch, Program, RangesHook, SetName, SlotRange, TABLE, Table, TcpPickup, Value, program,
};

/// A table of ours without its elements.
#[derive(Debug)]
pub struct TableShape<A: Address> {
    /// The program that the table's fixed chains were made from.
    pub program: Program,
    /// The table's dynamic chains, without any element.
    pub table: Table<A>,
    /// The netlink port of the socket that owns the table.
    pub owner: Option<u32>,
}

/// The elements of a set that were not known.
#[derive(Debug)]
pub struct UnknownElements<A: Address> {
    /// The elements.
    pub elements: Vec<Element<A>>,
    /// Whether there are elements that kube-dnat does not make.
    pub has_others: bool,
    /// Whether no element can be missing: the set did not change while it was dumped.
    pub is_complete: bool,
}

impl Kernel {
    /// Reads the table of our name in this family, without its elements.
    ///
    /// # Errors
    /// The kernel does not dump the table.
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

    /// Reads the elements of these sets and maps into a table of this shape; `None` if the table no
    /// longer has this shape. The cost is the square of each set's size.
    ///
    /// # Errors
    /// The kernel does not dump the elements.
    pub fn read_elements<A: Address>(
        &mut self,
        shape: &Table<A>,
        names: &[SetName],
    ) -> Result<Option<Table<A>>, Error> {
        match read_elements(&mut self.socket, shape, names)? {
            TableStatus::Ours(table) => Ok(Some(table)),
            TableStatus::Missing | TableStatus::Foreign(_) => Ok(None),
        }
    }

    /// Dumps a set or map once, and passes each element to `each` with the packets of its counter.
    ///
    /// Unlike [`Self::read_elements`], it does not start over when the ruleset changes meanwhile: an
    /// element that changes can be missing or come twice. The cost is the square of the set's size.
    ///
    /// # Errors
    /// The kernel does not dump the elements.
    pub fn dump_elements<A: Address>(
        &mut self,
        name: SetName,
        mut each: impl FnMut(Element<A>, u64),
    ) -> Result<(), Error> {
        element::dump_dynamic(&mut self.socket, A::FAMILY, name, |attributes| {
            if let Some(element) = element::parse(name, attributes)? {
                each(element, counters::packets(attributes)?);
            }
            Ok(())
        })
    }

    /// Reads the number of elements of each set and map. The kernel reports it since Linux 6.16
    /// (`NFTA_SET_COUNT`); before, the elements are dumped.
    ///
    /// # Errors
    /// The kernel does not dump the sets.
    pub fn element_counts<A: Address>(&mut self) -> Result<BTreeMap<SetName, usize>, Error> {
        let mut counts = BTreeMap::new();
        for (name, reported) in self.reported_counts::<A>()? {
            let mut count = reported.unwrap_or(0);
            if reported.is_none() {
                element::dump_dynamic(&mut self.socket, A::FAMILY, name, |_| {
                    count += 1;
                    Ok(())
                })?;
            }
            counts.insert(name, count);
        }
        Ok(counts)
    }

    /// Reads the number of elements that the kernel reports for each set and map of our table;
    /// `None` before Linux 6.16.
    ///
    /// # Errors
    /// The kernel does not dump the sets.
    pub fn reported_counts<A: Address>(
        &mut self,
    ) -> Result<BTreeMap<SetName, Option<usize>>, Error> {
        let mut counts = BTreeMap::new();
        let texts = [(NFTA_TABLE, TABLE)];
        let family = family_number(A::FAMILY);
        let dumped = self
            .socket
            .dump_nftables(NFT_MSG_GETSET, family, &texts, |message| {
                let attributes = message.attributes();
                let text = |kind| attributes.get(kind).and_then(Attribute::text);
                let name = text(NFTA_SET_NAME).and_then(SetName::parse);
                let Some(name) = name.filter(|_| text(NFTA_TABLE) == Some(TABLE)) else {
                    return Ok(());
                };
                let number = |count: Attribute<'_>| {
                    let count = count.number().and_then(|count| usize::try_from(count).ok());
                    count.ok_or(MalformedMessage)
                };
                let count = attributes.get(NFTA_SET_COUNT).map(number).transpose()?;
                counts.insert(name, count);
                Ok(())
            });
        existing(dumped)?;
        Ok(counts)
    }

    /// Reads the elements of a set whose keys `is_known` does not know. The cost is the square of
    /// the set's size.
    ///
    /// # Errors
    /// The kernel does not dump the set.
    pub fn unknown_elements<A: Address>(
        &mut self,
        name: SetName,
        is_known: impl Fn(&Key<A>) -> bool,
    ) -> Result<UnknownElements<A>, Error> {
        let mut unknown = UnknownElements {
            elements: Vec::new(),
            has_others: false,
            is_complete: true,
        };
        let consistency = element::dump(&mut self.socket, A::FAMILY, name, |attributes| {
            match element::parse::<A>(name, attributes)? {
                Some(element) if is_known(&element.key) => {}
                Some(element) => unknown.elements.push(element),
                None => unknown.has_others = true,
            }
            Ok(())
        })?;
        unknown.is_complete = consistency == DumpConsistency::Consistent;
        Ok(unknown)
    }

    /// Reads the element with this key, in constant time; `None` if there is none.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn element<A: Address>(
        &mut self,
        name: SetName,
        key: &Key<A>,
    ) -> Result<Option<ElementData<A>>, Error> {
        self.query_element(name, key, |attributes| {
            let element = element::parse::<A>(name, attributes)?;
            Ok(element.map(|element| ElementData {
                value: element.value,
                comment: element.comment,
            }))
        })
    }

    /// Reads the endpoint that a client is pinned to, and how long it still is; `None` if the
    /// client is not pinned.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn pinned_endpoint<A: Address>(
        &mut self,
        protocol: Protocol,
        client: &Key<A>,
    ) -> Result<Option<(Value<A>, Duration)>, Error> {
        let name = SetName::Affinity(protocol);
        self.query_element(name, client, |attributes| {
            let left = element::milliseconds(attributes, NFTA_SET_ELEM_EXPIRATION)?;
            let element = element::parse::<A>(name, attributes)?;
            Ok(element.map(|element| element.value).zip(left))
        })
    }

    /// Queries an element and returns what `parse` reads from it; `None` if it does not exist.
    fn query_element<A: Address, T>(
        &mut self,
        name: SetName,
        key: &Key<A>,
        parse: impl FnOnce(&Attributes<'_>) -> Result<Option<T>, MalformedMessage>,
    ) -> Result<Option<T>, Error> {
        let kind = attribute::kind(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM);
        let family = family_number(A::FAMILY);
        let answer = self
            .socket
            .query(kind, family, &element_query(name, key), |message| {
                let element = element::elements(&message.attributes()).next();
                parse(&element.ok_or(MalformedMessage)?)
            });
        answer.or_else(|error| error.unless_missing("look up an element").map(|()| None))
    }

    /// Checks that the kernel accepts our tables of these families, with a dynamic chain of each
    /// kind.
    ///
    /// The kernel checks the transaction and undoes it, so that the tables stay as they are.
    ///
    /// # Errors
    /// [`Error::Rejected`] names what the kernel rejects.
    pub fn dry_run(&mut self, fixed: &Program, families: &[Family]) -> Result<(), Error> {
        let mut batch = Batch::new();
        for family in families {
            table::push_recreate(&mut batch, *family, false);
            encode::push_objects(&mut batch, *family, fixed, &every_kind_of_chain(fixed));
        }
        table::push_undo(&mut batch);
        match self.send(batch, &Commit::default()) {
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

/// Returns the chains of the program, and a dynamic chain of each kind with the chains it goes to.
fn every_kind_of_chain(fixed: &Program) -> Vec<Chain> {
    let dynamic = [FrontendKind::Address, FrontendKind::Nodeport]
        .map(|frontends| DynamicChain::Sticky(frontends, SlotRange::Own, 1))
        .into_iter()
        .chain([DynamicChain::Learn(1), DynamicChain::Gone]);
    let closed = TcpPickup::ALL.into_iter().flat_map(|pickup| {
        [ClientHook::Output, ClientHook::Prerouting].map(|hook| DynamicChain::Closed(pickup, hook))
    });
    let ranges = RangesHook::ALL.map(DynamicChain::PortRanges);
    let mut chains = program(fixed);
    chains.extend(dynamic.chain(closed).chain(ranges).map(DynamicChain::chain));
    chains
}

/// Returns the attributes of a query for one element.
fn element_query<A: Address>(name: SetName, key: &Key<A>) -> Vec<u8> {
    let (mut value, mut element, mut list) = (Vec::new(), Vec::new(), Vec::new());
    attribute::push(&mut value, NFTA_DATA_VALUE, &key.to_bytes());
    attribute::push_nested(&mut element, NFTA_SET_ELEM_KEY, &value);
    attribute::push_nested(&mut list, NFTA_LIST_ELEM, &element);
    let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
    let mut attributes = attribute::texts(&texts);
    attribute::push_nested(&mut attributes, NFTA_SET_ELEM_LIST_ELEMENTS, &list);
    attributes
}

/// Returns the program that the rules of our table were made from; if they were not made by
/// kube-dnat, the table does not fit the result.
fn detect<A: Address>(socket: &mut Socket) -> Result<Program, Error> {
    let mut program = Program::default();
    let external_local = ChainName::ExternalLocal.to_string();
    let to_cluster_ip = ChainName::ToClusterIp.to_string();
    let unserved = ChainName::NatPreroutingUnserved.to_string();
    let mut sources = Vec::new();
    let texts = [(NFTA_TABLE, TABLE)];
    let family = family_number(A::FAMILY);
    let rules = socket.dump_nftables(NFT_MSG_GETRULE, family, &texts, |message| {
        let attributes = message.attributes();
        let text = |kind| attributes.get(kind).and_then(Attribute::text);
        if text(NFTA_TABLE) != Some(TABLE) {
            return Ok(());
        }
        let chain = text(NFTA_RULE_CHAIN);
        if chain == Some(&*external_local) {
            sources.push(matched(&attributes));
        } else if chain == Some(&*to_cluster_ip) {
            // A rule of this chain that matches nothing masquerades all.
            let matched = matched(&attributes);
            program.masquerade_all |= matched.interface.is_none() && matched.sets.is_empty();
        } else if chain == Some(&*unserved) {
            let looked_up = matched(&attributes).sets;
            let set = SetName::LoadBalancerIps.as_str();
            program.refuse_load_balancer_ports |= looked_up.iter().any(|name| name == set);
        }
        Ok(())
    });
    existing(rules)?;
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
    let sets = socket.dump_nftables(NFT_MSG_GETSET, family, &texts, |message| {
        let attributes = message.attributes();
        let text = |kind| attributes.get(kind).and_then(Attribute::text);
        if text(NFTA_TABLE) == Some(TABLE)
            && text(NFTA_SET_NAME) == Some(SetName::Services.as_str())
        {
            program.counters = attributes.get(NFTA_SET_EXPR).is_some();
        }
        Ok(())
    });
    existing(sets)?;
    Ok(program)
}

/// Accepts an inconsistent dump, and that there is no table.
fn existing(dumped: Result<DumpConsistency, RequestError>) -> Result<(), Error> {
    match dumped {
        Ok(_) => Ok(()),
        Err(error) => error.unless_missing("dump the table"),
    }
}

/// The matches of a rule.
struct MatchedLookups {
    /// The sets that the rule looks up, in order.
    sets: Vec<String>,
    /// The input interface that the rule compares with.
    interface: Option<Interface>,
}

/// Reads the matches of a rule.
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

/// Whether an expression `meta` loads the name of the input interface.
fn loads_interface(meta: &Attributes<'_>) -> bool {
    let key = meta.get(NFTA_META_KEY).and_then(Attribute::number);
    key == Some(NFT_META_IIFNAME)
}

/// Reads the interface that an expression `cmp` compares with.
fn interface(cmp: &Attributes<'_>) -> Option<Interface> {
    let value = cmp.get(NFTA_CMP_DATA)?.nested().get(NFTA_DATA_VALUE)?.value;
    let name = std::str::from_utf8(value).ok()?;
    let text = name.trim_end_matches('\0');
    // A value that is shorter than a name is a prefix.
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
    fn a_dry_run_has_every_kind_of_chain() {
        let chains = every_kind_of_chain(&Program::default());
        let names: Vec<_> = chains.iter().map(|chain| chain.name.to_string()).collect();
        for name in [
            "nat-prerouting",
            "pick-1",
            "pick-nodeport-1",
            "sticky-1",
            "sticky-nodeport-1",
            "learn-1s",
            "gone",
            "nat-prerouting-closed",
            "filter-output-closed",
            "nat-postrouting-ranges",
        ] {
            assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
        }
    }
}
