//! Reads what the elements of a set have counted.

use nftnl::nftnl_sys::libc;

use super::attribute::{Attribute, Attributes};
use super::encode::family_number;
use super::socket::{Dump, Socket};
use super::{Error, read};
use crate::model::Address;
use crate::ruleset::{Key, SetName, TABLE};

/// Attributes of nf_tables (`linux/netfilter/nf_tables.h`).
const NFTA_SET_ELEM_LIST_TABLE: i32 = 1;
const NFTA_SET_ELEM_LIST_SET: i32 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: i32 = 3;
const NFTA_SET_ELEM_KEY: i32 = 1;
const NFTA_SET_ELEM_EXPR: i32 = 7;
const NFTA_DATA_VALUE: i32 = 1;
const NFTA_EXPR_DATA: i32 = 2;
const NFTA_COUNTER_PACKETS: i32 = 2;

/// An element that counts: its key, its comment, and how many packets it has counted since it was
/// added.
pub struct Counted<A: Address> {
    /// Its key.
    pub key: Key<A>,
    /// Whose it is: `namespace/name:port-name`.
    pub comment: Option<String>,
    /// The chain it goes to, if it is of a verdict map: an element with another was made anew.
    pub chain: Option<String>,
    /// How many packets.
    pub packets: u64,
}

/// The elements of a set that counts.
///
/// # Errors
/// If the kernel does not give out the set.
pub(super) fn packets<A: Address>(
    socket: &mut Socket,
    name: SetName,
) -> Result<Vec<Counted<A>>, Error> {
    let texts = [
        (NFTA_SET_ELEM_LIST_TABLE, TABLE),
        (NFTA_SET_ELEM_LIST_SET, name.as_str()),
    ];
    let mut counted = Vec::new();
    let dumped = socket.dump(
        libc::NFT_MSG_GETSETELEM,
        family_number(A::FAMILY),
        &texts,
        |message| {
            let list = message.attributes().get(NFTA_SET_ELEM_LIST_ELEMENTS);
            let elements = list.into_iter().flat_map(Attribute::nested);
            counted.extend(elements.filter_map(|each| element(name, &each.nested())));
        },
    );
    match dumped {
        // Added or deleted meanwhile, an element has counted nothing or no longer counts.
        Ok(_) => Ok(counted),
        Err(Dump::Refused(errno)) => Err(Error::errno("read the counters of a set")(errno)),
        Err(Dump::Failed(error)) => Err(error),
    }
}

fn element<A: Address>(name: SetName, attributes: &Attributes<'_>) -> Option<Counted<A>> {
    let key = attributes.get(NFTA_SET_ELEM_KEY)?.nested();
    let key = Key::from_bytes(name, key.get(NFTA_DATA_VALUE)?.value)?;
    let counter = attributes.get(NFTA_SET_ELEM_EXPR)?.nested();
    let counter = counter.get(NFTA_EXPR_DATA)?.nested();
    let packets = counter.get(NFTA_COUNTER_PACKETS)?.value;
    Some(Counted {
        key,
        comment: read::comment(attributes),
        chain: read::chain(attributes),
        packets: u64::from_be_bytes(packets.try_into().ok()?),
    })
}
