//! Operations and the fixed program as netlink messages.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use nftnl::nftnl_sys::{self as sys, libc};

use super::{NFT_DATA_VERDICT, expr, name};
use crate::netlink::ffi::{self, Elem, Expr, NftMessage, Payload, Rule};
use crate::netlink::nf_tables::batch::{Batch, MessageSubject};
use crate::netlink::uapi::NFT_MSG_DESTROYSETELEM;
use crate::planner::diff::{ElementTimeout, Op, Transaction};
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{
    Chain, Comment, Element, ElementType, Key, Program, Set, SetName, TABLE, Value, program,
};

/// The bytes of elements in one message. The list of elements is one attribute, whose length is
/// 16 bits; what is counted here is an upper bound of each element.
///
/// It hardly matters: 170,000 elements (10,000 Services with 10 endpoints) are committed in 0.26 to 0.33 s
/// with 2,000, 8,000, 30,000 or 60,000 bytes a message. Nor are they split into several transactions:
/// there would be a time with half of them, and each would make the kernel validate the table.
const MAX_ELEMENTS: usize = 60_000;

/// `NFT_SET_CONCAT` of `linux/netfilter/nf_tables.h` (Linux 5.6).
const NFT_SET_CONCAT: i32 = 0x80;

/// A time is an attribute of 8 bytes.
const TIME: usize = 4 + 8;

/// `NFT_GOTO` elements need the chain's name; everything else of a verdict is of fixed size.
const VERDICT_OVERHEAD: usize = 32;

/// `NFTNL_UDATA_TABLE_COMMENT` and `NFTNL_UDATA_SET_ELEM_COMMENT` of libnftnl's `udata.h`.
pub(crate) const COMMENT: u8 = 0;
/// Ours: what of a name does not fit into a comment. libnftnl numbers its own kinds from 0.
pub(crate) const REST_OF_NAME: u8 = 128;

/// netfilter's number of a family.
pub(crate) fn family_number(family: Family) -> u8 {
    let number = match family {
        Family::Ipv4 => libc::NFPROTO_IPV4,
        Family::Ipv6 => libc::NFPROTO_IPV6,
    };
    // NFPROTO_* are below 13.
    u8::try_from(number).unwrap_or(0)
}

pub(crate) fn message(kind: i32, family: Family, flags: i32, payload: Payload) -> NftMessage {
    NftMessage {
        kind,
        family: family_number(family).into(),
        flags,
        payload,
        sequence: 0.into(),
    }
}

/// A comment as nft keeps it in user data: kind, length, text with a NUL.
pub(crate) fn comment_data(comment: &str) -> Vec<u8> {
    text_data(COMMENT, comment)
}

fn text_data(kind: u8, text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[kind, len], text, &[0]].concat()
}

/// The name of a Service's port: a comment, and after it what does not fit into one. nft passes over
/// kinds that it does not know.
fn name_data(name: &Comment) -> Vec<u8> {
    let (comment, rest) = name.parts();
    let mut data = comment_data(comment);
    if let Some(rest) = rest {
        data.extend(text_data(REST_OF_NAME, rest));
    }
    data
}

/// Adds the sets, chains and rules of an empty table.
pub(crate) fn push_program(batch: &mut Batch, family: Family, fixed: &Program) {
    push_objects(batch, family, fixed, &program(fixed));
}

/// Adds the sets of a program, and these chains.
pub(crate) fn push_objects(batch: &mut Batch, family: Family, fixed: &Program, chains: &[Chain]) {
    for (id, name) in (1..).zip(SetName::all()) {
        let about = MessageSubject::Program(format!("add {name}"));
        batch.push(&declaration(&fixed.set(name), id, family), about);
    }
    for chain in chains {
        push_chain(batch, chain, family);
    }
    for chain in chains {
        push_rules(batch, chain, family, &|| {
            MessageSubject::Program(format!("add rule {}", chain.name))
        });
    }
}

