//! The operations of a transaction as netlink messages.

use std::ops::Range;
use std::time::Duration;

use nftnl::nftnl_sys as sys;

use super::encode::{chain_object, family_number, message, name_data, push_chain, push_rules};
use super::name;
use crate::netlink::ffi::{self, Elem, Payload};
use crate::netlink::nf_tables::batch::{Batch, MessageSubject};
use crate::netlink::socket::attribute::ATTRIBUTE_HEADER;
use crate::netlink::uapi::NF_DROP;
use crate::netlink::uapi::NLM_F_CREATE;
use crate::netlink::uapi::nf_tables::{
    NFT_GOTO, NFT_MSG_DELCHAIN, NFT_MSG_DELSETELEM, NFT_MSG_DESTROYSETELEM, NFT_MSG_NEWSETELEM,
    NFT_SET_ELEM_INTERVAL_END,
};
use crate::planner::diff::{ElementTimeout, Op, Transaction};
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{Comment, Element, Key, SetName, TABLE, Value};

/// The most bytes of elements in one message, whose list of elements is one attribute: its length
/// has 16 bits.
///
/// A smaller number would gain nothing: 170,000 elements (10,000 Services with 10 endpoints) are
/// committed in 0.26 to 0.33 s with 2,000, 8,000, 30,000 or 60,000 bytes a message. Several
/// transactions would gain nothing either: the table would be half full for some time, and the
/// kernel would validate it for each.
const MAX_ELEMENTS: usize = 60_000;

/// The bytes of the longest key: two IPv6 addresses, and two fields of a port or protocol.
const LONGEST_KEY: usize = 2 * 16 + 2 * 4;

/// The bytes of an IPv6 endpoint: address and port.
const ENDPOINT: usize = 16 + 4;

/// The bytes of the longest name of a chain, `sticky-nodeport-cluster-4294967295`, with its NUL.
const CHAIN_NAME: usize = 35;

/// The bytes of an attribute that holds a key or an endpoint, nested as `NFTA_DATA_VALUE`.
const fn data_size(value: usize) -> usize {
    attribute_size(attribute_size(value))
}

/// The bytes of an attribute with its header and padding.
const fn attribute_size(value: usize) -> usize {
    ATTRIBUTE_HEADER + value.next_multiple_of(4)
}

/// More than the bytes of an element with a key alone: its header, the key and flags.
const KEY_ELEMENT: usize = attribute_size(data_size(LONGEST_KEY) + attribute_size(4));

/// The bytes of a verdict: it is nested, and has a code and perhaps a chain.
const VERDICT: usize = data_size(attribute_size(4) + attribute_size(CHAIN_NAME));

/// The bytes of a timeout: the whole time and the time left, each in 64 bits.
const TIMEOUT: usize = 2 * attribute_size(8);

/// The bytes of user data beyond a comment: kind, length and NUL of the comment, and of its rest;
/// kind, length and byte of a label.
const COMMENT_OVERHEAD: usize = 3 * 3;

/// More than the bytes of any operation in a message or several: a chain with its rules is longest.
const LONGEST_OPERATION: u64 = 4096;

/// Returns more than the bytes of this many operations.
pub(crate) fn most_bytes(operations: usize) -> u64 {
    let operations = u64::try_from(operations).unwrap_or(u64::MAX);
    operations.saturating_mul(LONGEST_OPERATION)
}

/// Adds the messages of a transaction.
pub(crate) fn push<A: Address>(batch: &mut Batch, transaction: &Transaction<A>) {
    push_operations(batch, transaction, NFT_MSG_DELSETELEM);
}

/// Adds the messages of a transaction that deletes elements whether they exist or not (Linux 6.3).
pub(crate) fn push_destroying<A: Address>(batch: &mut Batch, transaction: &Transaction<A>) {
    push_operations(batch, transaction, NFT_MSG_DESTROYSETELEM);
}

