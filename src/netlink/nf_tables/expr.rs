//! Statements as libnftnl's expressions, encoded as nft encodes them.
//!
//! The fields of a concatenation are in consecutive registers of 4 bytes; like nft, we name the
//! first of every four by its 16-byte name (`NFT_REG_1`..`NFT_REG_4`).

use nftnl::nftnl_sys as sys;

use super::name;
use crate::netlink::ffi::{Expr, Rule};
use crate::netlink::uapi::conntrack::{
    IP_CT_DIR_ORIGINAL, IPS_CONFIRMED, IPS_DST_NAT, NF_CT_STATE_INVALID_BIT, NF_NAT_RANGE_MAP_IPS,
    NF_NAT_RANGE_PROTO_RANDOM_FULLY, NF_NAT_RANGE_PROTO_SPECIFIED,
};
use crate::netlink::uapi::nf_tables::{
    ICMP_PORT_UNREACH, ICMPV6_PORT_UNREACH, IFNAMSIZ, NFT_CMP_EQ, NFT_CMP_NEQ, NFT_CT_DIRECTION,
    NFT_CT_DST_IP, NFT_CT_DST_IP6, NFT_CT_PROTO_DST, NFT_CT_STATE, NFT_CT_STATUS,
    NFT_DYNSET_OP_DELETE, NFT_DYNSET_OP_UPDATE, NFT_FIB_RESULT_ADDRTYPE, NFT_GOTO,
    NFT_HASH_JENKINS, NFT_JUMP, NFT_LOOKUP_F_INV, NFT_META_IIFNAME, NFT_META_L4PROTO, NFT_NAT_DNAT,
    NFT_NG_RANDOM, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER, NFT_REG_1,
    NFT_REG_VERDICT, NFT_REG32_00, NFT_REJECT_ICMP_UNREACH, NFT_REJECT_TCP_RST, NFT_RETURN,
    NFTA_FIB_F_DADDR, NFTA_FIB_F_SADDR, RTN_LOCAL,
};
use crate::netlink::uapi::{NF_DROP, NFPROTO_IPV4, NFPROTO_IPV6, TCP_FLAG_RST, TCP_FLAG_SYN};
use crate::planner::model::addr::Family;
use crate::planner::model::{Balance, Protocol};
use crate::planner::ruleset::{
    ChainName, ElementType, Interface, LookupField, SetName, Statement, set,
};

