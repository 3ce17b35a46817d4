//! Constants of the kernel's netlink interfaces, each with the type that a message holds it in.

pub(crate) mod conntrack;
pub(crate) mod nf_tables;

use nftnl::nftnl_sys::libc;

/// Returns a constant of C as 8 bits; a constant that does not fit fails to compile.
const fn to_u8(constant: i32) -> u8 {
    let [value, 0, 0, 0] = constant.to_le_bytes() else {
        panic!("the constant does not fit");
    };
    value
}

/// Returns a constant of C as 16 bits; a constant that does not fit fails to compile.
const fn to_u16(constant: i32) -> u16 {
    let [low, high, 0, 0] = constant.to_le_bytes() else {
        panic!("the constant does not fit");
    };
    u16::from_le_bytes([low, high])
}

/// Returns a constant of C as unsigned; a negative constant fails to compile.
const fn to_u32(constant: i32) -> u32 {
    assert!(constant >= 0, "the constant is negative");
    constant.cast_unsigned()
}

// Flags and types of a message's header (`linux/netlink.h`).
pub(crate) const NLM_F_REQUEST: u16 = to_u16(libc::NLM_F_REQUEST);
pub(crate) const NLM_F_DUMP: u16 = to_u16(libc::NLM_F_DUMP);
pub(crate) const NLM_F_DUMP_INTR: u16 = to_u16(libc::NLM_F_DUMP_INTR);
pub(crate) const NLM_F_CREATE: u16 = to_u16(libc::NLM_F_CREATE);
pub(crate) const NLM_F_APPEND: u16 = to_u16(libc::NLM_F_APPEND);
pub(crate) const NLM_F_CAPPED: u16 = 0x100;
pub(crate) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(crate) const NLMSG_ERROR: u16 = to_u16(libc::NLMSG_ERROR);
pub(crate) const NLMSG_DONE: u16 = to_u16(libc::NLMSG_DONE);

// `enum nlmsgerr_attrs`: attributes of an extended ACK.
pub(crate) const NLMSGERR_ATTR_MSG: u16 = 1;
pub(crate) const NLMSGERR_ATTR_OFFS: u16 = 2;

// The type of an attribute: a flag, and the bits that are no flag.
pub(crate) const NLA_F_NESTED: u16 = to_u16(libc::NLA_F_NESTED);
pub(crate) const NLA_TYPE_MASK: u16 = 0x3fff;

// Subsystems of nfnetlink, and the limits of a batch (`linux/netfilter/nfnetlink.h`).
pub(crate) const NFNL_SUBSYS_NONE: u8 = to_u8(libc::NFNL_SUBSYS_NONE);
pub(crate) const NFNL_SUBSYS_CTNETLINK: u8 = to_u8(libc::NFNL_SUBSYS_CTNETLINK);
pub(crate) const NFNL_SUBSYS_IPSET: u8 = to_u8(libc::NFNL_SUBSYS_IPSET);
pub(crate) const NFNL_SUBSYS_NFTABLES: u8 = to_u8(libc::NFNL_SUBSYS_NFTABLES);
pub(crate) const NFNL_MSG_BATCH_BEGIN: u8 = to_u8(libc::NFNL_MSG_BATCH_BEGIN);
pub(crate) const NFNL_MSG_BATCH_END: u8 = to_u8(libc::NFNL_MSG_BATCH_END);

// Multicast groups of nfnetlink (`enum nfnetlink_groups`), as the bits that bind(2) takes:
// `1 << (NFNLGRP_CONNTRACK_NEW - 1)` and `1 << (NFNLGRP_NFTABLES - 1)`.
pub(crate) const GROUP_CONNTRACK_NEW: u32 = 1;
pub(crate) const GROUP_NFTABLES: u32 = 1 << 6;

// Protocol families of netfilter (`linux/netfilter.h`).
pub(crate) const NFPROTO_UNSPEC: u8 = to_u8(libc::NFPROTO_UNSPEC);
pub(crate) const NFPROTO_IPV4: u8 = to_u8(libc::NFPROTO_IPV4);
pub(crate) const NFPROTO_IPV6: u8 = to_u8(libc::NFPROTO_IPV6);

// Flags of a TCP header (RFC 9293, 3.1).
pub(crate) const TCP_FLAG_SYN: u8 = 0x02;
pub(crate) const TCP_FLAG_RST: u8 = 0x04;

// Verdicts of netfilter (`linux/netfilter.h`): of a rule, and of a chain's policy.
pub(crate) const NF_DROP: i32 = libc::NF_DROP;
pub(crate) const NF_ACCEPT: u32 = to_u32(libc::NF_ACCEPT);
