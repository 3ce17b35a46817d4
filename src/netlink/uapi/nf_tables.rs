//! Constants of nf_tables (`linux/netfilter/nf_tables.h`).

use nftnl::nftnl_sys::libc;

use super::{to_u8, to_u32};

// `enum nf_tables_msg_types`.
pub(crate) const NFT_MSG_NEWTABLE: u8 = to_u8(libc::NFT_MSG_NEWTABLE);
pub(crate) const NFT_MSG_GETTABLE: u8 = to_u8(libc::NFT_MSG_GETTABLE);
pub(crate) const NFT_MSG_DELTABLE: u8 = to_u8(libc::NFT_MSG_DELTABLE);
pub(crate) const NFT_MSG_NEWCHAIN: u8 = to_u8(libc::NFT_MSG_NEWCHAIN);
pub(crate) const NFT_MSG_GETCHAIN: u8 = to_u8(libc::NFT_MSG_GETCHAIN);
pub(crate) const NFT_MSG_DELCHAIN: u8 = to_u8(libc::NFT_MSG_DELCHAIN);
pub(crate) const NFT_MSG_NEWRULE: u8 = to_u8(libc::NFT_MSG_NEWRULE);
pub(crate) const NFT_MSG_GETRULE: u8 = to_u8(libc::NFT_MSG_GETRULE);
pub(crate) const NFT_MSG_DELRULE: u8 = to_u8(libc::NFT_MSG_DELRULE);
pub(crate) const NFT_MSG_NEWSET: u8 = to_u8(libc::NFT_MSG_NEWSET);
pub(crate) const NFT_MSG_GETSET: u8 = to_u8(libc::NFT_MSG_GETSET);
pub(crate) const NFT_MSG_NEWSETELEM: u8 = to_u8(libc::NFT_MSG_NEWSETELEM);
pub(crate) const NFT_MSG_GETSETELEM: u8 = to_u8(libc::NFT_MSG_GETSETELEM);
pub(crate) const NFT_MSG_DELSETELEM: u8 = to_u8(libc::NFT_MSG_DELSETELEM);
pub(crate) const NFT_MSG_NEWGEN: u8 = to_u8(libc::NFT_MSG_NEWGEN);
pub(crate) const NFT_MSG_GETGEN: u8 = to_u8(libc::NFT_MSG_GETGEN);

/// The message that deletes elements whether they exist or not (Linux 6.3).
pub(crate) const NFT_MSG_DESTROYSETELEM: u8 = 30;

// The first attribute of every kind of object.
pub(crate) const NFTA_TABLE: u16 = 1;

// `enum nft_table_attributes`: a table.
pub(crate) const NFTA_TABLE_FLAGS: u16 = 2;
pub(crate) const NFTA_TABLE_OWNER: u16 = 7;

// `enum nft_table_flags`. A table with both flags can be changed only by the socket that made it.
// When that socket is closed, `owner` goes and the table stays; the next socket can set it again.
pub(crate) const NFT_TABLE_F_OWNER: u32 = 0x2;
pub(crate) const NFT_TABLE_F_PERSIST: u32 = 0x4;

// `enum nft_chain_attributes`: a chain.
pub(crate) const NFTA_CHAIN_NAME: u16 = 3;
pub(crate) const NFTA_CHAIN_HOOK: u16 = 4;
pub(crate) const NFTA_CHAIN_POLICY: u16 = 5;
pub(crate) const NFTA_CHAIN_TYPE: u16 = 7;

// `enum nft_hook_attributes`: the hook of a base chain.
pub(crate) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(crate) const NFTA_HOOK_PRIORITY: u16 = 2;

// `enum nft_rule_attributes`: a rule.
pub(crate) const NFTA_RULE_CHAIN: u16 = 2;
pub(crate) const NFTA_RULE_HANDLE: u16 = 3;
pub(crate) const NFTA_RULE_EXPRESSIONS: u16 = 4;

