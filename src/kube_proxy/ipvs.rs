//! The virtual servers of IPVS, over generic netlink, which kube-proxy's ipvs mode leaves.

use std::io::IoSlice;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::Error;
use crate::netlink::socket::attribute::{self, MalformedMessage};
use crate::netlink::socket::{RequestError, Socket};
use crate::netlink::uapi::NLM_F_REQUEST;

/// The family that resolves the names of the others (`linux/genetlink.h`).
///
/// The header of generic netlink has the command where that of nfnetlink has the family.
const GENL_ID_CTRL: u16 = 0x10;
/// The command that resolves the name of a family.
const CTRL_CMD_GETFAMILY: u8 = 3;
/// The attribute with the number of a family.
const CTRL_ATTR_FAMILY_ID: u16 = 1;
/// The attribute with the name of a family.
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// The name of the family of IPVS (`linux/ip_vs.h`).
const IPVS_FAMILY: &str = "IPVS";
/// The command that deletes all virtual servers.
const IPVS_CMD_FLUSH: u8 = 17;

/// Counts the virtual servers of this network namespace, without loading a kernel module.
#[must_use]
pub fn virtual_servers() -> usize {
    // Without the file, IPVS is not loaded.
    let servers = std::fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    count_servers(&servers)
}

/// Counts the virtual servers of `/proc/net/ip_vs`.
///
/// A line of a virtual server begins with its protocol or `FWM`, a line of a real server with an
/// arrow (`ip_vs_info_seq_show` in `net/netfilter/ipvs/ip_vs_ctl.c`).
fn count_servers(servers: &str) -> usize {
    let is_server = |line: &&str| {
        let first = line.split_whitespace().next();
        first.is_some_and(|word| ["TCP", "UDP", "SCTP", "FWM"].contains(&word))
    };
    servers.lines().filter(is_server).count()
}

/// The outcome of [`flush_ipvs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpvsFlush {
    /// All virtual servers are deleted.
    Deleted,
    /// There were no virtual servers.
    Empty,
}

/// Deletes all virtual servers of this network namespace, as `kube-proxy --cleanup` does.
///
/// # Errors
/// If the kernel rejects the deletion.
pub(super) fn flush_ipvs() -> Result<IpvsFlush, Error> {
    if virtual_servers() == 0 {
        return Ok(IpvsFlush::Empty);
    }
    let mut socket = Socket::open(SockProtocol::NetlinkGeneric)?;
    let name = attribute::texts(&[(CTRL_ATTR_FAMILY_NAME, IPVS_FAMILY)]);
    let family = socket.query(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name, |message| {
        let id = message.attributes().get(CTRL_ATTR_FAMILY_ID);
        let id = id.and_then(|id| id.value.try_into().ok());
        id.map(u16::from_ne_bytes).ok_or(MalformedMessage)
    });
    let family = match family {
        Ok(family) => family,
        Err(RequestError::Rejected(Errno::ENOENT)) => return Ok(IpvsFlush::Empty),
        Err(error) => return Err(error.error("find the netlink family of IPVS")),
    };
    let request = attribute::request(family, NLM_F_REQUEST, IPVS_CMD_FLUSH, 1, &[]);
    let rejected = socket.send(&[IoSlice::new(&request)])?;
    match rejected.first() {
        None => Ok(IpvsFlush::Deleted),
        Some(message) if message.errno == Errno::EPERM => Err(Error::Permission),
        Some(message) => Err(Error::errno("delete the virtual servers of IPVS")(
            message.errno,
        )),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_virtual_servers_are_counted() {
        let servers = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
              -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            TCP  0A600001:01BB rr\n  \
              -> 0A000205:192B      Masq    1      0          0\n\
            UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr persistent 10800 FFFFFFFF\n\
            FWM  00000001 wlc\n";
        assert_eq!(super::count_servers(servers), 3);
        assert_eq!(super::count_servers(""), 0);
    }
}
