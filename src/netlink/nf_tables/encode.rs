//! The fixed program as netlink messages.

use nftnl::nftnl_sys as sys;

use super::{expr, name};
use crate::netlink::ffi::{self, Expr, NftMessage, Payload, Rule};
use crate::netlink::nf_tables::batch::{Batch, MessageSubject};
use crate::netlink::uapi::nf_tables::{
    NFT_DATA_VERDICT, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_SET_CONCAT,
    NFT_SET_EVAL, NFT_SET_INTERVAL, NFT_SET_MAP, NFT_SET_TIMEOUT,
};
use crate::netlink::uapi::{NF_ACCEPT, NFPROTO_IPV4, NFPROTO_IPV6, NLM_F_APPEND, NLM_F_CREATE};
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{
    Chain, Comment, ElementType, KeyField, Program, Set, SetName, TABLE, program,
};

/// The kind of user data that is a comment: `NFTNL_UDATA_TABLE_COMMENT` and
/// `NFTNL_UDATA_SET_ELEM_COMMENT` of libnftnl's `udata.h`.
pub(crate) const COMMENT: u8 = 0;

/// The kind of user data that is the rest of a name which does not fit into a comment. It is
/// kube-dnat's own; libnftnl numbers its kinds from 0.
pub(crate) const REST_OF_NAME: u8 = 128;

/// The kind of user data that has the label of a frontend, one byte.
pub(crate) const LABEL: u8 = 129;

/// Returns netfilter's number of a family.
pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => NFPROTO_IPV4,
        Family::Ipv6 => NFPROTO_IPV6,
    }
}

/// Makes a message of this type, `NFT_MSG_*`, with these flags, `NLM_F_*`.
pub(crate) fn message(kind: u8, family: Family, flags: u16, payload: Payload) -> NftMessage {
    NftMessage {
        kind,
        family: family_number(family),
        flags,
        payload,
        sequence: 0.into(),
    }
}

/// Returns the user data in which nft keeps a comment: kind, length, text with a NUL.
pub(crate) fn comment_data(comment: &str) -> Vec<u8> {
    text_data(COMMENT, comment)
}

/// Returns user data of this kind: the kind, the length, and the text with a NUL.
#[expect(
    clippy::expect_used,
    reason = "a comment has at most 128 bytes, and what follows it at most the 15 that are left of \
              a namespace (63), a Service's name (63), a port's name (15) and two separators"
)]
fn text_data(kind: u8, text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let len = u8::try_from(text.len() + 1).expect("a text shorter than 255 bytes");
    [&[kind, len], text, &[0]].concat()
}

/// Returns the user data with the name of a Service's port: a comment, then what does not fit into
/// it, then the label of a frontend. nft ignores kinds of user data that it does not know.
pub(crate) fn name_data(name: &Comment) -> Vec<u8> {
    let (comment, rest) = name.parts();
    let mut data = comment_data(comment);
    if let Some(rest) = rest {
        data.extend(text_data(REST_OF_NAME, rest));
    }
    if let Some(label) = name.label() {
        data.extend([LABEL, 1, label.to_byte()]);
    }
    data
}

/// Adds the messages that fill an empty table with the sets, chains and rules of a program.
pub(crate) fn push_program(batch: &mut Batch, family: Family, fixed: &Program) {
    push_objects(batch, family, fixed, &program(fixed));
}

/// Adds the messages that add the sets of a program, and these chains.
pub(crate) fn push_objects(batch: &mut Batch, family: Family, fixed: &Program, chains: &[Chain]) {
    for (id, name) in (1..).zip(SetName::all()) {
        let subject = MessageSubject::Program(format!("add {name}"));
        batch.push(&declaration(&fixed.set(name), id, family), subject);
    }
    for chain in chains {
        let subject = MessageSubject::Program(format!("add chain {}", chain.name));
        push_chain(batch, chain, family, subject);
    }
    for chain in chains {
        let subject = MessageSubject::Program(format!("add rule {}", chain.name));
        push_rules(batch, chain, family, &subject);
    }
}