/// Appends the expressions of `statement` to `rule`.
pub(crate) fn push(rule: &mut Rule, statement: &Statement, family: Family) {
    match statement {
        Statement::CtStatusNotDnat => push_status_unlike(rule, IPS_DST_NAT, IPS_DST_NAT),
        Statement::CtStatusConfirmed => push_status_unlike(rule, IPS_CONFIRMED, 0),
        Statement::CtStateNotInvalid => {
            rule.push(ct(NFT_CT_STATE, register(0)))
                .push(compare(NFT_CMP_NEQ, &NF_CT_STATE_INVALID_BIT.to_ne_bytes()));
        }
        Statement::TcpMidstream => push_midstream(rule),
        Statement::SourceIsLocal => push_is_local(rule, NFTA_FIB_F_SADDR),
        Statement::DestinationIsLocal => push_is_local(rule, NFTA_FIB_F_DADDR),
        Statement::InputInterface {
            interface,
            inverted,
        } => push_input_interface(rule, interface, *inverted),
        Statement::UpdateAffinity { protocol, seconds } => {
            push_client(rule, *protocol, NFT_DYNSET_OP_UPDATE, *seconds, family);
        }
        Statement::DeleteAffinity { protocol } => {
            // A deletion has no timeout, which the kernel dumps as 0.
            push_client(rule, *protocol, NFT_DYNSET_OP_DELETE, 0, family);
        }
        Statement::Protocol(protocol) => push_protocol(rule, *protocol),
        Statement::Lookup {
            fields,
            set,
            inverted,
        } => {
            push_fields(rule, fields, family);
            rule.push(lookup(set.as_str(), *inverted));
        }
        Statement::Vmap { fields, map } => {
            push_fields(rule, fields, family);
            let mut lookup = lookup(map.as_str(), false);
            lookup.set_u32(sys::NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
            rule.push(lookup);
        }
        Statement::Dnat { fields, map } => {
            push_fields(rule, fields, family);
            let mut lookup = lookup(map.as_str(), false);
            lookup.set_u32(sys::NFTNL_EXPR_LOOKUP_DREG, register(0));
            rule.push(lookup).push(dnat(set(*map).data, family));
        }
        Statement::Masquerade => {
            rule.push(masquerade());
        }
        Statement::RejectTcp => {
            push_protocol(rule, Protocol::Tcp);
            rule.push(reject(NFT_REJECT_TCP_RST, 0));
        }
        Statement::Reject => {
            let code = match family {
                Family::Ipv4 => ICMP_PORT_UNREACH,
                Family::Ipv6 => ICMPV6_PORT_UNREACH,
            };
            rule.push(reject(NFT_REJECT_ICMP_UNREACH, code));
        }
        Statement::Drop => push_verdict(rule, NF_DROP, None),
        Statement::Return => push_verdict(rule, NFT_RETURN, None),
        Statement::Jump(chain) => push_verdict(rule, NFT_JUMP, Some(*chain)),
        Statement::Goto(chain) => push_verdict(rule, NFT_GOTO, Some(*chain)),
    }
}

/// Returns the register of the 4-byte word at `index` of a concatenation.
fn register(index: u32) -> u32 {
    if index.is_multiple_of(4) {
        NFT_REG_1 + index / 4
    } else {
        NFT_REG32_00 + index
    }
}

/// Loads the fields of a concatenation into registers, from the first on.
fn push_fields(rule: &mut Rule, fields: &[LookupField], family: Family) {
    let mut index = 0;
    for field in fields {
        push_field(rule, *field, family, index);
        index += words(&[*field], family);
    }
}

/// Returns the number of registers of 4 bytes that the fields take.
fn words(fields: &[LookupField], family: Family) -> u32 {
    let field_words = |field: &LookupField| match (field, family) {
        (LookupField::Saddr | LookupField::Daddr | LookupField::OriginalDaddr, Family::Ipv6) => 4,
        _ => 1,
    };
    fields.iter().map(field_words).sum()
}

/// Loads a field into the registers from the one of the word at `index` on.
fn push_field(rule: &mut Rule, field: LookupField, family: Family, index: u32) {
    let register = register(index);
    let load = match (field, family) {
        (LookupField::Protocol, _) => meta_protocol(register),
        (LookupField::Saddr, Family::Ipv4) => payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4, register),
        (LookupField::Daddr, Family::Ipv4) => payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4, register),
        (LookupField::Saddr, Family::Ipv6) => payload(NFT_PAYLOAD_NETWORK_HEADER, 8, 16, register),
        (LookupField::Daddr, Family::Ipv6) => payload(NFT_PAYLOAD_NETWORK_HEADER, 24, 16, register),
        (LookupField::Dport | LookupField::TcpDport, _) => {
            payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register)
        }
        (LookupField::OriginalDaddr, Family::Ipv4) => original(NFT_CT_DST_IP, register),
        (LookupField::OriginalDaddr, Family::Ipv6) => original(NFT_CT_DST_IP6, register),
        (LookupField::OriginalDport, _) => original(NFT_CT_PROTO_DST, register),
        (LookupField::Direction, _) => ct(NFT_CT_DIRECTION, register),
        (LookupField::Random { slots, list }, _) => {
            let mut numgen = Expr::new(c"numgen");
            numgen
                .set_u32(sys::NFTNL_EXPR_NG_DREG, register)
                .set_u32(sys::NFTNL_EXPR_NG_TYPE, NFT_NG_RANDOM)
                .set_u32(sys::NFTNL_EXPR_NG_MODULUS, slots)
                .set_u32(sys::NFTNL_EXPR_NG_OFFSET, list.base());
            numgen
        }
        (LookupField::Hash { input, slots, list }, _) => {
            let (hashed, len) = push_hash_input(rule, input, family, index + 1 + HASH_INPUT_GAP);
            let mut hash = Expr::new(c"hash");
            hash.set_u32(sys::NFTNL_EXPR_HASH_SREG, hashed)
                .set_u32(sys::NFTNL_EXPR_HASH_DREG, register)
                .set_u32(sys::NFTNL_EXPR_HASH_LEN, len)
                .set_u32(sys::NFTNL_EXPR_HASH_MODULUS, slots)
                .set_u32(sys::NFTNL_EXPR_HASH_SEED, LookupField::HASH_SEED)
                .set_u32(sys::NFTNL_EXPR_HASH_OFFSET, list.base())
                .set_u32(sys::NFTNL_EXPR_HASH_TYPE, NFT_HASH_JENKINS);
            hash
        }
    };
    rule.push(load);
}

/// The words that nft leaves between the key of a look-up and what a hash in it reads.
const HASH_INPUT_GAP: u32 = 4;

