//! Elements of sets and maps as the kernel dumps them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::netlink::Error;
use crate::netlink::nf_tables::encode::{COMMENT, LABEL, REST_OF_NAME, family_number};
use crate::netlink::socket::attribute::{Attribute, Attributes, MalformedMessage};
use crate::netlink::socket::{DumpConsistency, Socket};
use crate::netlink::uapi::NF_DROP;
use crate::netlink::uapi::nf_tables::{
    NFT_GOTO, NFT_MSG_GETSETELEM, NFT_SET_ELEM_INTERVAL_END, NFTA_DATA_VALUE, NFTA_DATA_VERDICT,
    NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_EXPIRATION, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_KEY_END, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_USERDATA, NFTA_TABLE, NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
};
use crate::planner::diff::ElementTimeout;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    Comment, Element, ElementType, FrontendLabel, Key, SetName, TABLE, Value, Verdict, set,
};

/// A client that session affinity keeps at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedClient<A: Address> {
    /// The client, and the frontend that it connected to.
    pub key: Key<A>,
    /// The endpoint that the client keeps.
    pub endpoint: Value<A>,
    /// How long the client keeps the endpoint; `None` if for ever.
    pub time: Option<ElementTimeout>,
}

/// Reads the pinned clients of a protocol.
pub(crate) fn pinned_clients<A: Address>(
    socket: &mut Socket,
    protocol: Protocol,
) -> Result<Vec<PinnedClient<A>>, Error> {
    let name = SetName::Affinity(protocol);
    let mut clients = Vec::new();
    dump_dynamic(socket, A::FAMILY, name, |attributes| {
        if let Some(element) = parse(name, attributes)? {
            clients.push(PinnedClient {
                key: element.key,
                endpoint: element.value,
                time: timeout(attributes)?,
            });
        }
        Ok(())
    })?;
    Ok(clients)
}

/// Reads the timeout of an element; `None` if it has none.
fn timeout(attributes: &Attributes<'_>) -> Result<Option<ElementTimeout>, MalformedMessage> {
    let whole = milliseconds(attributes, NFTA_SET_ELEM_TIMEOUT)?;
    let left = milliseconds(attributes, NFTA_SET_ELEM_EXPIRATION)?;
    Ok(whole
        .zip(left)
        .map(|(whole, left)| ElementTimeout { whole, left }))
}

/// Reads an attribute that is a time in milliseconds; `None` if the element has no such attribute.
pub(crate) fn milliseconds(
    attributes: &Attributes<'_>,
    kind: u16,
) -> Result<Option<Duration>, MalformedMessage> {
    let read = |attribute: Attribute<'_>| attribute.long_number().ok_or(MalformedMessage);
    let number = attributes.get(kind).map(read).transpose()?;
    Ok(number.map(Duration::from_millis))
}

/// Dumps a set whose elements change with packets, and passes the attributes of each to `each`. A
/// set that does not exist has no element.
///
/// An inconsistent dump is good enough: the next one would be inconsistent as well.
pub(crate) fn dump_dynamic(
    socket: &mut Socket,
    family: Family,
    name: SetName,
    each: impl FnMut(&Attributes<'_>) -> Result<(), MalformedMessage>,
) -> Result<(), Error> {
    dump(socket, family, name, each).map(|_| ())
}

/// Dumps a set, and passes the attributes of each element to `each`. A set that does not exist has
/// no element.
pub(crate) fn dump(
    socket: &mut Socket,
    family: Family,
    name: SetName,
    mut each: impl FnMut(&Attributes<'_>) -> Result<(), MalformedMessage>,
) -> Result<DumpConsistency, Error> {
    let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
    let family = family_number(family);
    let dumped = socket.dump_nftables(NFT_MSG_GETSETELEM, family, &texts, |message| {
        elements(&message.attributes()).try_for_each(|element| each(&element))
    });
    dumped.or_else(|error| {
        let missing = error.unless_missing("dump a set");
        missing.map(|()| DumpConsistency::Consistent)
    })
}

/// Returns the attributes of each element in a message of elements.
pub(crate) fn elements<'a>(message: &Attributes<'a>) -> impl Iterator<Item = Attributes<'a>> {
    let list = message.get(NFTA_SET_ELEM_LIST_ELEMENTS);
    list.into_iter()
        .flat_map(Attribute::nested)
        .map(Attribute::nested)
}

/// Reads the name of the chain that an element of a verdict map goes to; `None` if it goes to none.
pub(crate) fn chain(attributes: &Attributes<'_>) -> Option<String> {
    let data = attributes.get(NFTA_SET_ELEM_DATA)?.nested();
    let verdict = data.get(NFTA_DATA_VERDICT)?.nested();
    verdict.get(NFTA_VERDICT_CHAIN)?.text().map(str::to_owned)
}

/// Reads the verdict of an element of a verdict map; `None` if it has none that kube-dnat makes.
pub(crate) fn verdict(attributes: &Attributes<'_>) -> Result<Option<Verdict>, MalformedMessage> {
    let data = attributes.get(NFTA_SET_ELEM_DATA);
    data.map_or(Ok(None), |data| {
        match data.nested().get(NFTA_DATA_VERDICT) {
            Some(_) => parse_verdict(data),
            None => Ok(None),
        }
    })
}

