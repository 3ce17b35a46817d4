//! Fields of keys and values as nf_tables stores them in registers.

use crate::planner::model::{Address, Protocol};

/// A writer of fields as nf_tables stores them in registers.
///
/// Fields are in network byte order, except slots, which `numgen` writes in host byte order. In a
/// concatenation each field is padded to 4 bytes.
pub(super) struct Registers(pub(super) Vec<u8>);

impl Registers {
    /// Returns a writer without bytes.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(36))
    }

    /// Appends a protocol.
    pub(super) fn protocol(self, protocol: Protocol) -> Self {
        self.bytes(&[protocol.number(), 0, 0, 0])
    }

    /// Appends a port.
    pub(super) fn port(self, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.bytes(&[high, low, 0, 0])
    }

    /// Appends a slot.
    pub(super) fn slot(self, slot: u32) -> Self {
        self.bytes(&slot.to_ne_bytes())
    }

    /// Appends an address.
    pub(super) fn address<A: Address>(mut self, address: A) -> Self {
        address.push_bytes(&mut self.0);
        self
    }

    /// Appends bytes without a conversion.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// A reader of fields as nf_tables stores them in registers.
pub(super) struct RegisterReader<'a>(pub(super) &'a [u8]);

impl RegisterReader<'_> {
    /// Reads this number of bytes.
    pub(super) fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    /// Reads one register.
    pub(super) fn array(&mut self) -> Option<[u8; 4]> {
        self.take(4)?.try_into().ok()
    }

    /// Reads a protocol.
    pub(super) fn protocol(&mut self) -> Option<Protocol> {
        let [number, ..] = self.array()?;
        Protocol::from_number(number)
    }

    /// Reads a port.
    pub(super) fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.array()?;
        Some(u16::from_be_bytes([high, low]))
    }

    /// Reads a slot.
    pub(super) fn slot(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Reads an address.
    pub(super) fn address<A: Address>(&mut self) -> Option<A> {
        self.take(A::LEN).and_then(A::from_bytes)
    }
}