fn declaration(declared: &Set, id: u32, family: Family) -> NftMessage {
    let mut flags = 0;
    if declared.is_interval() {
        flags |= libc::NFT_SET_INTERVAL;
    }
    let mut object = ffi::Set::new();
    if declared.is_interval() && !declared.is_ranges() {
        flags |= NFT_SET_CONCAT;
        let lens = declared.key.iter().map(|field| field.len(family));
        let lens: Vec<u8> = lens.filter_map(|len| u8::try_from(len).ok()).collect();
        object.set(sys::NFTNL_SET_DESC_CONCAT, &lens);
    }
    if let Some(size) = declared.dynamic {
        flags |= libc::NFT_SET_EVAL | libc::NFT_SET_TIMEOUT;
        object.set_u32(sys::NFTNL_SET_DESC_SIZE, size);
    }
    object
        .set_u32(sys::NFTNL_SET_FAMILY, family_number(family).into())
        .set_str(sys::NFTNL_SET_TABLE, &name(TABLE))
        .set_str(sys::NFTNL_SET_NAME, &name(declared.name.as_str()))
        .set_u32(sys::NFTNL_SET_ID, id)
        .set_u32(sys::NFTNL_SET_KEY_TYPE, declared.key_type(family))
        .set_u32(sys::NFTNL_SET_KEY_LEN, declared.key_len(family))
        .set(sys::NFTNL_SET_USERDATA, &declared.user_data(family));
    match declared.data {
        ElementType::Nothing => {}
        ElementType::Verdict => {
            flags |= libc::NFT_SET_MAP;
            object
                .set_u32(sys::NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT)
                .set_u32(sys::NFTNL_SET_DATA_LEN, 0);
        }
        ElementType::Endpoint => {
            flags |= libc::NFT_SET_MAP;
            object
                .set_u32(sys::NFTNL_SET_DATA_TYPE, Set::endpoint_type(family))
                .set_u32(sys::NFTNL_SET_DATA_LEN, Set::endpoint_len(family));
        }
    }
    object.set_u32(sys::NFTNL_SET_FLAGS, flags.unsigned_abs());
    if declared.counter {
        object.push_expr(Expr::new(c"counter"));
    }
    message(
        libc::NFT_MSG_NEWSET,
        family,
        libc::NLM_F_CREATE,
        Payload::Set(object),
    )
}

fn chain_object(chain: &Chain, family: Family) -> ffi::Chain {
    let mut object = ffi::Chain::new();
    object
        .set_u32(sys::NFTNL_CHAIN_FAMILY, family_number(family).into())
        .set_str(sys::NFTNL_CHAIN_TABLE, &name(TABLE))
        .set_str(sys::NFTNL_CHAIN_NAME, &name(&chain.name.to_string()));
    if let Some((hook, priority)) = chain.hook {
        object
            .set_str(sys::NFTNL_CHAIN_TYPE, c"nat")
            .set_u32(sys::NFTNL_CHAIN_HOOKNUM, hook.number())
            .set(sys::NFTNL_CHAIN_PRIO, &priority.to_ne_bytes())
            .set_u32(sys::NFTNL_CHAIN_POLICY, libc::NF_ACCEPT.unsigned_abs());
    }
    object
}

fn push_chain(batch: &mut Batch, chain: &Chain, family: Family) {
    let payload = Payload::Chain(chain_object(chain, family));
    let message = message(libc::NFT_MSG_NEWCHAIN, family, libc::NLM_F_CREATE, payload);
    batch.push(
        &message,
        MessageSubject::Program(format!("add chain {}", chain.name)),
    );
}

/// The rules of a chain, in order.
pub(crate) fn rules(chain: &Chain, family: Family) -> impl Iterator<Item = Rule> {
    chain.rules.iter().map(move |statements| {
        let mut rule = Rule::new();
        rule.set_u32(sys::NFTNL_RULE_FAMILY, family_number(family).into())
            .set_str(sys::NFTNL_RULE_TABLE, &name(TABLE))
            .set_str(sys::NFTNL_RULE_CHAIN, &name(&chain.name.to_string()));
        for statement in statements {
            expr::push(&mut rule, statement, family);
        }
        rule
    })
}