/// Loads what a hash reads into the registers from the one of the word at `index` on; returns its
/// first register and its length in bytes.
fn push_hash_input(rule: &mut Rule, input: Balance, family: Family, index: u32) -> (u32, u32) {
    push_field(rule, LookupField::Saddr, family, index);
    let address = words(&[LookupField::Saddr], family);
    let port = match input {
        Balance::Source => 0,
        Balance::Maglev => {
            let register = register(index + address);
            rule.push(payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, register));
            1
        }
    };
    (register(index), (address + port) * 4)
}

/// Loads the transport protocol into a register.
fn meta_protocol(register: u32) -> Expr {
    let mut meta = Expr::new(c"meta");
    meta.set_u32(sys::NFTNL_EXPR_META_KEY, NFT_META_L4PROTO)
        .set_u32(sys::NFTNL_EXPR_META_DREG, register);
    meta
}

/// Loads `len` bytes of a header into a register.
fn payload(base: u32, offset: u32, len: u32, register: u32) -> Expr {
    let mut payload = Expr::new(c"payload");
    payload
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_BASE, base)
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset)
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_LEN, len)
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_DREG, register);
    payload
}

/// Loads a property of the connection into a register.
fn ct(key: u32, register: u32) -> Expr {
    let mut ct = Expr::new(c"ct");
    ct.set_u32(sys::NFTNL_EXPR_CT_KEY, key)
        .set_u32(sys::NFTNL_EXPR_CT_DREG, register);
    ct
}

/// Loads a property of the connection's original direction into a register.
fn original(key: u32, register: u32) -> Expr {
    let mut ct = ct(key, register);
    ct.set(sys::NFTNL_EXPR_CT_DIR, &[IP_CT_DIR_ORIGINAL]);
    ct
}

/// Appends `ct status & STATUS != VALUE`.
fn push_status_unlike(rule: &mut Rule, status: u32, value: u32) {
    rule.push(ct(NFT_CT_STATUS, register(0)))
        .push(bitwise(&status.to_ne_bytes()))
        .push(compare(NFT_CMP_NEQ, &value.to_ne_bytes()));
}

/// Appends `tcp flags ! syn,rst`.
fn push_midstream(rule: &mut Rule) {
    push_protocol(rule, Protocol::Tcp);
    rule.push(payload(NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, register(0)))
        .push(bitwise(&[TCP_FLAG_SYN | TCP_FLAG_RST]))
        .push(compare(NFT_CMP_EQ, &[0]));
}

/// Masks the first register.
fn bitwise(mask: &[u8]) -> Expr {
    let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let mut bitwise = Expr::new(c"bitwise");
    bitwise
        .set_u32(sys::NFTNL_EXPR_BITWISE_SREG, register(0))
        .set_u32(sys::NFTNL_EXPR_BITWISE_DREG, register(0))
        .set_u32(sys::NFTNL_EXPR_BITWISE_LEN, len)
        .set_register(sys::NFTNL_EXPR_BITWISE_MASK, mask)
        .set_register(sys::NFTNL_EXPR_BITWISE_XOR, &[0; 4][..mask.len()]);
    bitwise
}

/// Appends `fib saddr type local`, or `fib daddr type local`.
fn push_is_local(rule: &mut Rule, flags: u32) {
    let mut fib = Expr::new(c"fib");
    fib.set_u32(sys::NFTNL_EXPR_FIB_DREG, register(0))
        .set_u32(sys::NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
        .set_u32(sys::NFTNL_EXPR_FIB_FLAGS, flags);
    rule.push(fib)
        .push(compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes()));
}

/// Appends `iifname "NAME"`, compared with its NUL bytes, or `iifname "PREFIX*"`, compared without.
fn push_input_interface(rule: &mut Rule, interface: &Interface, inverted: bool) {
    let mut meta = Expr::new(c"meta");
    meta.set_u32(sys::NFTNL_EXPR_META_KEY, NFT_META_IIFNAME)
        .set_u32(sys::NFTNL_EXPR_META_DREG, register(0));
    let value = match interface {
        Interface::Named(name) => {
            let mut value = name.as_bytes().to_vec();
            value.resize(IFNAMSIZ, 0);
            value
        }
        Interface::Prefixed(prefix) => prefix.as_bytes().to_vec(),
    };
    rule.push(meta).push(compare(equal(inverted), &value));
}

/// Returns the operator of a match that may be inverted.
fn equal(inverted: bool) -> u32 {
    if inverted { NFT_CMP_NEQ } else { NFT_CMP_EQ }
}

