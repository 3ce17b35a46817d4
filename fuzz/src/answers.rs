//! Answers of a kernel, queued in a pair of sockets.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

/// A socket with queued datagrams, and the other end of the pair, which must stay open.
pub struct Answers {
    /// The socket that a reader of netlink reads.
    pub socket: OwnedFd,
    _kernel: OwnedFd,
}

impl Answers {
    /// Queues datagrams: each has its length before it, in two bytes. As of netlink, none is empty.
    ///
    /// The socket does not block: a reader that waits for another datagram has an error instead.
    ///
    /// # Panics
    /// If the system has no more sockets.
    #[must_use]
    pub fn queue(mut bytes: &[u8]) -> Self {
        // Unlike datagrams, packets of a sequence are bounded by bytes alone.
        let (socket, kernel) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_NONBLOCK,
        )
        .expect("a pair of sockets");
        while let [low, high, rest @ ..] = bytes {
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (datagram, after) = rest.split_at(len);
            bytes = after;
            if datagram.is_empty() || send(kernel.as_raw_fd(), datagram, MsgFlags::empty()).is_err()
            {
                break;
            }
        }
        Self {
            socket,
            _kernel: kernel,
        }
    }
}