/// Adds the messages of a transaction; `delete_kind` is the type of those that delete elements.
fn push_operations<A: Address>(batch: &mut Batch, transaction: &Transaction<A>, delete_kind: u8) {
    let mut encoder = OperationEncoder {
        batch,
        family: A::FAMILY,
        delete_kind,
        pending: None,
    };
    for (index, operation) in transaction.operations.iter().enumerate() {
        encoder.push(index, &operation.op);
    }
    encoder.flush();
}

/// Encodes operations in order; neighbours that add to, or delete from, one set share a message.
struct OperationEncoder<'a> {
    batch: &'a mut Batch,
    family: Family,
    /// The type of the message that deletes elements.
    delete_kind: u8,
    /// The message of elements that the next operation may join.
    pending: Option<PendingElements>,
}

/// A message of elements that is not in the batch yet.
struct PendingElements {
    kind: u8,
    name: SetName,
    set: ffi::Set,
    operations: Range<usize>,
    size: usize,
}

impl OperationEncoder<'_> {
    /// Encodes an operation at its position in the transaction.
    fn push<A: Address>(&mut self, index: usize, op: &Op<A>) {
        let subject = MessageSubject::Operations(self.family, index..index + 1);
        match op {
            Op::Add(element) => {
                let size = element_size(element);
                let set = self.reserve(NFT_MSG_NEWSETELEM, element.set, index, size);
                push_element(set, element, None);
            }
            Op::AddFor(element, time) => {
                let size = element_size(element) + TIMEOUT;
                let set = self.reserve(NFT_MSG_NEWSETELEM, element.set, index, size);
                push_element(set, element, Some(*time));
            }
            Op::Delete(set, key) => {
                let set = self.reserve(self.delete_kind, *set, index, key_size(key));
                push_key(set, key);
            }
            Op::AddChain(chain) => {
                self.flush();
                let chain = chain.chain();
                push_chain(self.batch, &chain, self.family, subject.clone());
                push_rules(self.batch, &chain, self.family, &subject);
            }
            Op::DeleteChain(chain) => {
                self.flush();
                let payload = Payload::Chain(chain_object(&chain.chain(), self.family));
                let message = message(NFT_MSG_DELCHAIN, self.family, 0, payload);
                self.batch.push(&message, subject);
            }
        }
    }

    /// Returns a message of this type for this set, with room for an element of the operation.
    fn reserve(&mut self, kind: u8, set_name: SetName, index: usize, size: usize) -> &mut ffi::Set {
        let fits = self.pending.as_ref().is_some_and(|pending| {
            pending.kind == kind && pending.name == set_name && pending.size + size <= MAX_ELEMENTS
        });
        if !fits {
            self.flush();
        }
        let family = self.family;
        let pending = self
            .pending
            .get_or_insert_with(|| PendingElements::new(kind, set_name, index, family));
        pending.size += size;
        pending.operations.end = index + 1;
        &mut pending.set
    }

    /// Moves the pending message to the batch.
    fn flush(&mut self) {
        if let Some(pending) = self.pending.take() {
            let flags = if pending.kind == NFT_MSG_NEWSETELEM {
                NLM_F_CREATE
            } else {
                0
            };
            let payload = Payload::Elements(pending.set);
            let message = message(pending.kind, self.family, flags, payload);
            let subject = MessageSubject::Operations(self.family, pending.operations);
            self.batch.push(&message, subject);
        }
    }
}

impl PendingElements {
    /// Makes a message without elements.
    fn new(kind: u8, set_name: SetName, first: usize, family: Family) -> Self {
        let mut set = ffi::Set::new();
        set.set_u32(sys::NFTNL_SET_FAMILY, family_number(family).into())
            .set_str(sys::NFTNL_SET_TABLE, &name(TABLE))
            .set_str(sys::NFTNL_SET_NAME, &name(set_name.as_str()));
        Self {
            kind,
            name: set_name,
            set,
            operations: first..first,
            size: 0,
        }
    }
}

