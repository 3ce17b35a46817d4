//! Reads elements from the kernel, and determines how its rules classify a source.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use nix::ifaddrs::getifaddrs;

use crate::netlink::{Error, Kernel, TableShape};
use crate::planner::explain::{Lookup, SourceKind};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, ElementData, Key, PodMatch, SetName, Table, Value};

/// Returns the kinds of source that an address can be. Without an address, returns all kinds that
/// the rules distinguish.
pub(super) fn kinds<A: Address>(
    live: &mut LiveLookup<'_, A>,
    address: Option<A>,
) -> anyhow::Result<Vec<SourceKind>> {
    use SourceKind::{Elsewhere, Node, Pod};
    let pods = live.shape.program.pods.clone();
    let Some(address) = address else {
        return Ok(match pods {
            PodMatch::Unknown => vec![Node, Elsewhere],
            PodMatch::Cidrs | PodMatch::Interface(_) => vec![Pod, Node, Elsewhere],
        });
    };
    if live.is_local_address(address) {
        return Ok(vec![Node]);
    }
    Ok(match pods {
        PodMatch::Unknown => vec![Elsewhere],
        PodMatch::Interface(_) => vec![Pod, Elsewhere],
        PodMatch::Cidrs => {
            let cidrs = live.all(SetName::PodCidrs)?;
            let contains = |element: &Element<A>| matches!(element.key, Key::Net(net) if A::contains(net, address));
            vec![if cidrs.iter().any(contains) {
                Pod
            } else {
                Elsewhere
            }]
        }
    })
}

/// Returns the addresses of this node.
pub(super) fn own_addresses() -> anyhow::Result<BTreeSet<IpAddr>> {
    let interfaces = getifaddrs().context("cannot read this node's addresses")?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let ipv4 = address
            .as_sockaddr_in()
            .map(|socket| IpAddr::V4(socket.ip()));
        ipv4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|socket| IpAddr::V6(socket.ip()))
        })
    });
    Ok(addresses.collect())
}

/// A lookup of elements in the kernel's table of family `A`.
pub(super) struct LiveLookup<'a, A: Address> {
    /// The socket for the elements.
    pub(super) kernel: &'a mut Kernel,
    /// The shape of the table.
    pub(super) shape: TableShape<A>,
    /// The addresses of this node.
    pub(super) own: BTreeSet<IpAddr>,
}

impl<A: Address> Lookup<A> for LiveLookup<'_, A> {
    type Error = Error;

    fn get(&mut self, set: SetName, key: &Key<A>) -> Result<Option<ElementData<A>>, Error> {
        self.kernel.element(set, key)
    }

    fn all(&mut self, set: SetName) -> Result<Vec<Element<A>>, Error> {
        let table: Option<Table<A>> = self.kernel.read_elements(&self.shape.table, &[set])?;
        Ok(table.map_or_else(Vec::new, |table| table.elements_of(set).collect()))
    }

    fn pinned(
        &mut self,
        protocol: Protocol,
        client: &Key<A>,
    ) -> Result<Option<(Value<A>, Duration)>, Error> {
        self.kernel.pinned_endpoint(protocol, client)
    }

    fn is_local_address(&self, address: A) -> bool {
        let address: IpAddr = address.into();
        address.is_loopback() || self.own.contains(&address)
    }
}
