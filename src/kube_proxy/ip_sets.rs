//! IP sets (ipset(8)), which kube-proxy's mode ipvs made for its iptables rules: listed by name,
//! destroyed.

use std::io::IoSlice;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use crate::netlink::socket::DumpError;
use crate::netlink::socket::attribute::{self, Attribute, REQUEST};
use crate::netlink::{Error, Kernel};

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

/// `IPSET_ERR_BUSY`. nf_tables frees deleted rules later, in a work item after a grace period
/// (`nf_tables_trans_destroy_work`), and only that gives the reference of `xt_set` back.
const IPSET_ERR_BUSY: i32 = 4100;

/// For how long a busy IP set is tried again, and how often.
const BUSY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Why an IP set was not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum IpSetError {
    /// A rule or an IP set needs it.
    #[error("it is in use by another program's rule or IP set")]
    InUse,
    /// Whatever else.
    #[error(transparent)]
    Failed(#[from] Error),
}

fn kind(command: i32) -> u16 {
    attribute::kind(libc::NFNL_SUBSYS_IPSET, command)
}

fn protocol() -> Vec<u8> {
    let mut attributes = Vec::new();
    attribute::push(&mut attributes, IPSET_ATTR_PROTOCOL, &[PROTOCOL]);
    attributes
}

impl Kernel {
    /// The names of the IP sets of this network namespace; none where the kernel has no such thing,
    /// which is not loaded by the question.
    ///
    /// # Errors
    /// If the kernel does not tell.
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
            .dump_of(kind(IPSET_CMD_LIST), IPV4, &attributes, |message| {
                let attributes = message.attributes();
                let name = attributes.get(IPSET_ATTR_SETNAME).and_then(Attribute::text);
                names.extend(name.map(str::to_owned));
            });
        match listed {
            Ok(_) => Ok(names),
            // Neither built in nor loaded.
            Err(DumpError::Rejected(Errno::EINVAL | Errno::EOPNOTSUPP)) => Ok(Vec::new()),
            Err(dump) => Err(dump.error("list IP sets")),
        }
    }

    /// Destroys all of these. Those that stay, and why; one that is gone already is none of them.
    pub fn destroy_ip_sets(&mut self, names: Vec<String>) -> Vec<(String, IpSetError)> {
        let deadline = Instant::now() + BUSY;
        let mut tried = names;
        let mut failed = Vec::new();
        loop {
            let mut busy = Vec::new();
            for name in tried {
                match self.destroy_ip_set(&name) {
                    Ok(()) => {}
                    Err(IpSetError::InUse) => busy.push(name),
                    Err(why @ IpSetError::Failed(_)) => failed.push((name, why)),
                }
            }
            if busy.is_empty() || Instant::now() > deadline {
                failed.extend(busy.into_iter().map(|name| (name, IpSetError::InUse)));
                return failed;
            }
            thread::sleep(PAUSE);
            tried = busy;
        }
    }

    fn destroy_ip_set(&mut self, name: &str) -> Result<(), IpSetError> {
        let mut attributes = protocol();
        attributes.extend(attribute::texts(&[(IPSET_ATTR_SETNAME, name)]));
        let request = attribute::request(kind(IPSET_CMD_DESTROY), REQUEST, IPV4, 1, &attributes);
        let refused = self.socket.send(&[IoSlice::new(&request)])?;
        let Some(refused) = refused.first() else {
            return Ok(());
        };
        match (refused.number, refused.errno) {
            (_, Errno::ENOENT) => Ok(()),
            (_, Errno::EPERM) => Err(Error::Permission.into()),
            (IPSET_ERR_BUSY, _) => Err(IpSetError::InUse),
            (number, _) => Err(Error::number("destroy an IP set")(number).into()),
        }
    }
}

/// Whether the kernel has IP sets now, built in or loaded: with a parameter, `max_sets`, it is in
/// `/sys/module` either way. Where there is no `/sys`, only the question tells.
fn is_loaded() -> bool {
    let modules = Path::new("/sys/module");
    modules.join("ip_set").exists() || !modules.exists()
}
