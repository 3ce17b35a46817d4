//! Reads what the elements of a set have counted.

use nix::errno::Errno;

use crate::netlink::Error;
use crate::netlink::nf_tables::element;
use crate::netlink::socket::attribute::Attributes;
use crate::netlink::socket::{DumpError, Socket};
use crate::netlink::uapi::{
    NFTA_COUNTER_PACKETS, NFTA_DATA_VALUE, NFTA_EXPR_DATA, NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_KEY,
};
use crate::planner::model::Address;
use crate::planner::ruleset::{Comment, Key, SetName};

/// An element that counts: its key, its comment, and how many packets it has counted since it was
/// added.
pub struct CountedElement<A: Address> {
    /// Its key.
    pub key: Key<A>,
    /// Whose it is: `namespace/name:port-name`.
    pub comment: Option<Comment>,
    /// The chain it goes to, if it is of a verdict map: an element with another was made anew.
    pub chain: Option<String>,
    /// How many packets; 0 too if the set does not count.
    pub packets: u64,
}

/// The elements of a set that counts; none if there is no such set.
///
/// # Errors
/// If the kernel does not give out the set.
pub(crate) fn packets<A: Address>(
    socket: &mut Socket,
    name: SetName,
) -> Result<Vec<CountedElement<A>>, Error> {
    let mut counted = Vec::new();
    // Added or deleted meanwhile, an element has counted nothing or no longer counts.
    let dumped = element::changing(socket, A::FAMILY, name, |attributes| {
        counted.extend(counted_element(name, attributes));
    });
    match dumped {
        Ok(()) | Err(DumpError::Rejected(Errno::ENOENT)) => Ok(counted),
        Err(DumpError::Rejected(errno)) => Err(Error::errno("read the counters of a set")(errno)),
        Err(DumpError::Failed(error)) => Err(error),
    }
}

fn counted_element<A: Address>(
    name: SetName,
    attributes: &Attributes<'_>,
) -> Option<CountedElement<A>> {
    let key = attributes.get(NFTA_SET_ELEM_KEY)?.nested();
    let key = Key::from_bytes(name, key.get(NFTA_DATA_VALUE)?.value, None)?;
    Some(CountedElement {
        key,
        comment: element::comment(attributes),
        chain: element::chain(attributes),
        packets: counter(attributes).unwrap_or(0),
    })
}

fn counter(element: &Attributes<'_>) -> Option<u64> {
    let counter = element.get(NFTA_SET_ELEM_EXPR)?.nested();
    let counter = counter.get(NFTA_EXPR_DATA)?.nested();
    let packets = counter.get(NFTA_COUNTER_PACKETS)?.value;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}
