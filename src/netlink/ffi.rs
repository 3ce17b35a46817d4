//! The only unsafe code: libnftnl's objects as owned values, libnftnl's parser of rules, and calls
//! of C that have no safe wrapper.
#![expect(
    unsafe_code,
    reason = "libnftnl and socket options are reached through C functions"
)]

use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{MsgType, NlMsg};
use tokio::io::unix::AsyncFd;

use crate::netlink::nf_tables::readable::is_readable;
use crate::netlink::socket::attribute::{Attributes, HEADER, NFGEN};
use crate::netlink::uapi::nf_tables::NFT_DATA_VALUE_MAXLEN;

/// Returns free memory to the system.
///
/// After a large transaction, as much memory is free as is in use, and glibc would keep it.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer, may be called by any thread at any time, and touches
    // free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Declares an owner of one of libnftnl's objects with its one setter.
macro_rules! owner {
    ($(#[$doc:meta])* $Owner:ident, $raw:ident, $free:ident, $set:ident) => {
        $(#[$doc])*
        pub(crate) struct $Owner(NonNull<sys::$raw>);

        impl $Owner {
            /// Sets an attribute to these bytes, which libnftnl copies.
            pub(crate) fn set(&mut self, attribute: u32, value: &[u8]) -> &mut Self {
                let attribute = attribute_number(attribute);
                let len = data_len(value);
                // SAFETY: the object is alive, since we own it; `value` holds `len` bytes, which
                // the setter copies. A size that the attribute cannot have ends the process in
                // libnftnl (`nftnl_assert_validate`); `set_register` checks that of a register.
                unsafe { sys::$set(self.0.as_ptr(), attribute, value.as_ptr().cast(), len) };
                self
            }

            /// Sets an attribute to a number.
            pub(crate) fn set_u32(&mut self, attribute: u32, value: u32) -> &mut Self {
                self.set(attribute, &value.to_ne_bytes())
            }

            /// Sets an attribute to a text.
            pub(crate) fn set_str(&mut self, attribute: u32, value: &CStr) -> &mut Self {
                self.set(attribute, value.to_bytes_with_nul())
            }

            /// Transfers the object to libnftnl, which frees it from now on.
            #[allow(dead_code, reason = "only some kinds of object become part of another")]
            fn into_raw(self) -> *mut sys::$raw {
                let raw = self.0.as_ptr();
                std::mem::forget(self);
                raw
            }
        }

        impl Drop for $Owner {
            fn drop(&mut self) {
                // SAFETY: we own the object, and nobody uses it after this.
                unsafe { sys::$free(self.0.as_ptr()) };
            }
        }
    };
}

owner!(
    /// A table of nf_tables.
    Table, nftnl_table, nftnl_table_free, nftnl_table_set_data
);
owner!(
    /// A chain of a table.
    Chain, nftnl_chain, nftnl_chain_free, nftnl_chain_set_data
);
owner!(
    /// A rule of a chain.
    Rule, nftnl_rule, nftnl_rule_free, nftnl_rule_set_data
);
owner!(
    /// An expression of a rule or set.
    Expr, nftnl_expr, nftnl_expr_free, nftnl_expr_set
);
owner!(
    /// A set or map, or as many of its elements as one message holds.
    Set, nftnl_set, nftnl_set_free, nftnl_set_set_data
);
owner!(
    /// An element of a set or map.
    Elem, nftnl_set_elem, nftnl_set_elem_free, nftnl_set_elem_set
);

/// Returns the number of an attribute with the type of libnftnl's functions; its enums have 32
/// bits.
#[expect(
    clippy::expect_used,
    reason = "libnftnl has fewer than 64 attributes for each kind of object"
)]
fn attribute_number(attribute: u32) -> u16 {
    u16::try_from(attribute).expect("an attribute of libnftnl")
}

/// Returns the length of a value with the type of libnftnl's functions.
#[expect(
    clippy::expect_used,
    reason = "a value is a number, a name, or a name's user data: a few hundred bytes"
)]
fn data_len(value: &[u8]) -> u32 {
    u32::try_from(value.len()).expect("a value shorter than 4 GiB")
}

