//! IP sets (ipset(8)), which kube-proxy's mode ipvs made for its iptables rules: listed by name,
//! destroyed.

use std::io::IoSlice;

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use super::attribute::{self, Attribute, REQUEST};
use super::socket::Dump;
use super::{Error, Kernel};

/// Messages and attributes of `linux/netfilter/ipset/ip_set.h`.
const IPSET_CMD_DESTROY: i32 = 3;
const IPSET_CMD_LIST: i32 = 7;
const IPSET_ATTR_PROTOCOL: u16 = 1;
const IPSET_ATTR_SETNAME: u16 = 2;
const IPSET_ATTR_FLAGS: u16 = 6;
const IPSET_FLAG_LIST_SETNAME: u32 = 1 << 1;

/// The oldest protocol that every kernel since 2.6.39 speaks.
const PROTOCOL: u8 = 6;

const IPV4: u8 = 2;

fn kind(command: i32) -> u16 {
    attribute::kind(libc::NFNL_SUBSYS_IPSET, command)
}

fn protocol() -> Vec<u8> {
    let mut attributes = Vec::new();
    attribute::push(&mut attributes, IPSET_ATTR_PROTOCOL, &[PROTOCOL]);
    attributes
}

impl Kernel {
    /// The names of the IP sets of this network namespace; none where the kernel has no such thing.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn ip_sets(&mut self) -> Result<Vec<String>, Error> {
        let mut attributes = protocol();
        let flags = IPSET_FLAG_LIST_SETNAME.to_be_bytes();
        attribute::push(&mut attributes, IPSET_ATTR_FLAGS, &flags);
        let mut names = Vec::new();
        let listed = self
            .socket
            .dump_of(kind(IPSET_CMD_LIST), IPV4, &attributes, |message| {
                let attributes = message.attributes();
                let name = attributes.get(IPSET_ATTR_SETNAME).and_then(Attribute::text);
                names.extend(name.map(str::to_owned));
            });
        match listed {
            Ok(_) => Ok(names),
            // Neither built in nor loaded.
            Err(Dump::Refused(Errno::EINVAL | Errno::EOPNOTSUPP)) => Ok(Vec::new()),
            Err(dump) => Err(dump.error("list IP sets")),
        }
    }

    /// Destroys one. One that is gone already is none.
    ///
    /// # Errors
    /// If a rule needs it still.
    pub fn destroy_ip_set(&mut self, name: &str) -> Result<(), Error> {
        let mut attributes = protocol();
        attributes.extend(attribute::texts(&[(IPSET_ATTR_SETNAME, name)]));
        let request = attribute::request(kind(IPSET_CMD_DESTROY), REQUEST, IPV4, 1, &attributes);
        let refused = self.socket.send(&[IoSlice::new(&request)])?;
        match refused.first().map(|refused| refused.errno) {
            None | Some(Errno::ENOENT) => Ok(()),
            Some(Errno::EPERM) => Err(Error::Permission),
            Some(errno) => Err(Error::errno("destroy an IP set")(errno)),
        }
    }
}