fn push_rules(
    batch: &mut Batch,
    chain: &Chain,
    family: Family,
    about: &dyn Fn() -> MessageSubject,
) {
    for rule in rules(chain, family) {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        let message = message(libc::NFT_MSG_NEWRULE, family, flags, Payload::Rule(rule));
        batch.push(&message, about());
    }
}

/// Adds the messages of a transaction; neighbours that add to, or delete from, one set share one.
pub(crate) fn push_transaction<A: Address>(batch: &mut Batch, transaction: &Transaction<A>) {
    push_operations(batch, transaction, libc::NFT_MSG_DELSETELEM);
}

/// Adds the messages of a transaction that deletes elements which may be gone already (Linux 6.3).
pub(crate) fn push_tolerant<A: Address>(batch: &mut Batch, transaction: &Transaction<A>) {
    push_operations(batch, transaction, NFT_MSG_DESTROYSETELEM);
}

fn push_operations<A: Address>(batch: &mut Batch, transaction: &Transaction<A>, deletes: i32) {
    let family = A::FAMILY;
    let mut pending: Option<PendingElements> = None;
    for (index, operation) in transaction.operations.iter().enumerate() {
        let (kind, name) = match &operation.op {
            Op::Add(element) | Op::AddFor(element, _) => (libc::NFT_MSG_NEWSETELEM, element.set),
            Op::Delete(set, _) => (deletes, *set),
            Op::AddChain(balance) => {
                flush(batch, &mut pending, family);
                let about = || MessageSubject::Operations(family, index..index + 1);
                let chain = balance.chain();
                let payload = Payload::Chain(chain_object(&chain, family));
                let flags = libc::NLM_F_CREATE;
                batch.push(
                    &message(libc::NFT_MSG_NEWCHAIN, family, flags, payload),
                    about(),
                );
                push_rules(batch, &chain, family, &about);
                continue;
            }
            Op::DeleteChain(balance) => {
                flush(batch, &mut pending, family);
                let payload = Payload::Chain(chain_object(&balance.chain(), family));
                let message = message(libc::NFT_MSG_DELCHAIN, family, 0, payload);
                batch.push(
                    &message,
                    MessageSubject::Operations(family, index..index + 1),
                );
                continue;
            }
        };
        let size = match &operation.op {
            Op::Add(element) => element_size(element),
            Op::AddFor(element, _) => element_size(element) + 2 * TIME,
            Op::Delete(..) | Op::AddChain(_) | Op::DeleteChain(_) => 2 * (16 + 40),
        };
        let fits = pending.as_ref().is_some_and(|pending| {
            pending.kind == kind && pending.name == name && pending.size + size <= MAX_ELEMENTS
        });
        if !fits {
            flush(batch, &mut pending, family);
        }
        let pending =
            pending.get_or_insert_with(|| PendingElements::new(kind, name, index, family));
        pending.size += size;
        pending.operations.end = index + 1;
        match &operation.op {
            Op::Add(element) => push_element(&mut pending.set, element, None),
            Op::AddFor(element, time) => push_element(&mut pending.set, element, Some(*time)),
            Op::Delete(_, key) => push_key(&mut pending.set, key),
            Op::AddChain(_) | Op::DeleteChain(_) => {}
        }
    }
    flush(batch, &mut pending, family);
}

/// A message of elements that is not full yet.
struct PendingElements {
    kind: i32,
    name: SetName,
    set: ffi::Set,
    operations: Range<usize>,
    size: usize,
}