/// Returns at least the bytes that a key takes in a message, with the end of its range.
fn key_size<A: Address>(key: &Key<A>) -> usize {
    let end = if matches!(key, Key::Net(_)) {
        KEY_ELEMENT
    } else if matches!(key, Key::SourceRange(..) | Key::PortRange(..)) {
        data_size(LONGEST_KEY)
    } else {
        0
    };
    KEY_ELEMENT + end
}

/// Returns at least the bytes that an element without timeout takes in a message.
fn element_size<A: Address>(element: &Element<A>) -> usize {
    let value = match element.value {
        Value::Nothing => 0,
        Value::Verdict(_) => VERDICT,
        Value::Endpoint(..) | Value::Address(_) => data_size(ENDPOINT),
    };
    let comment = element.comment.as_ref().map_or(0, |comment: &Comment| {
        attribute_size(comment.len() + COMMENT_OVERHEAD)
    });
    key_size(&element.key) + value + comment
}

/// Appends an element's key, and for a range the element that ends it.
fn push_key<A: Address>(set: &mut ffi::Set, key: &Key<A>) {
    set.push(key_element(key));
    if let Some(end) = interval_end(key) {
        set.push(end);
    }
}

/// Returns an element with a key alone.
fn key_element<A: Address>(key: &Key<A>) -> Elem {
    let mut elem = Elem::new();
    elem.set_register(sys::NFTNL_SET_ELEM_KEY, &key.to_bytes());
    if let Some(end) = key.end_bytes() {
        elem.set_register(sys::NFTNL_SET_ELEM_KEY_END, &end);
    }
    elem
}

/// Returns the element that ends a range: the address after it. A range to the last address has
/// none.
fn interval_end<A: Address>(key: &Key<A>) -> Option<Elem> {
    let Key::Net(net) = key else { return None };
    let mut bytes = Vec::new();
    A::bounds(*net).1?.push_bytes(&mut bytes);
    let mut elem = Elem::new();
    elem.set_register(sys::NFTNL_SET_ELEM_KEY, &bytes)
        .set_u32(sys::NFTNL_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    Some(elem)
}

/// Returns a time in milliseconds.
#[expect(
    clippy::expect_used,
    reason = "a time is a Service's timeout, of at most a day, or what the kernel dumped in 64 bits"
)]
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a time of fewer than 2^64 ms")
}

