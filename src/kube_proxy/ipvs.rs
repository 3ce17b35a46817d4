//! IPVS, over generic netlink: that kube-proxy's mode of that name is left behind.

use std::io::IoSlice;

use nix::errno::Errno;

use crate::netlink::Error;
use crate::netlink::socket::attribute;
use crate::netlink::socket::{DumpError, Socket};

/// The family that knows the others, and how it is asked (`linux/genetlink.h`). What stands in
/// nfnetlink's header for the family is the command here.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// `linux/ip_vs.h`.
const IPVS: &str = "IPVS";
const IPVS_CMD_FLUSH: u8 = 17;

/// How many virtual servers this network namespace has. Reading this makes the kernel load nothing.
#[must_use]
pub fn virtual_servers() -> usize {
    // No such file: IPVS is not loaded.
    let servers = std::fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    count(&servers)
}

/// `ip_vs_info_seq_show` of `net/netfilter/ipvs/ip_vs_ctl.c`: each virtual server begins with its
/// protocol or `FWM`, each of its real servers with an arrow.
fn count(servers: &str) -> usize {
    let is_server = |line: &&str| {
        let first = line.split_whitespace().next();
        first.is_some_and(|word| ["TCP", "UDP", "SCTP", "FWM"].contains(&word))
    };
    servers.lines().filter(is_server).count()
}

/// Deletes every virtual server of this network namespace, as kube-proxy's own cleanup does. `false`:
/// there was none.
///
/// # Errors
/// If the kernel does not delete them.
pub fn flush_ipvs() -> Result<bool, Error> {
    if virtual_servers() == 0 {
        return Ok(false);
    }
    let mut socket = Socket::open_on(mnl::Bus::Generic)?;
    let name = attribute::texts(&[(CTRL_ATTR_FAMILY_NAME, IPVS)]);
    let family = socket.ask_for(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name, |message| {
        let id = message.attributes().get(CTRL_ATTR_FAMILY_ID)?.value;
        id.try_into().ok().map(u16::from_ne_bytes)
    });
    let family = match family {
        Ok(Some(family)) => family,
        Ok(None) | Err(DumpError::Rejected(Errno::ENOENT)) => return Ok(false),
        Err(dump) => return Err(dump.error("look for IPVS")),
    };
    let request = attribute::request(family, attribute::REQUEST, IPVS_CMD_FLUSH, 1, &[]);
    let refused = socket.send(&[IoSlice::new(&request)])?;
    match refused.first() {
        None => Ok(true),
        Some(refused) if refused.errno == Errno::EPERM => Err(Error::Permission),
        Some(refused) => Err(Error::errno("empty IPVS")(refused.errno)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn virtual_servers_are_counted_and_not_their_real_ones() {
        let servers = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
              -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            TCP  0A600001:01BB rr\n  \
              -> 0A000205:192B      Masq    1      0          0\n\
            UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr persistent 10800 FFFFFFFF\n\
            FWM  00000001 wlc\n";
        assert_eq!(super::count(servers), 3);
        assert_eq!(super::count(""), 0);
    }
}