// `enum nft_expr_attributes`: an expression.
pub(crate) const NFTA_EXPR_NAME: u16 = 1;
pub(crate) const NFTA_EXPR_DATA: u16 = 2;

// The data of an expression, by its kind.
pub(crate) const NFTA_LOOKUP_SET: u16 = 1;
pub(crate) const NFTA_IMMEDIATE_DATA: u16 = 2;
pub(crate) const NFTA_META_KEY: u16 = 2;
pub(crate) const NFTA_COUNTER_PACKETS: u16 = 2;
pub(crate) const NFTA_CMP_DATA: u16 = 3;

// `enum nft_list_attributes`: a list.
pub(crate) const NFTA_LIST_ELEM: u16 = 1;

// enum nft_dynset_attributes
pub(crate) const NFTA_DYNSET_EXPR: u16 = 7;
pub(crate) const NFTA_DYNSET_EXPRESSIONS: u16 = 10;

// `enum nft_set_elem_list_attributes`: elements of a set.
pub(crate) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(crate) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

// `enum nft_set_elem_attributes`: an element.
pub(crate) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(crate) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(crate) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(crate) const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(crate) const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
pub(crate) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(crate) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(crate) const NFTA_SET_ELEM_KEY_END: u16 = 10;

// `enum nft_set_attributes`: a set or map.
pub(crate) const NFTA_SET_NAME: u16 = 2;
pub(crate) const NFTA_SET_FLAGS: u16 = 3;
pub(crate) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(crate) const NFTA_SET_KEY_LEN: u16 = 5;
pub(crate) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(crate) const NFTA_SET_DATA_LEN: u16 = 7;
pub(crate) const NFTA_SET_DESC: u16 = 9;
pub(crate) const NFTA_SET_USERDATA: u16 = 13;
pub(crate) const NFTA_SET_EXPR: u16 = 17;
pub(crate) const NFTA_SET_COUNT: u16 = 20;

// `enum nft_set_desc_attributes`: the description of a set.
pub(crate) const NFTA_SET_DESC_SIZE: u16 = 1;

// `enum nft_data_attributes`: data.
pub(crate) const NFTA_DATA_VALUE: u16 = 1;
pub(crate) const NFTA_DATA_VERDICT: u16 = 2;

// `enum nft_verdict_attributes`: a verdict.
pub(crate) const NFTA_VERDICT_CODE: u16 = 1;
pub(crate) const NFTA_VERDICT_CHAIN: u16 = 2;

// `enum nft_gen_attributes`: a generation of the ruleset.
pub(crate) const NFTA_GEN_ID: u16 = 1;
pub(crate) const NFTA_GEN_PROC_PID: u16 = 2;
pub(crate) const NFTA_GEN_PROC_NAME: u16 = 3;

// `enum nft_set_flags`. `NFT_SET_CONCAT` is of Linux 5.6.
pub(crate) const NFT_SET_INTERVAL: u32 = to_u32(libc::NFT_SET_INTERVAL);
pub(crate) const NFT_SET_MAP: u32 = to_u32(libc::NFT_SET_MAP);
pub(crate) const NFT_SET_TIMEOUT: u32 = to_u32(libc::NFT_SET_TIMEOUT);
pub(crate) const NFT_SET_EVAL: u32 = to_u32(libc::NFT_SET_EVAL);
pub(crate) const NFT_SET_CONCAT: u32 = 0x80;

// `enum nft_set_elem_flags`.
pub(crate) const NFT_SET_ELEM_INTERVAL_END: u32 = to_u32(libc::NFT_SET_ELEM_INTERVAL_END);

// `enum nft_data_types`: the type of a verdict map's data.
pub(crate) const NFT_DATA_VERDICT: u32 = libc::NFT_DATA_VERDICT;

/// The bytes of the longest value that a register can hold.
pub(crate) const NFT_DATA_VALUE_MAXLEN: usize = 64;