/// Reads the comment of an element; `None` if it has none, or user data that is no comment of ours.
pub(crate) fn comment(attributes: &Attributes<'_>) -> Option<Comment> {
    let data = attributes.get(NFTA_SET_ELEM_USERDATA)?;
    let (comment, after) = text(COMMENT, data.value)?;
    let (rest, after) = match text(REST_OF_NAME, after) {
        Some((rest, after)) => (Some(rest), after),
        None => (None, after),
    };
    let label = match after {
        [] => None,
        [LABEL, 1, byte] => Some(FrontendLabel::from_byte(*byte)?),
        _ => return None,
    };
    Some(Comment::from_parts(comment, rest).labelled(label))
}

/// Reads a text of this kind from user data, and returns it with the user data after it. It is
/// encoded as kind, length, and text with a NUL: see `encode::text_data`.
fn text(kind: u8, data: &[u8]) -> Option<(&str, &[u8])> {
    let (&[found, len], data) = data.split_first_chunk()?;
    let (text, after) = data.split_at_checked(len.into())?;
    let text = std::str::from_utf8(text.strip_suffix(&[0])?).ok()?;
    (found == kind).then_some((text, after))
}

/// Reads an element of a set or map that is no interval set; `None` if kube-dnat makes no such
/// element.
pub(crate) fn parse<A: Address>(
    name: SetName,
    attributes: &Attributes<'_>,
) -> Result<Option<Element<A>>, MalformedMessage> {
    // A catch-all element has no key.
    let Some(key) = attributes.get(NFTA_SET_ELEM_KEY) else {
        return Ok(None);
    };
    let start = data_value(key)?;
    let end = attributes.get(NFTA_SET_ELEM_KEY_END).map(data_value);
    let Some(key) = Key::from_bytes(name, start, end.transpose()?) else {
        return Ok(None);
    };
    let Some(value) = parse_value(set(name).data, attributes)? else {
        return Ok(None);
    };
    let comment = comment(attributes);
    if comment.is_none() && attributes.get(NFTA_SET_ELEM_USERDATA).is_some() {
        return Ok(None);
    }
    Ok(Some(Element {
        set: name,
        key,
        value,
        comment,
    }))
}

/// Reads the value of a key or of data.
pub(crate) fn data_value(attribute: Attribute<'_>) -> Result<&[u8], MalformedMessage> {
    let value = attribute
        .nested()
        .get(NFTA_DATA_VALUE)
        .ok_or(MalformedMessage)?;
    Ok(value.value)
}

/// Reads the data of an element; `None` if kube-dnat makes no such data.
fn parse_value<A: Address>(
    data_type: ElementType,
    attributes: &Attributes<'_>,
) -> Result<Option<Value<A>>, MalformedMessage> {
    let data = attributes.get(NFTA_SET_ELEM_DATA).ok_or(MalformedMessage);
    Ok(match data_type {
        ElementType::Nothing => Some(Value::Nothing),
        ElementType::Endpoint => Value::endpoint_from_bytes(data_value(data?)?),
        ElementType::Address => Value::address_from_bytes(data_value(data?)?),
        ElementType::Verdict => parse_verdict(data?)?.map(Value::Verdict),
    })
}

/// Reads the verdict of an element; `None` if kube-dnat makes no such verdict.
fn parse_verdict(data: Attribute<'_>) -> Result<Option<Verdict>, MalformedMessage> {
    let verdict = data
        .nested()
        .get(NFTA_DATA_VERDICT)
        .ok_or(MalformedMessage)?;
    let verdict = verdict.nested();
    let code = verdict.get(NFTA_VERDICT_CODE).and_then(Attribute::number);
    Ok(match code.ok_or(MalformedMessage)?.cast_signed() {
        NF_DROP => Some(Verdict::Drop),
        NFT_GOTO => {
            let chain = verdict.get(NFTA_VERDICT_CHAIN).ok_or(MalformedMessage)?;
            chain.text().and_then(Verdict::goto)
        }
        _ => None,
    })
}

/// Which end of a range an element of an interval set is. Of two at one address, the end of a range
/// comes before the start of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RangeBound {
    /// The address is the first after a range.
    End,
    /// The address is the first of a range.
    Start,
}

/// Reads an element of an interval set; `None` if kube-dnat makes no such element.
pub(crate) fn parse_bound<A: Address>(
    attributes: &Attributes<'_>,
) -> Result<Option<(A, RangeBound)>, MalformedMessage> {
    // A catch-all element has no key.
    let Some(key) = attributes.get(NFTA_SET_ELEM_KEY) else {
        return Ok(None);
    };
    let address = A::from_bytes(data_value(key)?);
    // An element without flags lacks the attribute.
    let flags = match attributes.get(NFTA_SET_ELEM_FLAGS) {
        Some(flags) => flags.number().ok_or(MalformedMessage)?,
        None => 0,
    };
    let bound = if flags & NFT_SET_ELEM_INTERVAL_END == 0 {
        RangeBound::Start
    } else {
        RangeBound::End
    };
    Ok(address.map(|address| (address, bound)))
}

/// Returns the ranges between bounds, as few CIDRs as possible for each.
pub(crate) fn ranges<A: Address>(bounds: &BTreeSet<(A, RangeBound)>) -> Vec<A::Net> {
    let mut nets = Vec::new();
    let mut start = None;
    for (address, bound) in bounds {
        match (bound, start.take()) {
            (RangeBound::Start, _) => start = Some(*address),
            (RangeBound::End, Some(first)) => nets.extend(A::range(first, Some(*address))),
            // nft marks the beginning of the address space as the end of nothing.
            (RangeBound::End, None) => {}
        }
    }
    nets.extend(start.into_iter().flat_map(|first| A::range(first, None)));
    nets
}
