//! Constants of connection tracking: `linux/netfilter/nfnetlink_conntrack.h` unless another header
//! is named.

// `enum cntl_msg_types`.
pub(crate) const IPCTNL_MSG_CT_GET: u8 = 1;
pub(crate) const IPCTNL_MSG_CT_DELETE: u8 = 2;

// `enum ctattr_type`: an entry.
pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
pub(crate) const CTA_TUPLE_REPLY: u16 = 2;
pub(crate) const CTA_STATUS: u16 = 3;
pub(crate) const CTA_PROTOINFO: u16 = 4;
pub(crate) const CTA_ID: u16 = 12;
pub(crate) const CTA_ZONE: u16 = 18;
pub(crate) const CTA_FILTER: u16 = 25;
pub(crate) const CTA_STATUS_MASK: u16 = 26;

// `enum ctattr_tuple`: a direction of a connection.
pub(crate) const CTA_TUPLE_IP: u16 = 1;
pub(crate) const CTA_TUPLE_PROTO: u16 = 2;

// `enum ctattr_ip`: the addresses of a tuple.
pub(crate) const CTA_IP_V4_SRC: u16 = 1;
pub(crate) const CTA_IP_V4_DST: u16 = 2;
pub(crate) const CTA_IP_V6_SRC: u16 = 3;
pub(crate) const CTA_IP_V6_DST: u16 = 4;

// `enum ctattr_l4proto`: the protocol and the ports of a tuple.
pub(crate) const CTA_PROTO_NUM: u16 = 1;
pub(crate) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(crate) const CTA_PROTO_DST_PORT: u16 = 3;

// `enum ctattr_protoinfo`, `ctattr_protoinfo_tcp` and `ctattr_protoinfo_sctp`: the state of a
// connection.
pub(crate) const CTA_PROTOINFO_TCP: u16 = 1;
pub(crate) const CTA_PROTOINFO_TCP_STATE: u16 = 1;
pub(crate) const CTA_PROTOINFO_SCTP: u16 = 3;
pub(crate) const CTA_PROTOINFO_SCTP_STATE: u16 = 1;

// `enum ctattr_filter`: a filter of a dump, and a flag of it (`net/netfilter/nf_internals.h`): the
// protocol must be equal.
pub(crate) const CTA_FILTER_ORIG_FLAGS: u16 = 1;
pub(crate) const CTA_FILTER_F_CTA_PROTO_NUM: u32 = 1 << 3;

// Bits of an entry's status (`linux/netfilter/nf_conntrack_common.h`).
pub(crate) const IPS_SEEN_REPLY: u32 = 1 << 1;
pub(crate) const IPS_CONFIRMED: u32 = 1 << 3;
pub(crate) const IPS_DST_NAT: u32 = 1 << 5;

// A bit of the state of a packet that is not tracked
// (`linux/netfilter/nf_conntrack_common.h`).
pub(crate) const NF_CT_STATE_INVALID_BIT: u32 = 1 << 0;

// The first states of a connection (`linux/netfilter/nf_conntrack_tcp.h` and
// `nf_conntrack_sctp.h`).
pub(crate) const TCP_CONNTRACK_SYN_SENT: u8 = 1;
pub(crate) const SCTP_CONNTRACK_CLOSED: u8 = 1;
pub(crate) const SCTP_CONNTRACK_COOKIE_WAIT: u8 = 2;

// A direction of a connection (`linux/netfilter/nf_conntrack_tuple_common.h`).
pub(crate) const IP_CT_DIR_ORIGINAL: u8 = 0;

// Flags of an address translation (`linux/netfilter/nf_nat.h`).
pub(crate) const NF_NAT_RANGE_MAP_IPS: u32 = 1 << 0;
pub(crate) const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 1 << 1;
pub(crate) const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