// `enum nft_verdicts`.
pub(crate) const NFT_JUMP: i32 = libc::NFT_JUMP;
pub(crate) const NFT_GOTO: i32 = libc::NFT_GOTO;
pub(crate) const NFT_RETURN: i32 = libc::NFT_RETURN;

// `enum nft_registers`.
pub(crate) const NFT_REG_VERDICT: u32 = to_u32(libc::NFT_REG_VERDICT);
pub(crate) const NFT_REG_1: u32 = to_u32(libc::NFT_REG_1);
pub(crate) const NFT_REG32_00: u32 = to_u32(libc::NFT_REG32_00);

// Enums of single kinds of expression. `NFT_DYNSET_OP_DELETE` is of Linux 5.4.
pub(crate) const NFT_CMP_EQ: u32 = to_u32(libc::NFT_CMP_EQ);
pub(crate) const NFT_CMP_NEQ: u32 = to_u32(libc::NFT_CMP_NEQ);
pub(crate) const NFT_CT_STATE: u32 = to_u32(libc::NFT_CT_STATE);
pub(crate) const NFT_CT_STATUS: u32 = to_u32(libc::NFT_CT_STATUS);
pub(crate) const NFT_CT_DIRECTION: u32 = to_u32(libc::NFT_CT_DIRECTION);
pub(crate) const NFT_CT_PROTO_DST: u32 = to_u32(libc::NFT_CT_PROTO_DST);
pub(crate) const NFT_CT_DST_IP: u32 = to_u32(libc::NFT_CT_DST_IP);
pub(crate) const NFT_CT_DST_IP6: u32 = to_u32(libc::NFT_CT_DST_IP6);
pub(crate) const NFT_DYNSET_OP_UPDATE: u32 = to_u32(libc::NFT_DYNSET_OP_UPDATE);
pub(crate) const NFT_DYNSET_OP_DELETE: u32 = 2;
pub(crate) const NFTA_FIB_F_SADDR: u32 = 1;
pub(crate) const NFTA_FIB_F_DADDR: u32 = 2;
pub(crate) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(crate) const NFT_HASH_JENKINS: u32 = 0;
pub(crate) const NFT_LOOKUP_F_INV: u32 = to_u32(libc::NFT_LOOKUP_F_INV);
pub(crate) const NFT_META_IIFNAME: u32 = to_u32(libc::NFT_META_IIFNAME);
pub(crate) const NFT_META_L4PROTO: u32 = to_u32(libc::NFT_META_L4PROTO);
pub(crate) const NFT_NAT_DNAT: u32 = to_u32(libc::NFT_NAT_DNAT);
pub(crate) const NFT_NG_RANDOM: u32 = to_u32(libc::NFT_NG_RANDOM);
pub(crate) const NFT_PAYLOAD_NETWORK_HEADER: u32 = to_u32(libc::NFT_PAYLOAD_NETWORK_HEADER);
pub(crate) const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = to_u32(libc::NFT_PAYLOAD_TRANSPORT_HEADER);
pub(crate) const NFT_REJECT_ICMP_UNREACH: u32 = to_u32(libc::NFT_REJECT_ICMP_UNREACH);
pub(crate) const NFT_REJECT_TCP_RST: u32 = to_u32(libc::NFT_REJECT_TCP_RST);

// Values that expressions compare with or send: the type of a local address
// (`linux/rtnetlink.h`), and the ICMP codes "port unreachable" (`linux/icmp.h`, `icmpv6.h`).
pub(crate) const RTN_LOCAL: u32 = 2;
pub(crate) const ICMP_PORT_UNREACH: u8 = 3;
pub(crate) const ICMPV6_PORT_UNREACH: u8 = 4;

/// The bytes of an interface's name with its NUL bytes (`linux/if.h`).
pub(crate) const IFNAMSIZ: usize = libc::IFNAMSIZ;
