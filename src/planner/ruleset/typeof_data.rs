//! The `typeof` that nft keeps beside a map with a slot in its key, so that it can print it.

use crate::planner::model::addr::Family;

/// A record of nft's user data: kind, length in bytes, content.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    // A record's length is one byte; the longest we write has 98.
    let len = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[kind, len], content].concat()
}

fn number(kind: u8, value: u32) -> Vec<u8> {
    record(kind, &value.to_ne_bytes())
}

/// A part of a `typeof` concatenation: which expression (`enum expr_types`), and its parameters.
fn part(index: u8, expression: u32, parameters: &[Vec<u8>]) -> Vec<u8> {
    let content = [number(0, expression), record(1, &parameters.concat())].concat();
    record(index, &content)
}

/// The `typeof` of `meta l4proto [. ip daddr] . th dport . numgen random mod 65536 : ip daddr .
/// th dport`, as nftables' `set_make_key` and the `build_udata` of each expression write it.
pub(super) fn typeof_records(with_address: bool, family: Family) -> Vec<u8> {
    const KEY_TYPEOF: u8 = 3;
    const DATA_TYPEOF: u8 = 4;
    const DATA_INTERVAL: u8 = 6;
    const CONCAT: u32 = 13;
    const META: u32 = 9;
    const META_L4PROTO: u32 = 16;
    const PAYLOAD: u32 = 7;
    const NUMGEN: u32 = 23;
    // Number of the protocol description and of the field in it (nftables' `src/proto.c`).
    let (ip, daddr) = match family {
        Family::Ipv4 => (12, 12),
        Family::Ipv6 => (13, 9),
    };
    let (th, dport) = (11, 2);
    let payload = |index: u8, description: u32, field: u32| {
        part(index, PAYLOAD, &[number(0, description), number(1, field)])
    };
    let mut key = part(0, META, &[number(0, META_L4PROTO)]);
    let mut index = 1;
    if with_address {
        key.extend(payload(index, ip, daddr));
        index += 1;
    }
    key.extend(payload(index, th, dport));
    let numgen = [number(0, 1), number(1, 65536), number(2, 0)];
    key.extend(part(index + 1, NUMGEN, &numgen));
    let data = [payload(0, ip, daddr), payload(1, th, dport)].concat();
    let concat = |content: &[u8]| [number(0, CONCAT), record(1, content)].concat();
    [
        record(KEY_TYPEOF, &concat(&key)),
        record(DATA_TYPEOF, &concat(&data)),
        number(DATA_INTERVAL, 0),
    ]
    .concat()
}
