//! Elements of sets and maps as the kernel gives them out.

use std::collections::BTreeSet;
use std::time::Duration;

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use crate::netlink::Error;
use crate::netlink::nf_tables::encode::{COMMENT, REST_OF_NAME, family_number};
use crate::netlink::socket::attribute::{Attribute, Attributes};
use crate::netlink::socket::{DumpError, Socket};
use crate::netlink::uapi::{
    NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_EXPIRATION,
    NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END, NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_USERDATA, NFTA_TABLE,
    NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE,
};
use crate::planner::diff::ElementTimeout;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{
    Comment, Element, ElementType, Key, SetName, TABLE, Value, Verdict, set,
};

/// A client that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedClient<A: Address> {
    /// The client, and the frontend.
    pub key: Key<A>,
    /// The endpoint that it has.
    pub endpoint: Value<A>,
    /// For how long; `None`: for ever.
    pub time: Option<ElementTimeout>,
}

/// Reads which endpoint the clients of a protocol have.
pub(crate) fn affinity<A: Address>(
    socket: &mut Socket,
    protocol: Protocol,
) -> Result<Vec<PinnedClient<A>>, Error> {
    let name = SetName::Affinity(protocol);
    let mut clients = Vec::new();
    let dumped = changing(socket, A::FAMILY, name, |attributes| {
        clients.extend(element(name, attributes).map(|element| PinnedClient {
            key: element.key,
            endpoint: element.value,
            time: time(attributes),
        }));
    });
    match dumped {
        Ok(()) | Err(DumpError::Rejected(Errno::ENOENT)) => Ok(clients),
        Err(DumpError::Rejected(errno)) => Err(Error::errno("dump the affinity of clients")(errno)),
        Err(DumpError::Failed(error)) => Err(error),
    }
}

/// For how long an element is there.
fn time(attributes: &Attributes<'_>) -> Option<ElementTimeout> {
    let milliseconds = |kind| {
        let value = attributes.get(kind)?.value;
        let number = u64::from_be_bytes(value.try_into().ok()?);
        Some(Duration::from_millis(number))
    };
    Some(ElementTimeout {
        whole: milliseconds(NFTA_SET_ELEM_TIMEOUT)?,
        left: milliseconds(NFTA_SET_ELEM_EXPIRATION)?,
    })
}

/// Dumps a set that packets change all the while, and gives the attributes of each element to
/// `each`: an incomplete dump is as good as a dump of it gets.
pub(crate) fn changing(
    socket: &mut Socket,
    family: Family,
    name: SetName,
    mut each: impl FnMut(&Attributes<'_>),
) -> Result<(), DumpError> {
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

/// The chain that an element of a verdict map goes to.
pub(crate) fn chain(attributes: &Attributes<'_>) -> Option<String> {
    let data = attributes.get(NFTA_SET_ELEM_DATA)?.nested();
    let verdict = data.get(NFTA_DATA_VERDICT)?.nested();
    verdict.get(NFTA_VERDICT_CHAIN)?.text().map(str::to_owned)
}

/// The comment of an element.
pub(crate) fn comment(attributes: &Attributes<'_>) -> Option<Comment> {
    let data = attributes.get(NFTA_SET_ELEM_USERDATA)?;
    let (comment, after) = text(COMMENT, data.value)?;
    let rest = if after.is_empty() {
        None
    } else {
        Some(text(REST_OF_NAME, after)?.0)
    };
    Some(Comment::from_parts(comment, rest))
}

/// Kind and length, then a text with a NUL: see `encode::text_data`. With what follows.
fn text(kind: u8, data: &[u8]) -> Option<(&str, &[u8])> {
    let (&[of_kind, len], data) = data.split_first_chunk()?;
    let (text, after) = data.split_at_checked(len.into())?;
    let text = std::str::from_utf8(text.strip_suffix(&[0])?).ok()?;
    (of_kind == kind).then_some((text, after))
}

/// The element of a set or map that is no interval set; `None` if it is not one of ours.
pub(crate) fn element<A: Address>(
    name: SetName,
    attributes: &Attributes<'_>,
) -> Option<Element<A>> {
    let value_of = |kind| attributes.get(kind)?.nested().get(NFTA_DATA_VALUE);
    let start = value_of(NFTA_SET_ELEM_KEY)?.value;
    let end = value_of(NFTA_SET_ELEM_KEY_END).map(|end| end.value);
    let key = Key::from_bytes(name, start, end)?;
    let value = match set(name).data {
        ElementType::Nothing => Value::Nothing,
        ElementType::Endpoint => Value::endpoint_from_bytes(value_of(NFTA_SET_ELEM_DATA)?.value)?,
        ElementType::Verdict => {
            let data = attributes.get(NFTA_SET_ELEM_DATA)?.nested();
            Value::Verdict(verdict(&data.get(NFTA_DATA_VERDICT)?.nested())?)
        }
    };
    let comment = match attributes.get(NFTA_SET_ELEM_USERDATA) {
        Some(_) => Some(comment(attributes)?),
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
pub(crate) fn bound<A: Address>(attributes: &Attributes<'_>) -> Option<(A, bool)> {
    let key = attributes.get(NFTA_SET_ELEM_KEY)?.nested();
    let address = A::from_bytes(key.get(NFTA_DATA_VALUE)?.value)?;
    let flags = attributes.get(NFTA_SET_ELEM_FLAGS);
    let flags = flags.and_then(Attribute::number).unwrap_or(0);
    let end = flags & libc::NFT_SET_ELEM_INTERVAL_END.unsigned_abs() != 0;
    Some((address, !end))
}

pub(crate) fn ranges<A: Address>(bounds: &BTreeSet<(A, bool)>) -> Vec<A::Net> {
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
