//! A batch of messages, and which message is about which operations.

use std::io::IoSlice;
use std::ops::Range;

use nftnl::{FinalizedBatch, MsgType};

use crate::netlink::ffi::NftMessage;
use crate::netlink::socket::attribute;
use crate::netlink::uapi::nf_tables::NFTA_SET_ELEM_LIST_ELEMENTS;
use crate::planner::model::addr::Family;

/// What a message is about, to name it when the kernel rejects it.
#[derive(Clone, Debug)]
pub(crate) enum MessageSubject {
    /// The message is about a part of the fixed program, in nft's words.
    Program(String),
    /// The message is about these operations of a family's transaction.
    Operations(Family, Range<usize>),
    /// The message must fail, so that the kernel undoes the transaction.
    Undo,
}

/// Messages that the kernel accepts together or not at all.
pub(crate) struct Batch {
    batch: nftnl::Batch,
    /// The sequence number of each message, in ascending order, and what the message is about.
    index: Vec<(u32, MessageSubject)>,
}

impl Batch {
    /// Makes an empty batch.
    pub(crate) fn new() -> Self {
        Self {
            batch: nftnl::Batch::new(),
            index: Vec::new(),
        }
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, message: &NftMessage, subject: MessageSubject) {
        // `NftMessage` ignores `MsgType`: its own type says whether it adds or deletes.
        self.batch.add(message, MsgType::Add);
        self.index.push((message.sequence.get(), subject));
    }

    /// Whether the batch has no message.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Ends the batch, so that it can be sent.
    pub(crate) fn finish(self) -> FinishedBatch {
        FinishedBatch {
            batch: self.batch.finalize(),
            index: self.index,
        }
    }
}

/// A batch as it is sent.
pub(crate) struct FinishedBatch {
    batch: FinalizedBatch,
    index: Vec<(u32, MessageSubject)>,
}

impl FinishedBatch {
    /// Returns the pages of the batch.
    pub(crate) fn pages(&self) -> Vec<IoSlice<'_>> {
        self.batch.iter().map(IoSlice::new).collect()
    }

    /// Returns what the message with this sequence number is about; `None` if it is the batch as a
    /// whole.
    ///
    /// Of a message of elements, that is the element at `offset` bytes into the message, if the
    /// kernel reported an offset, or else all of them.
    pub(crate) fn subject(&self, sequence: u32, offset: Option<usize>) -> Option<MessageSubject> {
        let position = self
            .index
            .binary_search_by_key(&sequence, |(key, _)| *key)
            .ok()?;
        let (_, subject) = self.index.get(position)?;
        let MessageSubject::Operations(family, operations) = subject else {
            return Some(subject.clone());
        };
        let one = offset
            .and_then(|offset| self.element_position(sequence, offset))
            .and_then(|position| operations.clone().nth(position));
        let operations = one.map_or(operations.clone(), |one| one..one + 1);
        Some(MessageSubject::Operations(*family, operations))
    }

    /// Returns the position of the element at `offset` in its message.
    ///
    /// Only ranges have two elements for an operation, and they are never a Service's.
    fn element_position(&self, sequence: u32, offset: usize) -> Option<usize> {
        let message = self
            .batch
            .iter()
            .flat_map(attribute::messages)
            .flatten()
            .find(|message| message.sequence == sequence)?;
        let elements = message.attributes().get(NFTA_SET_ELEM_LIST_ELEMENTS)?;
        elements
            .nested()
            .position(|element| element.offset == offset)
    }
}