/// Returns the message that adds a set or map; `id` names it within the batch.
fn declaration(declared: &Set, id: u32, family: Family) -> NftMessage {
    let mut flags = 0;
    if declared.is_interval() {
        flags |= NFT_SET_INTERVAL;
    }
    let mut object = ffi::Set::new();
    if declared.is_interval() && !declared.is_ranges() {
        flags |= NFT_SET_CONCAT;
        object.set(
            sys::NFTNL_SET_DESC_CONCAT,
            &field_lens(declared.key, family),
        );
    }
    if let Some(size) = declared.dynamic {
        flags |= NFT_SET_EVAL | NFT_SET_TIMEOUT;
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
            flags |= NFT_SET_MAP;
            object
                .set_u32(sys::NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT)
                .set_u32(sys::NFTNL_SET_DATA_LEN, 0);
        }
        ElementType::Endpoint | ElementType::Address => {
            flags |= NFT_SET_MAP;
            object
                .set_u32(sys::NFTNL_SET_DATA_TYPE, declared.data_type(family))
                .set_u32(sys::NFTNL_SET_DATA_LEN, declared.data_len(family));
        }
    }
    object.set_u32(sys::NFTNL_SET_FLAGS, flags);
    if declared.counter {
        object.push_expr(Expr::new(c"counter"));
    }
    message(NFT_MSG_NEWSET, family, NLM_F_CREATE, Payload::Set(object))
}

/// Returns the bytes of each field of a concatenation.
#[expect(clippy::expect_used, reason = "the longest field is an IPv6 address")]
fn field_lens(fields: &[KeyField], family: Family) -> Vec<u8> {
    let len = |field: &KeyField| u8::try_from(field.len(family)).expect("a field of 16 bytes");
    fields.iter().map(len).collect()
}

/// Returns a chain as libnftnl's object.
pub(crate) fn chain_object(chain: &Chain, family: Family) -> ffi::Chain {
    let mut object = ffi::Chain::new();
    object
        .set_u32(sys::NFTNL_CHAIN_FAMILY, family_number(family).into())
        .set_str(sys::NFTNL_CHAIN_TABLE, &name(TABLE))
        .set_str(sys::NFTNL_CHAIN_NAME, &name(&chain.name.to_string()));
    if let (Some((hook, priority)), Some(kind)) = (chain.hook, chain.chain_type()) {
        object
            .set_str(sys::NFTNL_CHAIN_TYPE, &name(kind.as_str()))
            .set_u32(sys::NFTNL_CHAIN_HOOKNUM, hook.number())
            .set(sys::NFTNL_CHAIN_PRIO, &priority.to_ne_bytes())
            .set_u32(sys::NFTNL_CHAIN_POLICY, NF_ACCEPT);
    }
    object
}

/// Adds the message that adds a chain, without its rules.
pub(crate) fn push_chain(
    batch: &mut Batch,
    chain: &Chain,
    family: Family,
    subject: MessageSubject,
) {
    let payload = Payload::Chain(chain_object(chain, family));
    let message = message(NFT_MSG_NEWCHAIN, family, NLM_F_CREATE, payload);
    batch.push(&message, subject);
}

/// Returns the rules of a chain, in order, as libnftnl's objects.
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

/// Adds the messages that append the rules of a chain to it.
pub(crate) fn push_rules(
    batch: &mut Batch,
    chain: &Chain,
    family: Family,
    subject: &MessageSubject,
) {
    for rule in rules(chain, family) {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        let message = message(NFT_MSG_NEWRULE, family, flags, Payload::Rule(rule));
        batch.push(&message, subject.clone());
    }
}

/// Returns the expressions of each rule of `chains` as `nft --debug=netlink` prints them, for the
/// tests that compare our encoding with nft's.
///
/// A rule is a line with the chain's name, then one expression a line; a blank line separates
/// rules.
#[must_use]
pub fn debug_rules(family: Family, chains: &[Chain]) -> String {
    let texts: Vec<_> = chains
        .iter()
        .flat_map(|chain| {
            rules(chain, family).map(|rule| format!("{}\n{}\n", chain.name, rule.text()))
        })
        .collect();
    texts.join("\n")
}
