//! The IP sets (ipset(8)) that kube-proxy's ipvs mode creates for its iptables rules: their listing
//! and removal.

use std::io::IoSlice;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::netlink::socket::RequestError;
use crate::netlink::socket::attribute::{self, Attribute};
use crate::netlink::uapi::{NFNL_SUBSYS_IPSET, NLM_F_REQUEST};
use crate::netlink::{Error, Kernel};

/// The command that destroys an IP set (`linux/netfilter/ipset/ip_set.h`, as the constants below).
const IPSET_CMD_DESTROY: u8 = 3;
/// The command that lists IP sets.
const IPSET_CMD_LIST: u8 = 7;
/// The attribute of the protocol version.
const IPSET_ATTR_PROTOCOL: u16 = 1;
/// The attribute of the name.
const IPSET_ATTR_SETNAME: u16 = 2;
/// The attribute of the flags.
const IPSET_ATTR_FLAGS: u16 = 6;
/// The flag that lists names only.
const IPSET_FLAG_LIST_SETNAME: u32 = 1 << 1;

/// The protocol version that every kernel since 2.6.39 accepts.
const PROTOCOL: u8 = 6;

/// The family in the header, which listing and removal ignore (`NFPROTO_IPV4`).
const IPV4: u8 = 2;

/// The error of an IP set that a rule uses.
///
/// nf_tables frees deleted rules later, in a work item after a grace period
/// (`nf_tables_trans_destroy_work`). Only then `xt_set` releases its reference.
const IPSET_ERR_BUSY: i32 = 4100;

/// The time for which the removal of a busy IP set is retried.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between two attempts to remove busy IP sets.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The error of an IP set that cannot be destroyed.
#[derive(Debug, thiserror::Error)]
pub enum IpSetError {
    /// A rule or an IP set of another program uses it.
    #[error("it is in use by another program's rule or IP set")]
    InUse,
    /// The kernel returned another error.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Returns the message type of a command.
fn kind(command: u8) -> u16 {
    attribute::kind(NFNL_SUBSYS_IPSET, command)
}

/// Encodes the attribute that every request begins with.
fn protocol() -> Vec<u8> {
    let mut attributes = Vec::new();
    attribute::push(&mut attributes, IPSET_ATTR_PROTOCOL, &[PROTOCOL]);
    attributes
}

impl Kernel {
    /// Lists the names of the IP sets of this network namespace.
    ///
    /// The list is empty if the kernel has no IP sets; listing does not load the module.
    ///
    /// # Errors
    /// If the kernel returns an error.
    pub fn ip_sets(&mut self) -> Result<Vec<String>, Error> {
        if !is_loaded() {
            return Ok(Vec::new());
        }
        let mut attributes = protocol();
        let flags = IPSET_FLAG_LIST_SETNAME.to_be_bytes();
        attribute::push(&mut attributes, IPSET_ATTR_FLAGS, &flags);
        let mut names = Vec::new();
        let listed = self
            .socket
            .dump(kind(IPSET_CMD_LIST), IPV4, &attributes, |message| {
                let attributes = message.attributes();
                let name = attributes.get(IPSET_ATTR_SETNAME).and_then(Attribute::text);
                names.extend(name.map(str::to_owned));
                Ok(())
            });
        match listed {
            Ok(_) => Ok(names),
            // Neither built in nor loaded.
            Err(RequestError::Rejected(Errno::EINVAL | Errno::EOPNOTSUPP)) => Ok(Vec::new()),
            Err(error) => Err(error.error("list IP sets")),
        }
    }

    /// Destroys IP sets; returns those that remain, with the errors. A missing IP set is no error.
    pub fn destroy_ip_sets(&mut self, names: Vec<String>) -> Vec<(String, IpSetError)> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        let mut remaining = names;
        let mut failed = Vec::new();
        loop {
            let mut busy = Vec::new();
            for name in remaining {
                match self.destroy_ip_set(&name) {
                    Ok(()) => {}
                    Err(IpSetError::InUse) => busy.push(name),
                    Err(error @ IpSetError::Failed(_)) => failed.push((name, error)),
                }
            }
            if busy.is_empty() || Instant::now() > deadline {
                failed.extend(busy.into_iter().map(|name| (name, IpSetError::InUse)));
                return failed;
            }
            thread::sleep(BUSY_PAUSE);
            remaining = busy;
        }
    }

    /// Destroys one IP set.
    fn destroy_ip_set(&mut self, name: &str) -> Result<(), IpSetError> {
        let mut attributes = protocol();
        attributes.extend(attribute::texts(&[(IPSET_ATTR_SETNAME, name)]));
        let request =
            attribute::request(kind(IPSET_CMD_DESTROY), NLM_F_REQUEST, IPV4, 1, &attributes);
        let rejected = self.socket.send(&[IoSlice::new(&request)])?;
        let Some(message) = rejected.first() else {
            return Ok(());
        };
        match (message.number, message.errno) {
            (_, Errno::ENOENT) => Ok(()),
            (_, Errno::EPERM) => Err(Error::Permission.into()),
            (IPSET_ERR_BUSY, _) => Err(IpSetError::InUse),
            (number, _) => Err(Error::number("destroy an IP set")(number).into()),
        }
    }
}

/// Returns whether the kernel may have IP sets, built in or loaded.
///
/// The module has a parameter, `max_sets`, so it is in `/sys/module` either way. Without `/sys`,
/// only a request shows it.
fn is_loaded() -> bool {
    let modules = Path::new("/sys/module");
    modules.join("ip_set").exists() || !modules.exists()
}