/// Returns the value of a register, which must not be longer than one.
fn register_value(value: &[u8]) -> &[u8] {
    assert!(
        value.len() <= NFT_DATA_VALUE_MAXLEN,
        "a register holds no {} bytes",
        value.len()
    );
    value
}

/// Returns the object that libnftnl allocated, or ends the process if there is no memory for it.
fn allocated<T>(object: *mut T) -> NonNull<T> {
    match NonNull::new(object) {
        Some(object) => object,
        None => std::alloc::handle_alloc_error(std::alloc::Layout::new::<T>()),
    }
}

impl Table {
    /// Makes a table without attributes.
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_table_alloc() }))
    }
}

impl Chain {
    /// Makes a chain without attributes.
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_chain_alloc() }))
    }
}

impl Rule {
    /// Makes a rule without expressions.
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_rule_alloc() }))
    }

    /// Appends an expression.
    pub(crate) fn push(&mut self, expr: Expr) -> &mut Self {
        // SAFETY: both objects are alive; the rule owns the expression from now on.
        unsafe { sys::nftnl_rule_add_expr(self.0.as_ptr(), expr.into_raw()) };
        self
    }

    /// Returns the expressions as `nft --debug=netlink` prints them, one a line.
    ///
    /// The text is cut after 8 KiB, which no rule of ours reaches. It is empty if libnftnl cannot
    /// print an expression, which every expression of ours can be.
    pub(crate) fn text(&self) -> String {
        let mut buffer = vec![0_u8; 8192];
        // SAFETY: writes at most `buffer.len()` bytes, with a NUL at the end, and returns the
        // number of bytes that the whole text takes.
        let written = unsafe {
            sys::nftnl_rule_snprintf(
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                self.0.as_ptr(),
                sys::NFTNL_OUTPUT_DEFAULT,
                0,
            )
        };
        let Ok(len) = usize::try_from(written) else {
            return String::new();
        };
        buffer.truncate(len);
        let text = String::from_utf8_lossy(&buffer);
        let expressions: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('['))
            .collect();
        expressions.join("\n")
    }

    /// Parses the rule of a netlink message; `None` if libnftnl does not know an expression of it.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let first = HEADER + NFGEN;
        if !is_readable(&Attributes::at(first, message.get(first..)?)) {
            return None;
        }
        let message = AlignedMessage::copy(message)?;
        let rule = Self::new();
        // SAFETY: `message` is aligned and as long as its header says; libnftnl reads only that,
        // since each expression has a name.
        let result = unsafe { sys::nftnl_rule_nlmsg_parse(message.header(), rule.0.as_ptr()) };
        (result >= 0).then_some(rule)
    }
}

impl Expr {
    /// Makes an expression of this kind, which libnftnl must know.
    pub(crate) fn new(kind: &'static CStr) -> Self {
        // SAFETY: `kind` ends with a NUL; libnftnl only reads it.
        Self(allocated(unsafe { sys::nftnl_expr_alloc(kind.as_ptr()) }))
    }

    /// Sets a value that is loaded into a register or compared with one.
    pub(crate) fn set_register(&mut self, attribute: u32, value: &[u8]) -> &mut Self {
        self.set(attribute, register_value(value))
    }
}

impl Set {
    /// Makes a set without attributes.
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_set_alloc() }))
    }

    /// Adds an expression that each element of the set has.
    pub(crate) fn push_expr(&mut self, expr: Expr) {
        // SAFETY: both objects are alive; the set owns the expression from now on.
        unsafe { sys::nftnl_set_add_expr(self.0.as_ptr(), expr.into_raw()) };
    }

    /// Appends an element.
    pub(crate) fn push(&mut self, elem: Elem) {
        // SAFETY: both objects are alive; the set owns the element from now on.
        unsafe { sys::nftnl_set_elem_add(self.0.as_ptr(), elem.into_raw()) };
    }
}

impl Elem {
    /// Makes an element without key.
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_set_elem_alloc() }))
    }

    /// Sets the key or the data of the element.
    pub(crate) fn set_register(&mut self, attribute: u32, value: &[u8]) -> &mut Self {
        self.set(attribute, register_value(value))
    }
}

