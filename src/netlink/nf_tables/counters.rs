//! The counters of a set's elements.

use crate::netlink::Error;
use crate::netlink::nf_tables::element;
use crate::netlink::socket::Socket;
use crate::netlink::socket::attribute::{Attribute, Attributes, MalformedMessage};
use crate::netlink::uapi::nf_tables::{
    NFTA_COUNTER_PACKETS, NFTA_EXPR_DATA, NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_KEY,
};
use crate::planner::model::Address;
use crate::planner::ruleset::{Comment, Denial, Key, SetName};

/// An element with its counter.
pub struct CountedElement<A: Address> {
    /// The element's key.
    pub key: Key<A>,
    /// The element's comment, `namespace/name:port-name` of a Service's port.
    pub comment: Option<Comment>,
    /// The chain that an element of a verdict map goes to. A sync that changes it recreates the
    /// element, whose counter starts again.
    pub chain: Option<String>,
    /// Why the element denies connections; `None` if it does not.
    pub denial: Option<Denial>,
    /// The packets since the element was added; 0 too if it has no counter.
    pub packets: u64,
}

/// Reads the counters of a set; empty if there is no such set.
///
/// # Errors
/// The kernel does not dump the set.
pub(crate) fn read<A: Address>(
    socket: &mut Socket,
    name: SetName,
) -> Result<Vec<CountedElement<A>>, Error> {
    let mut counted = Vec::new();
    // An element that is added or deleted meanwhile has counted nothing, or no longer counts.
    element::dump_dynamic(socket, A::FAMILY, name, |attributes| {
        counted.extend(parse(name, attributes)?);
        Ok(())
    })?;
    Ok(counted)
}

/// Reads an element with its counter; `None` if kube-dnat makes no such element.
fn parse<A: Address>(
    name: SetName,
    attributes: &Attributes<'_>,
) -> Result<Option<CountedElement<A>>, MalformedMessage> {
    // A catch-all element has no key.
    let Some(key) = attributes.get(NFTA_SET_ELEM_KEY) else {
        return Ok(None);
    };
    let Some(key) = Key::from_bytes(name, element::data_value(key)?, None) else {
        return Ok(None);
    };
    Ok(Some(CountedElement {
        key,
        comment: element::comment(attributes),
        chain: element::chain(attributes),
        denial: element::verdict(attributes)?.and_then(|verdict| Denial::of(name, verdict)),
        packets: packets(attributes)?,
    }))
}

/// Reads the packets of an element's counter; 0 if it has none.
pub(crate) fn packets(attributes: &Attributes<'_>) -> Result<u64, MalformedMessage> {
    match counter(attributes) {
        Some(packets) => packets.long_number().ok_or(MalformedMessage),
        None => Ok(0),
    }
}

/// Returns the attribute with the packets of an element's counter.
fn counter<'a>(element: &Attributes<'a>) -> Option<Attribute<'a>> {
    let counter = element.get(NFTA_SET_ELEM_EXPR)?.nested();
    let data = counter.get(NFTA_EXPR_DATA)?.nested();
    data.get(NFTA_COUNTER_PACKETS)
}