/// Appends what updates or deletes a client in the affinity map of a protocol.
///
/// The data follows the key in the registers; for IPv4 it begins at a register of 16 bytes. (nft
/// 1.0.6 cannot parse this rule for IPv6, but lists it.)
fn push_client(rule: &mut Rule, protocol: Protocol, operation: u32, seconds: u32, family: Family) {
    let key = [
        LookupField::Saddr,
        LookupField::OriginalDaddr,
        LookupField::OriginalDport,
    ];
    push_fields(rule, &key, family);
    let data = match family {
        Family::Ipv4 => words(&key, family).next_multiple_of(4),
        // The key takes nine and the data five of the sixteen words.
        Family::Ipv6 => words(&key, family),
    };
    let mut index = data;
    for field in [LookupField::Daddr, LookupField::Dport] {
        push_field(rule, field, family, index);
        index += words(&[field], family);
    }
    let mut dynset = Expr::new(c"dynset");
    let milliseconds = u64::from(seconds) * 1000;
    dynset
        .set_u32(sys::NFTNL_EXPR_DYNSET_SREG_KEY, register(0))
        .set_u32(sys::NFTNL_EXPR_DYNSET_SREG_DATA, register(data))
        .set_u32(sys::NFTNL_EXPR_DYNSET_OP, operation)
        .set(sys::NFTNL_EXPR_DYNSET_TIMEOUT, &milliseconds.to_ne_bytes())
        .set_str(
            sys::NFTNL_EXPR_DYNSET_SET_NAME,
            &name(SetName::Affinity(protocol).as_str()),
        );
    rule.push(dynset);
}

/// Appends a match of the transport protocol.
fn push_protocol(rule: &mut Rule, protocol: Protocol) {
    rule.push(meta_protocol(register(0)))
        .push(compare(NFT_CMP_EQ, &[protocol.number()]));
}

/// Compares the first register with a value.
fn compare(operator: u32, value: &[u8]) -> Expr {
    let mut cmp = Expr::new(c"cmp");
    cmp.set_u32(sys::NFTNL_EXPR_CMP_SREG, register(0))
        .set_u32(sys::NFTNL_EXPR_CMP_OP, operator)
        .set_register(sys::NFTNL_EXPR_CMP_DATA, value);
    cmp
}

/// Looks up the registers in a set or map.
fn lookup(set: &str, inverted: bool) -> Expr {
    let flags = if inverted { NFT_LOOKUP_F_INV } else { 0 };
    let mut lookup = Expr::new(c"lookup");
    lookup
        .set_u32(sys::NFTNL_EXPR_LOOKUP_FLAGS, flags)
        .set_u32(sys::NFTNL_EXPR_LOOKUP_SREG, register(0))
        .set_str(sys::NFTNL_EXPR_LOOKUP_SET, &name(set));
    lookup
}

/// Returns `masquerade fully-random`.
fn masquerade() -> Expr {
    let mut masquerade = Expr::new(c"masq");
    masquerade.set_u32(sys::NFTNL_EXPR_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
    masquerade
}

/// Returns DNAT to the address, and the port if there is one, that a lookup wrote to the registers.
fn dnat(value: ElementType, family: Family) -> Expr {
    let (protocol, port) = match family {
        Family::Ipv4 => (NFPROTO_IPV4, register(1)),
        Family::Ipv6 => (NFPROTO_IPV6, register(4)),
    };
    let mut nat = Expr::new(c"nat");
    nat.set_u32(sys::NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT)
        .set_u32(sys::NFTNL_EXPR_NAT_FAMILY, protocol.into())
        .set_u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, register(0))
        .set_u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MAX, register(0));
    let mut flags = NF_NAT_RANGE_MAP_IPS;
    if value == ElementType::Endpoint {
        flags |= NF_NAT_RANGE_PROTO_SPECIFIED;
        nat.set_u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, port)
            .set_u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MAX, port);
    }
    nat.set_u32(sys::NFTNL_EXPR_NAT_FLAGS, flags);
    nat
}

/// Returns a rejection of this type, with an ICMP code.
fn reject(kind: u32, code: u8) -> Expr {
    let mut reject = Expr::new(c"reject");
    reject
        .set_u32(sys::NFTNL_EXPR_REJECT_TYPE, kind)
        .set(sys::NFTNL_EXPR_REJECT_CODE, &[code]);
    reject
}

/// Appends a verdict, with the chain that it goes to.
fn push_verdict(rule: &mut Rule, code: i32, chain: Option<ChainName>) {
    let mut immediate = Expr::new(c"immediate");
    immediate
        .set_u32(sys::NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT)
        .set(sys::NFTNL_EXPR_IMM_VERDICT, &code.to_ne_bytes());
    if let Some(chain) = chain {
        immediate.set_str(sys::NFTNL_EXPR_IMM_CHAIN, &name(&chain.to_string()));
    }
    rule.push(immediate);
}