/// The object that a message adds or deletes.
pub(crate) enum Payload {
    /// A table.
    Table(Table),
    /// A chain.
    Chain(Chain),
    /// A rule.
    Rule(Rule),
    /// The declaration of a set or map.
    Set(Set),
    /// The elements of this set or map.
    Elements(Set),
}

/// A netlink message to nf_tables.
pub(crate) struct NftMessage {
    /// The message's type, `NFT_MSG_*`.
    pub(crate) kind: u8,
    /// The family of the object's table, `NFPROTO_*`.
    pub(crate) family: u8,
    /// The message's flags, `NLM_F_*`; never `NLM_F_ACK`: hundreds of answers overflow the queue.
    pub(crate) flags: u16,
    /// The object that the message adds or deletes.
    pub(crate) payload: Payload,
    /// The sequence number that the message was last written with.
    pub(crate) sequence: Cell<u32>,
}

// SAFETY: a message is at most `nft_nlmsg_maxsize()` long: 65,535 bytes and a page. Only elements
// come near: `nf_tables::operations` bounds the size of each and puts at most `MAX_ELEMENTS` bytes
// of them into a message. The rest of the message is its headers and two names, for which the page
// is enough.
unsafe impl NlMsg for NftMessage {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        self.sequence.set(sequence);
        let (kind, family) = (self.kind.into(), self.family.into());
        // SAFETY: the caller provides room for `nft_nlmsg_maxsize()` bytes.
        let header = unsafe {
            sys::nftnl_nlmsg_build_hdr(buffer.cast(), kind, family, self.flags, sequence)
        };
        match &self.payload {
            Payload::Table(table) => {
                // SAFETY: `header` was just built in the buffer; the object is alive.
                unsafe { sys::nftnl_table_nlmsg_build_payload(header, table.0.as_ptr()) };
            }
            Payload::Chain(chain) => {
                // SAFETY: as above.
                unsafe { sys::nftnl_chain_nlmsg_build_payload(header, chain.0.as_ptr()) };
            }
            Payload::Rule(rule) => {
                // SAFETY: as above.
                unsafe { sys::nftnl_rule_nlmsg_build_payload(header, rule.0.as_ptr()) };
            }
            Payload::Set(set) => {
                // SAFETY: as above.
                unsafe { sys::nftnl_set_nlmsg_build_payload(header, set.0.as_ptr()) };
            }
            Payload::Elements(set) => {
                // SAFETY: as above.
                unsafe { sys::nftnl_set_elems_nlmsg_build_payload(header, set.0.as_ptr()) };
            }
        }
    }
}

/// A whole netlink message in memory that is aligned for its header, so that libnftnl can read it.
struct AlignedMessage(Vec<u32>);

impl AlignedMessage {
    /// Copies a message; `None` if it is shorter than its header says.
    fn copy(message: &[u8]) -> Option<Self> {
        const { assert!(align_of::<u32>() == align_of::<libc::nlmsghdr>()) };
        let len = message
            .first_chunk::<4>()
            .copied()
            .map(u32::from_ne_bytes)?;
        let len = usize::try_from(len).ok()?;
        if len < size_of::<libc::nlmsghdr>() || len > message.len() {
            return None;
        }
        let word = |bytes: &[u8]| {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(bytes) {
                *to = *from;
            }
            u32::from_ne_bytes(word)
        };
        Some(Self(message.chunks(4).map(word).collect()))
    }

    /// Returns the message as C takes it.
    fn header(&self) -> *const libc::nlmsghdr {
        self.0.as_ptr().cast()
    }
}

/// Enables an option of a netlink socket (`NETLINK_EXT_ACK`, `NETLINK_CAP_ACK`): netlink(7).
pub(crate) fn enable_option(fd: BorrowedFd<'_>, option: i32) -> std::io::Result<()> {
    /// The bytes of the option's value.
    const LEN: libc::socklen_t = 4;
    const { assert!(size_of::<libc::c_int>() == 4) };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open; the value is an int of `LEN` bytes that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            LEN,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Registers a descriptor with the caller's runtime, which then can wait until it is readable.
pub(crate) fn register(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, which the result owns.
    let registered = unsafe { AsyncFd::register(fd) };
    registered.map_err(std::io::Error::from)
}
