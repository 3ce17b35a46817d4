//! The tables of other programs: their listing, and the removal of what kube-proxy left.

use std::io::IoSlice;

use nix::errno::Errno;

use crate::kube_proxy::leftovers::{
    ChainId, ForeignChain, ForeignRule, Removal, Ruleset, TableName,
};
use crate::netlink::socket::attribute::{self, Attribute, Attributes, MalformedMessage};
use crate::netlink::socket::{RejectedMessage, RequestError};
use crate::netlink::uapi::nf_tables::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE,
    NFT_MSG_GETTABLE, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE,
    NFTA_DATA_VERDICT, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY,
    NFTA_IMMEDIATE_DATA, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_TABLE,
    NFTA_VERDICT_CHAIN,
};
use crate::netlink::uapi::{
    NF_DROP, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFNL_SUBSYS_NONE,
    NFPROTO_UNSPEC, NLM_F_REQUEST,
};
use crate::netlink::{Error, Kernel};

/// The offset of the family in a message (`struct nfgenmsg`).
const FAMILY_OFFSET: usize = attribute::HEADER;

/// The number of attempts to read a ruleset that does not change meanwhile.
const ATTEMPTS: usize = 5;

impl Kernel {
    /// Reads all tables, chains and rules of this network namespace, without sets.
    ///
    /// If other processes keep changing the ruleset, some objects may be missing.
    ///
    /// # Errors
    /// If the kernel cannot list them.
    pub fn full_ruleset(&mut self) -> Result<Ruleset, Error> {
        let mut attempt = 1;
        loop {
            let before = self.generation()?;
            let ruleset = self.read_full_ruleset()?;
            if attempt == ATTEMPTS || self.generation()? == before {
                return Ok(ruleset);
            }
            attempt += 1;
        }
    }

    /// Reads the ruleset once.
    fn read_full_ruleset(&mut self) -> Result<Ruleset, Error> {
        let mut ruleset = Ruleset::default();
        self.for_each(NFT_MSG_GETTABLE, |family, attributes| {
            ruleset.tables.extend(table(family, attributes));
        })?;
        self.for_each(NFT_MSG_GETCHAIN, |family, attributes| {
            ruleset.chains.extend(chain(family, attributes));
        })?;
        self.for_each(NFT_MSG_GETRULE, |family, attributes| {
            ruleset.rules.extend(rule(family, attributes));
        })?;
        Ok(ruleset)
    }

    /// Calls `take` with the family and the attributes of each listed object.
    fn for_each(
        &mut self,
        kind: u8,
        mut take: impl FnMut(u8, &Attributes<'_>),
    ) -> Result<(), Error> {
        let dumped = self
            .socket
            .dump_nftables(kind, NFPROTO_UNSPEC, &[], |message| {
                let family = message.bytes.get(FAMILY_OFFSET).ok_or(MalformedMessage)?;
                take(*family, &message.attributes());
                Ok(())
            });
        match dumped {
            Ok(_) | Err(RequestError::Rejected(Errno::EINTR)) => Ok(()),
            Err(error) => Err(error.error("read nftables")),
        }
    }

    /// Deletes the objects of a removal in one transaction.
    ///
    /// # Errors
    /// If the kernel rejects it, for example because the ruleset changed meanwhile.
    pub fn remove(&mut self, removal: &Removal) -> Result<(), Error> {
        if removal.is_empty() {
            return Ok(());
        }
        let mut batch = Messages::new();
        for table in &removal.tables {
            let attributes = attribute::texts(&[(NFTA_TABLE, &table.name)]);
            batch.push(NFT_MSG_DELTABLE, table.family, &attributes);
        }
        for (chain, handle) in &removal.rules {
            let mut attributes = chain_attributes(chain, NFTA_RULE_CHAIN);
            attribute::push(&mut attributes, NFTA_RULE_HANDLE, &handle.to_be_bytes());
            batch.push(NFT_MSG_DELRULE, chain.table.family, &attributes);
        }
        // All rules before the first chain, since rules jump from one chain to another.
        for chain in &removal.chains {
            let attributes = chain_attributes(chain, NFTA_RULE_CHAIN);
            batch.push(NFT_MSG_DELRULE, chain.table.family, &attributes);
        }
        for chain in &removal.chains {
            let attributes = chain_attributes(chain, NFTA_CHAIN_NAME);
            batch.push(NFT_MSG_DELCHAIN, chain.table.family, &attributes);
        }
        let rejected = self.socket.send(&[IoSlice::new(&batch.finish())])?;
        match rejected.first() {
            None => Ok(()),
            Some(RejectedMessage {
                errno: Errno::EPERM,
                ..
            }) => Err(Error::Permission),
            Some(RejectedMessage { errno, .. }) => {
                Err(Error::errno("delete what kube-proxy left")(*errno))
            }
        }
    }
}

/// Encodes the table and the name of a chain, the name as the given attribute.
fn chain_attributes(chain: &ChainId, name: u16) -> Vec<u8> {
    attribute::texts(&[(NFTA_TABLE, &chain.table.name), (name, &chain.name)])
}

/// The messages of a transaction in one buffer, since `sendmsg` limits the number of buffers
/// (`UIO_MAXIOV`).
struct Messages {
    /// The messages.
    bytes: Vec<u8>,
    /// The number of messages, which numbers them.
    count: u32,
}

impl Messages {
    /// Builds a transaction that has begun.
    fn new() -> Self {
        let mut messages = Self {
            bytes: Vec::new(),
            count: 0,
        };
        messages.bound(NFNL_MSG_BATCH_BEGIN);
        messages
    }

