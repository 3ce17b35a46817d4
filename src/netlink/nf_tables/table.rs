//! The table as an object: whether it exists, who owns it, and the messages that recreate or delete
//! it.

use nftnl::nftnl_sys as sys;
use nix::errno::Errno;

use super::name;
use crate::netlink::Error;
use crate::netlink::ffi::{self, Payload};
use crate::netlink::nf_tables::batch::{Batch, MessageSubject};
use crate::netlink::nf_tables::encode::{comment_data, family_number, message};
use crate::netlink::socket::Socket;
use crate::netlink::socket::attribute::{Attribute, MalformedMessage};
use crate::netlink::uapi::NLM_F_CREATE;
use crate::netlink::uapi::nf_tables::{
    NFT_MSG_DELTABLE, NFT_MSG_DESTROYSETELEM, NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE,
    NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, NFTA_TABLE, NFTA_TABLE_FLAGS, NFTA_TABLE_OWNER,
};
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{TABLE, TABLE_COMMENT};

/// The table of transactions that the kernel undoes: it never exists.
const PROBE: &str = "kube-dnat-probe";

/// A table of our name in the kernel.
pub(crate) struct TableFound {
    /// The netlink port of the socket that owns the table.
    pub(crate) owner: Option<u32>,
    /// Whether the table stays when its owner goes.
    pub(crate) persists: bool,
}

/// Finds the table of our name; `None` if there is none.
pub(crate) fn find(socket: &mut Socket, family: Family) -> Result<Option<TableFound>, Error> {
    let mut found = None;
    let dumped = socket.dump_nftables(NFT_MSG_GETTABLE, family_number(family), &[], |message| {
        let attributes = message.attributes();
        let name = attributes.get(NFTA_TABLE).and_then(Attribute::text);
        if name != Some(TABLE) {
            return Ok(());
        }
        let number = |kind| attributes.get(kind).and_then(Attribute::number);
        let flags = number(NFTA_TABLE_FLAGS).ok_or(MalformedMessage)?;
        found = Some(TableFound {
            owner: number(NFTA_TABLE_OWNER).filter(|_| flags & NFT_TABLE_F_OWNER != 0),
            persists: flags & NFT_TABLE_F_PERSIST != 0,
        });
        Ok(())
    });
    match dumped {
        Ok(_) => Ok(found),
        Err(error) => Err(error.error("look for the table")),
    }
}

/// Adds messages that recreate the table, which is empty then.
pub(crate) fn push_recreate(batch: &mut Batch, family: Family, owner: bool) {
    // A table that does not exist cannot be deleted. The first message has no flags, because those
    // of an existing table can change only in some ways.
    push(batch, NFT_MSG_NEWTABLE, family, table(family, TABLE, None));
    push_delete(batch, family);
    let created = table(family, TABLE, Some(flags(owner)));
    push(batch, NFT_MSG_NEWTABLE, family, created);
}

/// Adds the message that makes this socket the owner of a table that has no owner any more.
pub(crate) fn push_own(batch: &mut Batch, family: Family) {
    let object = table(family, TABLE, Some(flags(true)));
    push(batch, NFT_MSG_NEWTABLE, family, object);
}

/// Adds the message that deletes the table.
pub(crate) fn push_delete(batch: &mut Batch, family: Family) {
    push(batch, NFT_MSG_DELTABLE, family, table(family, TABLE, None));
}

/// Adds a message that must fail, so that the kernel checks all before it and undoes it.
pub(crate) fn push_undo(batch: &mut Batch) {
    let payload = Payload::Table(table(Family::Ipv6, PROBE, None));
    let message = message(NFT_MSG_DELTABLE, Family::Ipv6, 0, payload);
    batch.push(&message, MessageSubject::Undo);
}

/// Returns whether the kernel supports tables with an owner.
///
/// The second message of the transaction must fail; if the first does too, it does not.
pub(crate) fn supports_ownership(socket: &mut Socket) -> Result<bool, Error> {
    let mut batch = Batch::new();
    let owned = table(Family::Ipv4, PROBE, Some(flags(true)));
    push(&mut batch, NFT_MSG_NEWTABLE, Family::Ipv4, owned);
    push_undo(&mut batch);
    lacks_only_the_probe(socket, batch)
}

/// Returns whether the kernel can delete elements that do not exist.
///
/// The kernel rejects the message in any case: it lacks the table, or such messages.
pub(crate) fn supports_destroying_elements(socket: &mut Socket) -> Result<bool, Error> {
    let mut batch = Batch::new();
    let mut set = ffi::Set::new();
    set.set_u32(sys::NFTNL_SET_FAMILY, family_number(Family::Ipv4).into())
        .set_str(sys::NFTNL_SET_TABLE, &name(PROBE))
        .set_str(sys::NFTNL_SET_NAME, &name(PROBE));
    let payload = Payload::Elements(set);
    let destroy = message(NFT_MSG_DESTROYSETELEM, Family::Ipv4, 0, payload);
    batch.push(&destroy, MessageSubject::Program(PROBE.to_owned()));
    lacks_only_the_probe(socket, batch)
}

/// Sends a batch that the kernel rejects; returns whether it does so only because `PROBE` does not
/// exist.
fn lacks_only_the_probe(socket: &mut Socket, batch: Batch) -> Result<bool, Error> {
    let rejected = socket.send(&batch.finish().pages())?;
    Ok(rejected
        .iter()
        .all(|message| message.errno == Errno::ENOENT))
}

/// Returns the flags of a table.
fn flags(owner: bool) -> u32 {
    if owner {
        NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST
    } else {
        0
    }
}

/// Returns a table as libnftnl's object; a table without flags has no comment either.
fn table(family: Family, table_name: &str, flags: Option<u32>) -> ffi::Table {
    let mut object = ffi::Table::new();
    object
        .set_u32(sys::NFTNL_TABLE_FAMILY, family_number(family).into())
        .set_str(sys::NFTNL_TABLE_NAME, &name(table_name));
    if let Some(flags) = flags {
        object
            .set_u32(sys::NFTNL_TABLE_FLAGS, flags)
            .set(sys::NFTNL_TABLE_USERDATA, &comment_data(TABLE_COMMENT));
    }
    object
}

/// Adds a message about the table.
fn push(batch: &mut Batch, kind: u8, family: Family, object: ffi::Table) {
    let flags = if kind == NFT_MSG_NEWTABLE {
        NLM_F_CREATE
    } else {
        0
    };
    let message = message(kind, family, flags, Payload::Table(object));
    batch.push(&message, MessageSubject::Program(TABLE.to_owned()));
}