impl PendingElements {
    fn new(kind: i32, set_name: SetName, first: usize, family: Family) -> Self {
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

fn flush(batch: &mut Batch, pending: &mut Option<PendingElements>, family: Family) {
    if let Some(pending) = pending.take() {
        let flags = if pending.kind == libc::NFT_MSG_NEWSETELEM {
            libc::NLM_F_CREATE
        } else {
            0
        };
        let payload = Payload::Elements(pending.set);
        let message = message(pending.kind, family, flags, payload);
        batch.push(
            &message,
            MessageSubject::Operations(family, pending.operations),
        );
    }
}

/// At least the bytes that the element takes in a message: attributes with their headers.
fn element_size<A: Address>(element: &Element<A>) -> usize {
    let comment = element
        .comment
        .as_ref()
        .map_or(0, |comment| comment.len() + 15);
    let value = match element.value {
        Value::Nothing => 0,
        Value::Verdict(_) => VERDICT_OVERHEAD + 32,
        Value::Endpoint(..) => 8 + 20,
    };
    let nodes = if matches!(element.key, Key::Net(_) | Key::SourceRange(..)) {
        2
    } else {
        1
    };
    nodes * (16 + 40 + value + comment)
}

/// Appends an element's key: for a range, where it starts and where it ends.
fn push_key<A: Address>(set: &mut ffi::Set, key: &Key<A>) {
    let mut elem = Elem::new();
    elem.set_register(sys::NFTNL_SET_ELEM_KEY, &key.to_bytes());
    if let Some(end) = key.end_bytes() {
        elem.set_register(sys::NFTNL_SET_ELEM_KEY_END, &end);
    }
    set.push(elem);
    if let Some(end) = interval_end(key) {
        set.push(end);
    }
}

/// The address after a range, as the element that ends it; none if the range ends the space.
fn interval_end<A: Address>(key: &Key<A>) -> Option<Elem> {
    let Key::Net(net) = key else { return None };
    let mut bytes = Vec::new();
    A::bounds(*net).1?.push_bytes(&mut bytes);
    let mut elem = Elem::new();
    elem.set_register(sys::NFTNL_SET_ELEM_KEY, &bytes);
    let flag = libc::NFT_SET_ELEM_INTERVAL_END.unsigned_abs();
    elem.set_u32(sys::NFTNL_SET_ELEM_FLAGS, flag);
    Some(elem)
}

fn push_element<A: Address>(
    set: &mut ffi::Set,
    element: &Element<A>,
    time: Option<ElementTimeout>,
) {
    let mut elem = Elem::new();
    elem.set_register(sys::NFTNL_SET_ELEM_KEY, &element.key.to_bytes());
    if let Some(end) = element.key.end_bytes() {
        elem.set_register(sys::NFTNL_SET_ELEM_KEY_END, &end);
    }
    match element.value {
        Value::Nothing => {}
        Value::Verdict(verdict) => {
            let goto = libc::NFT_GOTO.to_ne_bytes();
            match verdict.chain() {
                Some(chain) => elem
                    .set(sys::NFTNL_SET_ELEM_VERDICT, &goto)
                    .set_str(sys::NFTNL_SET_ELEM_CHAIN, &name(&chain.to_string())),
                None => elem.set(sys::NFTNL_SET_ELEM_VERDICT, &libc::NF_DROP.to_ne_bytes()),
            };
        }
        Value::Endpoint(..) => {
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
            let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            elem.set(kind, &milliseconds.to_ne_bytes());
        }
    }
    set.push(elem);
    if let Some(end) = interval_end(&element.key) {
        set.push(end);
    }
}

/// The expressions of each rule of `chains` as `nft --debug=netlink` prints them: a line with the
/// chain's name, then one expression a line; a blank line between rules. For the tests that hold
/// our encoding against nft's own.
#[must_use]
pub fn debug_rules(family: Family, chains: &[Chain]) -> String {
    let of_chain = |chain: &Chain| {
        let name = chain.name;
        let rules = rules(chain, family);
        let texts = rules.map(move |rule| format!("{name}\n{}\n", rule.text()));
        texts.collect::<Vec<_>>()
    };
    let texts: Vec<_> = chains.iter().flat_map(of_chain).collect();
    texts.join("\n")
}

/// The largest key and endpoint fit a register of nf_tables.
const _: () = assert!(size_of::<Ipv6Addr>() * 2 <= 64 && size_of::<Ipv4Addr>() == 4);
