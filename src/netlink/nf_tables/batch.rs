//! A batch of messages, and which message is about which operations.

use std::io::IoSlice;
use std::ops::Range;

use nftnl::{FinalizedBatch, MsgType, default_batch_page_size};

use crate::netlink::ffi::NftMessage;
use crate::netlink::socket::attribute;
use crate::netlink::uapi::nf_tables::NFTA_SET_ELEM_LIST_ELEMENTS;
use crate::planner::model::addr::Family;

/// The most pages that a batch should have, half of those that one `sendmsg` takes (`UIO_MAXIOV` of
/// `linux/uio.h`): a page may be half empty.
const MAX_PAGES: u64 = 512;

/// The bytes of the largest page. Memory of a page that the batch does not use is never touched.
const LARGEST_PAGE: u32 = 1 << 30;

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
    /// Makes an empty batch for a few messages.
    pub(crate) fn new() -> Self {
        Self::with_room(0)
    }

    /// Makes an empty batch for messages of at most this many bytes, so that it has few pages.
    pub(crate) fn with_room(bytes: u64) -> Self {
        Self {
            batch: nftnl::Batch::with_page_size(page_size(bytes)),
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

/// Returns the bytes of each page of a batch of at most `bytes`.
fn page_size(bytes: u64) -> u32 {
    let needed = bytes.div_ceil(MAX_PAGES).next_multiple_of(4096);
    let needed = u32::try_from(needed).unwrap_or(LARGEST_PAGE);
    needed.clamp(default_batch_page_size(), LARGEST_PAGE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_batch_has_few_pages_and_a_small_one_small_pages() {
        assert_eq!(page_size(0), default_batch_page_size());
        assert_eq!(page_size(1 << 20), default_batch_page_size());
        for bytes in [1_u64 << 28, 1 << 33, 1 << 38] {
            let page = u64::from(page_size(bytes));
            assert!(bytes.div_ceil(page) <= MAX_PAGES, "{bytes}");
        }
        assert_eq!(page_size(u64::MAX / 2), LARGEST_PAGE);
    }
}
