//! IPVS, over generic netlink: that kube-proxy's mode of that name is left behind.

use std::io::IoSlice;

use nix::errno::Errno;

use super::Error;
use super::attribute;
use super::socket::{Dump, Socket};

/// The family that knows the others, and how it is asked (`linux/genetlink.h`). What stands in
/// nfnetlink's header for the family is the command here.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// `linux/ip_vs.h`.
const IPVS: &str = "IPVS";
const IPVS_CMD_FLUSH: u8 = 17;

/// Deletes every virtual server of this network namespace, as kube-proxy's own cleanup does. `false`:
/// this kernel has no IPVS.
///
/// # Errors
/// If the kernel does not delete them.
pub fn flush_ipvs() -> Result<bool, Error> {
    let mut socket = Socket::open_on(mnl::Bus::Generic)?;
    let name = attribute::texts(&[(CTRL_ATTR_FAMILY_NAME, IPVS)]);
    let family = socket.ask_for(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name, |message| {
        let id = message.attributes().get(CTRL_ATTR_FAMILY_ID)?.value;
        id.try_into().ok().map(u16::from_ne_bytes)
    });
    let family = match family {
        Ok(Some(family)) => family,
        Ok(None) | Err(Dump::Refused(Errno::ENOENT)) => return Ok(false),
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