    /// Adds the message that begins or ends the transaction.
    fn bound(&mut self, kind: u8) {
        let mut message = attribute::request(
            attribute::kind(NFNL_SUBSYS_NONE, kind),
            NLM_F_REQUEST,
            0,
            0,
            &[],
        );
        // `res_id` names the subsystem, in network byte order.
        if let Some(subsystem) = message.last_mut() {
            *subsystem = NFNL_SUBSYS_NFTABLES;
        }
        self.bytes.extend(message);
    }

    /// Adds a message.
    fn push(&mut self, kind: u8, family: u8, attributes: &[u8]) {
        let kind = attribute::kind(NFNL_SUBSYS_NFTABLES, kind);
        self.count = self.count.saturating_add(1);
        let message = attribute::request(kind, NLM_F_REQUEST, family, self.count, attributes);
        self.bytes.extend(message);
    }

    /// Ends the transaction.
    fn finish(mut self) -> Vec<u8> {
        self.bound(NFNL_MSG_BATCH_END);
        self.bytes
    }
}

/// Decodes a table.
fn table(family: u8, attributes: &Attributes<'_>) -> Option<TableName> {
    let name = attributes.get(NFTA_TABLE)?.text()?.to_owned();
    Some(TableName { family, name })
}

/// Decodes a chain.
fn chain(family: u8, attributes: &Attributes<'_>) -> Option<ForeignChain> {
    let hook = attributes.get(NFTA_CHAIN_HOOK).map(Attribute::nested);
    let hook = hook.and_then(|hook| {
        let number = hook.get(NFTA_HOOK_HOOKNUM)?.number()?;
        let priority = hook.get(NFTA_HOOK_PRIORITY)?.number()?;
        Some((number, priority.cast_signed()))
    });
    let policy = attributes
        .get(NFTA_CHAIN_POLICY)
        .and_then(Attribute::number);
    let kind = attributes.get(NFTA_CHAIN_TYPE).and_then(Attribute::text);
    Some(ForeignChain {
        id: ChainId {
            table: table(family, attributes)?,
            name: attributes.get(NFTA_CHAIN_NAME)?.text()?.to_owned(),
        },
        hook,
        is_nat: kind == Some("nat"),
        drops_by_policy: hook.is_some() && policy == Some(NF_DROP.cast_unsigned()),
    })
}

/// Decodes a rule.
fn rule(family: u8, attributes: &Attributes<'_>) -> Option<ForeignRule> {
    let handle = attributes.get(NFTA_RULE_HANDLE)?.value.try_into().ok()?;
    let expressions = attributes.get(NFTA_RULE_EXPRESSIONS);
    let mut expressions = expressions.into_iter().flat_map(Attribute::nested);
    Some(ForeignRule {
        chain: ChainId {
            table: table(family, attributes)?,
            name: attributes.get(NFTA_RULE_CHAIN)?.text()?.to_owned(),
        },
        handle: u64::from_be_bytes(handle),
        target: expressions.find_map(|expression| target(&expression.nested())),
    })
}

/// Returns the target of an expression that is a jump or a goto.
fn target(expression: &Attributes<'_>) -> Option<String> {
    let name = expression.get(NFTA_EXPR_NAME)?.text()?;
    if name != "immediate" {
        return None;
    }
    let data = expression.get(NFTA_EXPR_DATA)?.nested();
    let data = data.get(NFTA_IMMEDIATE_DATA)?.nested();
    let verdict = data.get(NFTA_DATA_VERDICT)?.nested();
    Some(verdict.get(NFTA_VERDICT_CHAIN)?.text()?.to_owned())
}
