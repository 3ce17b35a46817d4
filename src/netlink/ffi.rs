//! The only unsafe code: libnftnl's objects as owned values, and one parser of its own.
#![expect(
    unsafe_code,
    reason = "libnftnl and socket options are reached through C functions"
)]

use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{MsgType, NlMsg};
use tokio::io::unix::AsyncFd;

/// The largest value of a register: `NFT_DATA_VALUE_MAXLEN` of `linux/netfilter/nf_tables.h`.
const MAX_DATA: usize = 64;

/// Gives memory that was freed back to the system: after a large transaction it is as much again as
/// what is kept, and glibc would keep it for a next one.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, may be called by any thread at any time (malloc_trim(3)), and
    // touches free memory only.
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
            /// Sets an attribute to these bytes; libnftnl copies them.
            pub(crate) fn set(&mut self, attribute: u32, value: &[u8]) -> &mut Self {
                let attribute = attribute_number(attribute);
                let len = data_len(value);
                // SAFETY: the object is alive, since we own it; `value` holds `len` bytes, which
                // the setter copies. A size that the attribute cannot have ends the process in
                // libnftnl (`nftnl_assert_validate`), and data of a register is at most MAX_DATA.
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

            /// Gives the object to libnftnl, which frees it from now on.
            #[allow(dead_code, reason = "only some kinds of object are given away")]
            fn give(self) -> *mut sys::$raw {
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
    /// A table.
    Table, nftnl_table, nftnl_table_free, nftnl_table_set_data
);
owner!(
    /// A chain.
    Chain, nftnl_chain, nftnl_chain_free, nftnl_chain_set_data
);
owner!(
    /// A rule.
    Rule, nftnl_rule, nftnl_rule_free, nftnl_rule_set_data
);
owner!(
    /// An expression of a rule or set.
    Expr, nftnl_expr, nftnl_expr_free, nftnl_expr_set
);
owner!(
    /// A set or map, or a message's worth of its elements.
    Set, nftnl_set, nftnl_set_free, nftnl_set_set_data
);
owner!(
    /// An element of a set or map.
    Elem, nftnl_set_elem, nftnl_set_elem_free, nftnl_set_elem_set
);

fn attribute_number(attribute: u32) -> u16 {
    // libnftnl's enums of attributes have fewer than 64 values each.
    u16::try_from(attribute).unwrap_or(u16::MAX)
}

fn data_len(value: &[u8]) -> u32 {
    // Texts and user data are at most a few hundred bytes.
    u32::try_from(value.len()).unwrap_or(u32::MAX)
}

/// The object that libnftnl allocated; without memory for it there is no going on.
fn allocated<T>(object: *mut T) -> NonNull<T> {
    match NonNull::new(object) {
        Some(object) => object,
        None => std::alloc::handle_alloc_error(std::alloc::Layout::new::<T>()),
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_table_alloc() }))
    }
}

impl Chain {
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_chain_alloc() }))
    }
}

impl Rule {
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_rule_alloc() }))
    }

    /// Appends an expression.
    pub(crate) fn push(&mut self, expr: Expr) -> &mut Self {
        // SAFETY: both objects are alive; the rule owns the expression from now on.
        unsafe { sys::nftnl_rule_add_expr(self.0.as_ptr(), expr.give()) };
        self
    }

    /// The expressions as `nft --debug=netlink` prints them, one a line.
    pub(crate) fn text(&self) -> String {
        let mut buffer = vec![0_u8; 8192];
        // SAFETY: writes at most `buffer.len()` bytes, with a NUL at the end, and returns the
        // number that the whole text takes.
        let written = unsafe {
            sys::nftnl_rule_snprintf(
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                self.0.as_ptr(),
                sys::NFTNL_OUTPUT_DEFAULT,
                0,
            )
        };
        let written = usize::try_from(written).unwrap_or(0).min(buffer.len());
        buffer.truncate(written);
        let text = String::from_utf8_lossy(&buffer);
        let lines = text.lines().map(str::trim);
        let expressions = lines.filter(|line| line.starts_with('['));
        expressions.collect::<Vec<_>>().join("\n")
    }

    /// The rule in a netlink message of the kernel; `None` if it cannot be parsed.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let message = AlignedMessage::copy(message)?;
        let rule = Self::new();
        // SAFETY: `message` is aligned and as long as its header says; libnftnl reads only that.
        let result = unsafe { sys::nftnl_rule_nlmsg_parse(message.header(), rule.0.as_ptr()) };
        (result >= 0).then_some(rule)
    }

    /// The name of its chain.
    pub(crate) fn chain(&self) -> String {
        let attribute = attribute_number(sys::NFTNL_RULE_CHAIN);
        // SAFETY: the object is alive; the text, if any, is its own and ends with a NUL.
        let name = unsafe { sys::nftnl_rule_get_str(self.0.as_ptr(), attribute) };
        if name.is_null() {
            return String::new();
        }
        // SAFETY: not null, and see above; copied before the object can go.
        let name = unsafe { CStr::from_ptr(name) };
        name.to_string_lossy().into_owned()
    }
}

