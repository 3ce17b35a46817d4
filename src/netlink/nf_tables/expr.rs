//! Statements as libnftnl's expressions, encoded as nft encodes them.
//!
//! Fields of a concatenation take registers one after the other, 4 bytes each; nft calls the
//! first of every four by its 16-byte name (`NFT_REG_1`..`NFT_REG_4`).

use nftnl::nftnl_sys::{self as sys, libc};

use super::name;
use crate::netlink::ffi::{Expr, Rule};
use crate::planner::model::Protocol;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{ChainName, Interface, LookupField, SetName, Statement};

/// `IP_CT_DIR_ORIGINAL` of `linux/netfilter/nf_conntrack_tuple_common.h`.
const ORIGINAL: u8 = 0;
/// `IPS_CONFIRMED` and `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const CT_STATUS_CONFIRMED: u32 = 1 << 3;
const CT_STATUS_DNAT: u32 = 1 << 5;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED` of `linux/netfilter/nf_nat.h`.
const NAT_FLAGS: u32 = 3;
/// `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR` and `NFT_FIB_RESULT_ADDRTYPE` of `linux/netfilter/nf_tables.h`.
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_RESULT_ADDRTYPE: u32 = 3;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const FULLY_RANDOM: u32 = 1 << 4;
/// `NFT_DYNSET_OP_DELETE` of `linux/netfilter/nf_tables.h` (Linux 5.4).
const NFT_DYNSET_OP_DELETE: u32 = 2;
/// `NF_INET_*`: `NFT_NAT_DNAT`, `NFT_NG_RANDOM`, ICMP codes.
const PORT_UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE_V6: u8 = 4;

/// Appends the expressions of `statement` to `rule`.
pub(crate) fn push(rule: &mut Rule, statement: &Statement, family: Family) {
    match statement {
        Statement::CtStatusNotDnat => push_status_unlike(rule, CT_STATUS_DNAT, CT_STATUS_DNAT),
        Statement::CtStatusConfirmed => push_status_unlike(rule, CT_STATUS_CONFIRMED, 0),
        Statement::SourceIsLocal => push_is_local(rule, FIB_SADDR),
        Statement::DestinationIsLocal => push_is_local(rule, FIB_DADDR),
        Statement::InputInterface {
            interface,
            inverted,
        } => push_input_interface(rule, interface, *inverted),
        Statement::UpdateAffinity { protocol, seconds } => {
            let update = libc::NFT_DYNSET_OP_UPDATE.unsigned_abs();
            push_client(rule, *protocol, update, Some(*seconds), family);
        }
        Statement::DeleteAffinity { protocol } => {
            push_client(rule, *protocol, NFT_DYNSET_OP_DELETE, None, family);
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
            let verdict = libc::NFT_REG_VERDICT.unsigned_abs();
            lookup.set_u32(sys::NFTNL_EXPR_LOOKUP_DREG, verdict);
            rule.push(lookup);
        }
        Statement::Dnat { fields, map } => {
            push_fields(rule, fields, family);
            let mut lookup = lookup(map.as_str(), false);
            lookup.set_u32(sys::NFTNL_EXPR_LOOKUP_DREG, register(0));
            rule.push(lookup).push(dnat(family));
        }
        Statement::Masquerade => {
            rule.push(masquerade());
        }
        Statement::RejectTcp => {
            push_protocol(rule, Protocol::Tcp);
            rule.push(reject(libc::NFT_REJECT_TCP_RST, 0));
        }
        Statement::Reject => {
            let code = match family {
                Family::Ipv4 => PORT_UNREACHABLE,
                Family::Ipv6 => PORT_UNREACHABLE_V6,
            };
            rule.push(reject(libc::NFT_REJECT_ICMP_UNREACH, code));
        }
        Statement::Drop => push_verdict(rule, libc::NF_DROP, None),
        Statement::Return => push_verdict(rule, libc::NFT_RETURN, None),
        Statement::Jump(chain) => push_verdict(rule, libc::NFT_JUMP, Some(*chain)),
        Statement::Goto(chain) => push_verdict(rule, libc::NFT_GOTO, Some(*chain)),
    }
}

/// The register of the 4-byte word at `index` of a concatenation.
fn register(index: u32) -> u32 {
    let first = libc::NFT_REG_1.unsigned_abs();
    let first_word = libc::NFT_REG32_00.unsigned_abs();
    if index.is_multiple_of(4) {
        first + index / 4
    } else {
        first_word + index
    }
}

fn push_fields(rule: &mut Rule, fields: &[LookupField], family: Family) {
    let mut index = 0;
    for field in fields {
        rule.push(load(*field, family, register(index)));
        index += words(&[*field], family);
    }
}

/// The registers of 4 bytes that the fields take.
fn words(fields: &[LookupField], family: Family) -> u32 {
    let of_field = |field: &LookupField| match (field, family) {
        (LookupField::Saddr | LookupField::Daddr | LookupField::OriginalDaddr, Family::Ipv6) => 4,
        _ => 1,
    };
    fields.iter().map(of_field).sum()
}

fn load(field: LookupField, family: Family, register: u32) -> Expr {
    match (field, family) {
        (LookupField::Protocol, _) => meta_protocol(register),
        (LookupField::Saddr, Family::Ipv4) => {
            payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 12, 4, register)
        }
        (LookupField::Daddr, Family::Ipv4) => {
            payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 16, 4, register)
        }
        (LookupField::Saddr, Family::Ipv6) => {
            payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 8, 16, register)
        }
        (LookupField::Daddr, Family::Ipv6) => {
            payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 24, 16, register)
        }
        (LookupField::Dport, _) => payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register),
        (LookupField::OriginalDaddr, Family::Ipv4) => original(libc::NFT_CT_DST_IP, register),
        (LookupField::OriginalDaddr, Family::Ipv6) => original(libc::NFT_CT_DST_IP6, register),
        (LookupField::OriginalDport, _) => original(libc::NFT_CT_PROTO_DST, register),
        (LookupField::Direction, _) => ct(libc::NFT_CT_DIRECTION, register),
        (LookupField::Random { slots, list }, _) => {
            let mut numgen = Expr::new(c"numgen");
            let random = libc::NFT_NG_RANDOM.unsigned_abs();
            numgen
                .set_u32(sys::NFTNL_EXPR_NG_DREG, register)
                .set_u32(sys::NFTNL_EXPR_NG_TYPE, random)
                .set_u32(sys::NFTNL_EXPR_NG_MODULUS, slots)
                .set_u32(sys::NFTNL_EXPR_NG_OFFSET, list.base());
            numgen
        }
    }
}

fn meta_protocol(register: u32) -> Expr {
    let mut meta = Expr::new(c"meta");
    let protocol = libc::NFT_META_L4PROTO.unsigned_abs();
    meta.set_u32(sys::NFTNL_EXPR_META_KEY, protocol)
        .set_u32(sys::NFTNL_EXPR_META_DREG, register);
    meta
}

fn payload(base: i32, offset: u32, len: u32, register: u32) -> Expr {
    let mut payload = Expr::new(c"payload");
    payload
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_BASE, base.unsigned_abs())
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset)
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_LEN, len)
        .set_u32(sys::NFTNL_EXPR_PAYLOAD_DREG, register);
    payload
}

fn ct(key: i32, register: u32) -> Expr {
    let mut ct = Expr::new(c"ct");
    ct.set_u32(sys::NFTNL_EXPR_CT_KEY, key.unsigned_abs())
        .set_u32(sys::NFTNL_EXPR_CT_DREG, register);
    ct
}

fn original(key: i32, register: u32) -> Expr {
    let mut ct = ct(key, register);
    ct.set(sys::NFTNL_EXPR_CT_DIR, &[ORIGINAL]);
    ct
}

/// `ct status & STATUS != VALUE`.
fn push_status_unlike(rule: &mut Rule, status: u32, value: u32) {
    let register = register(0);
    let mut bitwise = Expr::new(c"bitwise");
    bitwise
        .set_u32(sys::NFTNL_EXPR_BITWISE_SREG, register)
        .set_u32(sys::NFTNL_EXPR_BITWISE_DREG, register)
        .set_u32(sys::NFTNL_EXPR_BITWISE_LEN, 4)
        .set_u32(sys::NFTNL_EXPR_BITWISE_MASK, status)
        .set_u32(sys::NFTNL_EXPR_BITWISE_XOR, 0);
    rule.push(ct(libc::NFT_CT_STATUS, register))
        .push(bitwise)
        .push(compare(libc::NFT_CMP_NEQ, &value.to_ne_bytes()));
}

/// `fib saddr type local`, or `fib daddr type local`.
fn push_is_local(rule: &mut Rule, flags: u32) {
    let mut fib = Expr::new(c"fib");
    fib.set_u32(sys::NFTNL_EXPR_FIB_DREG, register(0))
        .set_u32(sys::NFTNL_EXPR_FIB_RESULT, FIB_RESULT_ADDRTYPE)
        .set_u32(sys::NFTNL_EXPR_FIB_FLAGS, flags);
    let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
    rule.push(fib).push(compare(libc::NFT_CMP_EQ, &local));
}

/// `iifname "NAME"`, compared with its NUL bytes; `iifname "PREFIX*"` without.
fn push_input_interface(rule: &mut Rule, interface: &Interface, inverted: bool) {
    let mut meta = Expr::new(c"meta");
    meta.set_u32(
        sys::NFTNL_EXPR_META_KEY,
        libc::NFT_META_IIFNAME.unsigned_abs(),
    )
    .set_u32(sys::NFTNL_EXPR_META_DREG, register(0));
    let value = match interface {
        Interface::Named(name) => {
            let mut value = name.as_bytes().to_vec();
            value.resize(libc::IFNAMSIZ, 0);
            value
        }
        Interface::Prefixed(prefix) => prefix.as_bytes().to_vec(),
    };
    rule.push(meta).push(compare(equal(inverted), &value));
}

fn equal(inverted: bool) -> i32 {
    if inverted {
        libc::NFT_CMP_NEQ
    } else {
        libc::NFT_CMP_EQ
    }
}

/// The key and the data take the registers one after the other, the data from a whole one on
/// where there is room. (nft 1.0.6 cannot parse this rule for IPv6, but lists it.)
fn push_client(
    rule: &mut Rule,
    protocol: Protocol,
    operation: u32,
    seconds: Option<u32>,
    family: Family,
) {
    let key = [
        LookupField::Saddr,
        LookupField::OriginalDaddr,
        LookupField::OriginalDport,
    ];
    push_fields(rule, &key, family);
    let data = match family {
        Family::Ipv4 => words(&key, family).next_multiple_of(4),
        // Of the sixteen words, nine are the key's and five the data's: none to spare.
        Family::Ipv6 => words(&key, family),
    };
    let mut index = data;
    for field in [LookupField::Daddr, LookupField::Dport] {
        rule.push(load(field, family, register(index)));
        index += words(&[field], family);
    }
    let mut dynset = Expr::new(c"dynset");
    // The kernel gives out 0 where there is none.
    let milliseconds = u64::from(seconds.unwrap_or(0)) * 1000;
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

fn push_protocol(rule: &mut Rule, protocol: Protocol) {
    rule.push(meta_protocol(register(0)))
        .push(compare(libc::NFT_CMP_EQ, &[protocol.number()]));
}

fn compare(operator: i32, value: &[u8]) -> Expr {
    let mut cmp = Expr::new(c"cmp");
    cmp.set_u32(sys::NFTNL_EXPR_CMP_SREG, register(0))
        .set_u32(sys::NFTNL_EXPR_CMP_OP, operator.unsigned_abs())
        .set(sys::NFTNL_EXPR_CMP_DATA, value);
    cmp
}

fn lookup(set: &str, inverted: bool) -> Expr {
    let inverted = if inverted { libc::NFT_LOOKUP_F_INV } else { 0 };
    let mut lookup = Expr::new(c"lookup");
    lookup
        .set_u32(sys::NFTNL_EXPR_LOOKUP_FLAGS, inverted.unsigned_abs())
        .set_u32(sys::NFTNL_EXPR_LOOKUP_SREG, register(0))
        .set_str(sys::NFTNL_EXPR_LOOKUP_SET, &name(set));
    lookup
}

fn masquerade() -> Expr {
    let mut masquerade = Expr::new(c"masq");
    masquerade.set_u32(sys::NFTNL_EXPR_MASQ_FLAGS, FULLY_RANDOM);
    masquerade
}

/// DNAT to the address and port that a look-up left in the registers.
fn dnat(family: Family) -> Expr {
    let (protocol, port) = match family {
        Family::Ipv4 => (libc::NFPROTO_IPV4, register(1)),
        Family::Ipv6 => (libc::NFPROTO_IPV6, register(4)),
    };
    let mut nat = Expr::new(c"nat");
    nat.set_u32(sys::NFTNL_EXPR_NAT_TYPE, libc::NFT_NAT_DNAT.unsigned_abs())
        .set_u32(sys::NFTNL_EXPR_NAT_FAMILY, protocol.unsigned_abs())
        .set_u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, register(0))
        .set_u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MAX, register(0))
        .set_u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, port)
        .set_u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MAX, port)
        .set_u32(sys::NFTNL_EXPR_NAT_FLAGS, NAT_FLAGS);
    nat
}

fn reject(kind: i32, code: u8) -> Expr {
    let mut reject = Expr::new(c"reject");
    reject
        .set_u32(sys::NFTNL_EXPR_REJECT_TYPE, kind.unsigned_abs())
        .set(sys::NFTNL_EXPR_REJECT_CODE, &[code]);
    reject
}

fn push_verdict(rule: &mut Rule, code: i32, chain: Option<ChainName>) {
    let mut immediate = Expr::new(c"immediate");
    let register = libc::NFT_REG_VERDICT.unsigned_abs();
    immediate
        .set_u32(sys::NFTNL_EXPR_IMM_DREG, register)
        .set(sys::NFTNL_EXPR_IMM_VERDICT, &code.to_ne_bytes());
    if let Some(chain) = chain {
        immediate.set_str(sys::NFTNL_EXPR_IMM_CHAIN, &name(&chain.to_string()));
    }
    rule.push(immediate);
}
