//! A batch of messages, and which message is about which operations.

use std::io::IoSlice;
use std::ops::Range;

use nftnl::{FinalizedBatch, MsgType};

use crate::netlink::ffi::NftMessage;
use crate::netlink::socket::attribute::{self, Attributes};
use crate::netlink::uapi::NFTA_SET_ELEM_LIST_ELEMENTS;
use crate::planner::model::addr::Family;

/// What a message is about, to name it when the kernel rejects it.
#[derive(Clone, Debug)]
pub(crate) enum MessageSubject {
    /// A part of the fixed program, in nft's words.
    Program(String),
    /// These operations of a family's transaction.
    Operations(Family, Range<usize>),
    /// The message that must fail, so that the kernel undoes the transaction.
    Undo,
}

/// Messages that the kernel takes together or not at all.
pub(crate) struct Batch {
    batch: nftnl::Batch,
    index: Vec<(u32, MessageSubject)>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            batch: nftnl::Batch::new(),
            index: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, message: &NftMessage, about: MessageSubject) {
        // The message says itself whether it adds or deletes.
        self.batch.add(message, MsgType::Add);
        self.index.push((message.sequence.get(), about));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

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
    /// The pages of the batch.
    pub(crate) fn pages(&self) -> Vec<IoSlice<'_>> {
        self.batch.iter().map(IoSlice::new).collect()
    }

    /// What the message with this sequence number is about; of a message of elements, only the
    /// element at `offset` bytes into the message if the kernel said so.
    pub(crate) fn about(&self, sequence: u32, offset: Option<usize>) -> Option<MessageSubject> {
        let position = self
            .index
            .binary_search_by_key(&sequence, |(key, _)| *key)
            .ok()?;
        let (_, about) = self.index.get(position)?;
        let MessageSubject::Operations(family, operations) = about else {
            return Some(about.clone());
        };
        let one = offset
            .and_then(|offset| self.position(sequence, offset))
            .and_then(|position| operations.clone().nth(position));
        let operations = one.map_or(operations.clone(), |one| one..one + 1);
        Some(MessageSubject::Operations(*family, operations))
    }

    /// Which element of its message stands at `offset`. (Ranges, of two elements each, are never
    /// a Service's.)
    fn position(&self, sequence: u32, offset: usize) -> Option<usize> {
        let mut messages = self.batch.iter().flat_map(attribute::messages);
        let message = messages.find(|message| message.sequence == sequence)?;
        let list = message.attributes().get(NFTA_SET_ELEM_LIST_ELEMENTS)?;
        let elements: Attributes<'_> = list.nested();
        let mut starts = elements.map(|element| element.offset);
        starts.position(|start| start == offset)
    }
}