impl Expr {
    /// An expression of this kind; it must be one that libnftnl knows.
    pub(crate) fn new(kind: &'static CStr) -> Self {
        // SAFETY: `kind` ends with a NUL; libnftnl only reads it.
        Self(allocated(unsafe { sys::nftnl_expr_alloc(kind.as_ptr()) }))
    }
}

impl Set {
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_set_alloc() }))
    }

    /// Gives each element of the set this expression.
    pub(crate) fn push_expr(&mut self, expr: Expr) {
        // SAFETY: both objects are alive; the set owns the expression from now on.
        unsafe { sys::nftnl_set_add_expr(self.0.as_ptr(), expr.give()) };
    }

    /// Appends an element.
    pub(crate) fn push(&mut self, elem: Elem) {
        // SAFETY: both objects are alive; the set owns the element from now on.
        unsafe { sys::nftnl_set_elem_add(self.0.as_ptr(), elem.give()) };
    }
}

impl Elem {
    pub(crate) fn new() -> Self {
        // SAFETY: allocates; no argument.
        Self(allocated(unsafe { sys::nftnl_set_elem_alloc() }))
    }

    /// Sets a key or data, which a register must be able to hold.
    pub(crate) fn set_register(&mut self, attribute: u32, value: &[u8]) -> &mut Self {
        let value = value.get(..MAX_DATA).unwrap_or(value);
        self.set(attribute, value)
    }
}

/// What a message is about.
pub(crate) enum Payload {
    Table(Table),
    Chain(Chain),
    Rule(Rule),
    Set(Set),
    Elements(Set),
}

/// A netlink message to nf_tables.
pub(crate) struct NftMessage {
    /// `NFT_MSG_*`.
    pub(crate) kind: i32,
    /// `NFPROTO_*`.
    pub(crate) family: u16,
    /// `NLM_F_*`; never ACK: hundreds of them overflow the receive buffer.
    pub(crate) flags: i32,
    /// What it is about.
    pub(crate) payload: Payload,
    /// The sequence number it was written with.
    pub(crate) sequence: Cell<u32>,
}

// SAFETY: a message is at most `nft_nlmsg_maxsize()` long. Only elements come near: their list is
// one attribute, whose length is 16 bits, and `netlink::encode` keeps it under that; the rest of
// the message is two names, for which the page that `nft_nlmsg_maxsize()` adds is enough.
unsafe impl NlMsg for NftMessage {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        self.sequence.set(sequence);
        let kind = u16::try_from(self.kind).unwrap_or(u16::MAX);
        let flags = u16::try_from(self.flags).unwrap_or(0);
        // SAFETY: the caller gives room for `nft_nlmsg_maxsize()` bytes.
        let header = unsafe {
            sys::nftnl_nlmsg_build_hdr(buffer.cast(), kind, self.family, flags, sequence)
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

/// A netlink message where libnftnl may read it: aligned as its header is, and whole.
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

    fn header(&self) -> *const libc::nlmsghdr {
        self.0.as_ptr().cast()
    }
}

/// A netlink socket that may move to another thread.
pub(crate) struct NetlinkSocket(mnl::Socket);

// SAFETY: libmnl's `struct mnl_socket` is a descriptor and an address on the heap; nothing of it
// belongs to a thread, and we only ever use it through one owner.
unsafe impl Send for NetlinkSocket {}

impl NetlinkSocket {
    pub(crate) fn open(bus: mnl::Bus) -> std::io::Result<Self> {
        mnl::Socket::new(bus).map(Self)
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The descriptor as the system-call wrappers want it.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self` lives, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }

    /// Turns on a netlink option (`NETLINK_EXT_ACK`, `NETLINK_CAP_ACK`): netlink(7).
    pub(crate) fn turn_on(&self, option: i32) -> std::io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open; the value is an int that lives over the call.
        let result = unsafe {
            libc::setsockopt(
                self.raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    }
}

/// A descriptor that can be waited for on the runtime of the caller.
pub(crate) fn awaited(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, which the result owns.
    let registered = unsafe { AsyncFd::register(fd) };
    registered.map_err(std::io::Error::from)
}