/// Appends an element, and for a range the element that ends it.
fn push_element<A: Address>(
    set: &mut ffi::Set,
    element: &Element<A>,
    time: Option<ElementTimeout>,
) {
    let mut elem = key_element(&element.key);
    match element.value {
        Value::Nothing => {}
        Value::Verdict(verdict) => {
            match verdict.chain() {
                Some(chain) => elem
                    .set(sys::NFTNL_SET_ELEM_VERDICT, &NFT_GOTO.to_ne_bytes())
                    .set_str(sys::NFTNL_SET_ELEM_CHAIN, &name(&chain.to_string())),
                None => elem.set(sys::NFTNL_SET_ELEM_VERDICT, &NF_DROP.to_ne_bytes()),
            };
        }
        Value::Endpoint(..) | Value::Address(_) => {
            if let Some(bytes) = element.value.endpoint_bytes() {
                elem.set_register(sys::NFTNL_SET_ELEM_DATA, &bytes);
            }
        }
    }
    if let Some(comment) = &element.comment {
        elem.set(sys::NFTNL_SET_ELEM_USERDATA, &name_data(comment));
    }
    if let Some(ElementTimeout { whole, left }) = time {
        for (kind, time) in [
            (sys::NFTNL_SET_ELEM_TIMEOUT, whole),
            (sys::NFTNL_SET_ELEM_EXPIRATION, left),
        ] {
            elem.set(kind, &milliseconds(time).to_ne_bytes());
        }
    }
    set.push(elem);
    if let Some(end) = interval_end(&element.key) {
        set.push(end);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::netlink::socket::attribute;
    use crate::netlink::uapi::nf_tables::NFTA_SET_ELEM_LIST_ELEMENTS;
    use crate::planner::diff::Operation;
    use crate::planner::model::{Balance, Protocol, ServiceName};
    use crate::planner::ruleset::{DynamicChain, FrontendKind, SlotRange, Verdict};

    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 7);

    /// Returns the bytes of elements in the only message of an operation.
    fn encoded_size(op: Op<Ipv6Addr>) -> usize {
        let operations = vec![Operation { op, service: None }];
        let mut batch = Batch::new();
        push(&mut batch, &Transaction { operations });
        let batch = batch.finish();
        let lists: Vec<_> = batch
            .pages()
            .iter()
            .flat_map(|page| attribute::messages(page))
            .filter_map(|message| {
                let attributes = message.unwrap().attributes();
                attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS)
            })
            .map(|list| list.value.len())
            .collect();
        assert_eq!(lists.len(), 1);
        lists[0]
    }

    fn element(set: SetName, key: Key<Ipv6Addr>, value: Value<Ipv6Addr>) -> Element<Ipv6Addr> {
        let service = ServiceName::new(&"n".repeat(63), &"s".repeat(63));
        Element {
            set,
            key,
            value,
            comment: Some(Comment::new(&service, &"p".repeat(15))),
        }
    }

    #[test]
    fn a_chain_with_its_rules_is_not_longer_than_the_bound_of_an_operation() {
        let bytes = |operations| {
            let mut batch = Batch::new();
            push::<Ipv6Addr>(&mut batch, &Transaction { operations });
            let batch = batch.finish();
            let pages = batch.pages();
            pages.iter().map(|page| page.len()).sum::<usize>()
        };
        let empty = bytes(Vec::new());
        for frontends in FrontendKind::ALL {
            for chain in [
                DynamicChain::Pick(frontends, SlotRange::Cluster, u32::MAX),
                DynamicChain::Hashed(Balance::Maglev, frontends, SlotRange::Cluster, u32::MAX),
                DynamicChain::Sticky(frontends, SlotRange::Cluster, u32::MAX),
                DynamicChain::Learn(u32::MAX),
                DynamicChain::Gone,
            ] {
                let op = Op::AddChain(chain);
                let operation = Operation { op, service: None };
                let chain_bytes = u64::try_from(bytes(vec![operation]) - empty).unwrap();
                assert!(chain_bytes <= LONGEST_OPERATION, "{chain}: {chain_bytes}");
            }
        }
    }

    #[test]
    fn an_element_is_not_longer_than_its_bound() {
        let tcp = Protocol::Tcp;
        let net = "fd00::/64".parse().unwrap();
        let sticky = DynamicChain::Sticky(FrontendKind::Nodeport, SlotRange::Cluster, u32::MAX);
        let goto = Value::Verdict(Verdict::Dynamic(sticky));
        let endpoint = Value::Endpoint(ADDRESS, 443);
        let elements = [
            element(SetName::ServiceCidrs, Key::Net(net), Value::Nothing),
            element(SetName::Services, Key::Frontend(tcp, ADDRESS, 443), goto),
            element(
                SetName::Endpoints,
                Key::Slot(tcp, ADDRESS, 443, u32::MAX),
                endpoint,
            ),
            element(
                SetName::SourceRanges,
                Key::SourceRange(tcp, ADDRESS, 443, net),
                Value::Nothing,
            ),
        ];
        for element in elements {
            let bound = element_size(&element);
            let (set, key) = (element.set, element.key);
            assert!(encoded_size(Op::Add(element)) <= bound, "{set}");
            assert!(
                encoded_size(Op::Delete(set, key)) <= key_size(&key),
                "{set}"
            );
        }
        let time = ElementTimeout {
            whole: Duration::from_hours(3),
            left: Duration::from_secs(1),
        };
        let client = element(
            SetName::Affinity(tcp),
            Key::Client(ADDRESS, ADDRESS, 443),
            endpoint,
        );
        let bound = element_size(&client) + TIMEOUT;
        assert!(encoded_size(Op::AddFor(client, time)) <= bound);
    }
}
