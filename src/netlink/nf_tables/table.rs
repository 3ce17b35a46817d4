//! The table itself: whether it is there, whose it is, making it, deleting it.

use nftnl::nftnl_sys::{self as sys, libc};
use nix::errno::Errno;

use super::name;
use crate::netlink::Error;
use crate::netlink::ffi::{self, NftMessage, Payload};
use crate::netlink::nf_tables::batch::{Batch, MessageSubject};
use crate::netlink::nf_tables::encode::{comment_data, family_number, message};
use crate::netlink::socket::Socket;
use crate::netlink::socket::attribute::Attribute;
use crate::netlink::uapi::{
    NFT_MSG_DESTROYSETELEM, NFTA_TABLE, NFTA_TABLE_FLAGS, NFTA_TABLE_OWNER,
};
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{TABLE, TABLE_COMMENT};

/// Attributes and flags of a table (`linux/netfilter/nf_tables.h`). A table with both flags can be
/// changed by the socket alone that made it; when that is closed `owner` goes, and the table stays
/// for the next socket that sets it again.
const NFT_TABLE_F_OWNER: u32 = 0x2;
const NFT_TABLE_F_PERSIST: u32 = 0x4;

/// What a dry transaction is about: it is never there.
const PROBE: &str = "kube-dnat-probe";

/// A table of our name.
pub(crate) struct TableFound {
    /// The port of the socket that owns it.
    pub(crate) owner: Option<u32>,
    /// Whether it stays when its owner goes.
    pub(crate) persists: bool,
}

/// Looks for the table.
pub(crate) fn find(socket: &mut Socket, family: Family) -> Result<Option<TableFound>, Error> {
    let mut found = None;
    let dumped = socket.dump(
        libc::NFT_MSG_GETTABLE,
        family_number(family),
        &[],
        |message| {
            let attributes = message.attributes();
            let name = attributes.get(NFTA_TABLE).and_then(Attribute::text);
            let number = |kind| attributes.get(kind).and_then(Attribute::number);
            if name == Some(TABLE) {
                let flags = number(NFTA_TABLE_FLAGS).unwrap_or(0);
                found = Some(TableFound {
                    owner: number(NFTA_TABLE_OWNER).filter(|_| flags & NFT_TABLE_F_OWNER != 0),
                    persists: flags & NFT_TABLE_F_PERSIST != 0,
                });
            }
        },
    );
    match dumped {
        Ok(_) => Ok(found),
        Err(dump) => Err(dump.error("look for the table")),
    }
}

/// Adds messages that make the table anew: whatever it held before is gone.
pub(crate) fn push_anew(batch: &mut Batch, family: Family, owner: bool) {
    // Deleting needs the table to exist. Without flags: those of a table cannot be changed at will.
    let exists = table(family, TABLE, None);
    let created = table(family, TABLE, Some(flags(owner)));
    for (kind, object) in [
        (libc::NFT_MSG_NEWTABLE, exists),
        (libc::NFT_MSG_DELTABLE, table(family, TABLE, None)),
        (libc::NFT_MSG_NEWTABLE, created),
    ] {
        push(batch, kind, family, object);
    }
}

/// Adds the message that makes us the owner of a table that has lost its own.
pub(crate) fn push_take_over(batch: &mut Batch, family: Family) {
    let object = table(family, TABLE, Some(flags(true)));
    push(batch, libc::NFT_MSG_NEWTABLE, family, object);
}

/// Adds the message that deletes the table.
pub(crate) fn push_delete(batch: &mut Batch, family: Family) {
    let object = table(family, TABLE, None);
    push(batch, libc::NFT_MSG_DELTABLE, family, object);
}

/// Adds a message that must fail, so that the kernel checks all before it and undoes it.
pub(crate) fn push_undo(batch: &mut Batch) {
    let object = table(Family::Ipv6, PROBE, None);
    let message = message(
        libc::NFT_MSG_DELTABLE,
        Family::Ipv6,
        0,
        Payload::Table(object),
    );
    batch.push(&message, MessageSubject::Undo);
}

/// Whether the kernel knows tables with an owner: a transaction whose second message must fail says
/// what it thinks of its first.
pub(crate) fn can_be_owned(socket: &mut Socket) -> Result<bool, Error> {
    let mut batch = Batch::new();
    let owned = table(Family::Ipv4, PROBE, Some(flags(true)));
    push(&mut batch, libc::NFT_MSG_NEWTABLE, Family::Ipv4, owned);
    push_undo(&mut batch);
    let refused = socket.send(&batch.finish().pages())?;
    Ok(refused.iter().all(|refused| refused.errno == Errno::ENOENT))
}

/// Whether the kernel can delete elements that may be gone already. It knows no such message, or no
/// such table.
pub(crate) fn can_destroy_elements(socket: &mut Socket) -> Result<bool, Error> {
    let mut batch = Batch::new();
    let mut set = ffi::Set::new();
    set.set_u32(sys::NFTNL_SET_FAMILY, family_number(Family::Ipv4).into())
        .set_str(sys::NFTNL_SET_TABLE, &name(PROBE))
        .set_str(sys::NFTNL_SET_NAME, &name(PROBE));
    let destroy = message(
        NFT_MSG_DESTROYSETELEM,
        Family::Ipv4,
        0,
        Payload::Elements(set),
    );
    batch.push(&destroy, MessageSubject::Program(PROBE.to_owned()));
    let refused = socket.send(&batch.finish().pages())?;
    Ok(refused.iter().all(|refused| refused.errno == Errno::ENOENT))
}

fn flags(owner: bool) -> u32 {
    if owner {
        NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST
    } else {
        0
    }
}

fn table(family: Family, called: &str, flags: Option<u32>) -> ffi::Table {
    let mut object = ffi::Table::new();
    object
        .set_u32(sys::NFTNL_TABLE_FAMILY, family_number(family).into())
        .set_str(sys::NFTNL_TABLE_NAME, &name(called));
    if let Some(flags) = flags {
        object
            .set_u32(sys::NFTNL_TABLE_FLAGS, flags)
            .set(sys::NFTNL_TABLE_USERDATA, &comment_data(TABLE_COMMENT));
    }
    object
}

fn push(batch: &mut Batch, kind: i32, family: Family, object: ffi::Table) {
    let flags = if kind == libc::NFT_MSG_NEWTABLE {
        libc::NLM_F_CREATE
    } else {
        0
    };
    let message: NftMessage = message(kind, family, flags, Payload::Table(object));
    batch.push(&message, MessageSubject::Program(TABLE.to_owned()));
}
