//! Reads elements by their keys, in time linear in their number.
//!
//! A dump costs the square of a set's size: the kernel walks the set from its beginning for each
//! page of 32 KiB. For a list of keys the kernel sends one message per element, in the order of the
//! keys, and stops at the first key that the set does not have (`nf_tables_getsetelem`).

use std::ops::Range;

use nix::errno::Errno;

use super::element;
use crate::netlink::Error;
use crate::netlink::nf_tables::encode::family_number;
use crate::netlink::socket::attribute::{self, MalformedMessage};
use crate::netlink::socket::{RequestAnswer, Socket};
use crate::netlink::uapi::NFNL_SUBSYS_NFTABLES;
use crate::netlink::uapi::nf_tables::{
    NFT_MSG_GETSETELEM, NFTA_DATA_VALUE, NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_TABLE,
};
use crate::planner::model::Address;
use crate::planner::ruleset::{Element, Key, SetName, TABLE};

/// A set, and the key of an element that it may have.
pub type ElementKey<A> = (SetName, Key<A>);

/// The most keys of one request: after a missing one, the others are requested again.
const KEYS: usize = 32;

/// The most keys that are requested before the answers are received, which must fit into the queue
/// of the socket: an answer takes about a kilobyte of it.
const IN_FLIGHT: usize = 1024;

/// The most keys in flight after answers were lost: the queue of a process without privileges holds
/// fewer.
const FEW_IN_FLIGHT: usize = 64;

/// Reads the elements that exist of these keys, which belong to sets without ranges, and passes each
/// to `each`: `None` if it is an element that kube-dnat does not make.
///
/// Keys of one set should be neighbours.
pub(crate) fn read<A: Address>(
    socket: &mut Socket,
    keys: &[ElementKey<A>],
    mut each: impl FnMut(SetName, Option<Element<A>>),
) -> Result<(), Error> {
    let mut rest = requests(keys, 0..keys.len(), KEYS);
    let mut in_flight = IN_FLIGHT;
    while !rest.is_empty() {
        let mut window = Vec::new();
        let mut size = 0;
        while let Some(request) =
            rest.pop_if(|request| window.is_empty() || size + request.len() <= in_flight)
        {
            size += request.len();
            window.push(request);
        }
        match read_window(socket, keys, &window, &mut each) {
            Ok(missing) => {
                // The kernel stopped at a missing key, and others that follow may be missing, too.
                let unread = missing
                    .into_iter()
                    .flat_map(|unread| requests(keys, unread, 1));
                rest.extend(unread);
            }
            Err(Error::Lost) if in_flight > FEW_IN_FLIGHT => {
                in_flight = FEW_IN_FLIGHT;
                rest.extend(window);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Splits the keys at these positions into requests, each of at most `most` keys of one set; the
/// first request is the last item.
fn requests<A: Address>(
    keys: &[ElementKey<A>],
    positions: Range<usize>,
    most: usize,
) -> Vec<Range<usize>> {
    let part = keys.get(positions.clone()).unwrap_or_default();
    let mut start = positions.start;
    let mut requests = Vec::new();
    for of_set in part.chunk_by(|(set, _), (next, _)| set == next) {
        for chunk in of_set.chunks(most) {
            requests.push(start..start + chunk.len());
            start += chunk.len();
        }
    }
    requests.reverse();
    requests
}

/// Sends requests, and receives their answers; returns the positions of the keys that the kernel
/// did not look up, because a key before them is missing.
fn read_window<A: Address>(
    socket: &mut Socket,
    keys: &[ElementKey<A>],
    window: &[Range<usize>],
    each: &mut impl FnMut(SetName, Option<Element<A>>),
) -> Result<Vec<Range<usize>>, Error> {
    let kind = attribute::kind(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM);
    let mut encoder = KeyEncoder::default();
    let bodies = window.iter().map(|request| {
        let keys = keys.get(request.clone()).unwrap_or_default();
        encoder.request(keys)
    });
    let mut found = Vec::new();
    let mut unread = vec![None; window.len()];
    let mut answered = vec![0; window.len()];
    socket.query_many(kind, family_number(A::FAMILY), bodies, |index, answer| {
        let (Some(request), Some(answered)) = (window.get(index), answered.get_mut(index)) else {
            return Err(MalformedMessage.into());
        };
        match answer {
            RequestAnswer::Rejected(Errno::ENOENT) => {
                if let Some(unread) = unread.get_mut(index) {
                    *unread = Some(request.start + *answered + 1..request.end);
                }
            }
            RequestAnswer::Rejected(errno) => return Err(errno),
            RequestAnswer::Message(message) => {
                let (set, _) = keys.get(request.start).ok_or(MalformedMessage)?;
                for attributes in element::elements(&message.attributes()) {
                    *answered += 1;
                    found.push((*set, element::parse(*set, &attributes)?));
                }
            }
        }
        Ok(())
    })?;
    let is_complete = |((request, answered), unread): ((&Range<usize>, &usize), &Option<_>)| {
        unread.is_some() || *answered == request.len()
    };
    if !window.iter().zip(&answered).zip(&unread).all(is_complete) {
        return Err(Error::Lost);
    }
    for (set, element) in found {
        each(set, element);
    }
    Ok(unread
        .into_iter()
        .flatten()
        .filter(|unread| !unread.is_empty())
        .collect())
}

/// Encodes requests, with buffers that are used again.
#[derive(Default)]
struct KeyEncoder {
    value: Vec<u8>,
    key: Vec<u8>,
    list: Vec<u8>,
}

impl KeyEncoder {
    /// Returns the attributes of a request for these keys of one set.
    fn request<A: Address>(&mut self, keys: &[ElementKey<A>]) -> Vec<u8> {
        self.list.clear();
        for (_, key) in keys {
            self.value.clear();
            self.key.clear();
            attribute::push(&mut self.value, NFTA_DATA_VALUE, &key.to_bytes());
            attribute::push_nested(&mut self.key, NFTA_SET_ELEM_KEY, &self.value);
            attribute::push_nested(&mut self.list, NFTA_LIST_ELEM, &self.key);
        }
        let set = keys.first().map_or("", |(set, _)| set.as_str());
        let texts = [(NFTA_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, set)];
        let mut attributes = attribute::texts(&texts);
        attribute::push_nested(&mut attributes, NFTA_SET_ELEM_LIST_ELEMENTS, &self.list);
        attributes
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_request_has_keys_of_one_set_and_not_too_many() {
        let key = |set, last| (set, Key::Address(Ipv4Addr::new(10, 96, 0, last)));
        let keys = [
            key(SetName::NodeIps, 1),
            key(SetName::ClusterIps, 1),
            key(SetName::ClusterIps, 2),
            key(SetName::ClusterIps, 3),
        ];
        let mut all = requests(&keys, 0..4, 2);
        all.reverse();
        assert_eq!(all, [0..1, 1..3, 3..4]);
        let mut singles = requests(&keys, 2..4, 1);
        singles.reverse();
        assert_eq!(singles, [2..3, 3..4]);
        assert!(requests(&keys, 4..4, 1).is_empty());
    }
}
