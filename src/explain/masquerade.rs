//! Whether the source is masqueraded, by the rules of `nat-postrouting` in their order.

use super::{Frontend, Kind, Lookup, Source};
use crate::model::Address;
use crate::ruleset::{Element, Key, Pods, Program, SetName};

/// Why a connection to a frontend is masqueraded whichever endpoint it got.
pub(super) fn whatever_endpoint<A: Address, L: Lookup<A>>(
    rules: &mut L,
    program: &Program,
    frontend: &Frontend<A>,
    source: &Source<A>,
) -> Result<Option<String>, L::Error> {
    let Frontend {
        protocol,
        address,
        port,
    } = *frontend;
    let is_cluster_ip = rules
        .get(SetName::ClusterIps, &Key::Address(address))?
        .is_some();
    if is_cluster_ip {
        if program.masquerade_all {
            return Ok(Some("all that goes to a ClusterIP is".to_owned()));
        }
        if source.kind != Kind::Pod {
            match &program.pods {
                Pods::Unknown => {}
                Pods::Cidrs => {
                    if !is_in_pod_cidrs(rules, source)? {
                        return Ok(Some("to a ClusterIP, from outside @pod-cidrs".to_owned()));
                    }
                }
                Pods::Interface(interface) => {
                    let why = format!("to a ClusterIP, and did not come in by \"{interface}\"");
                    return Ok(Some(why));
                }
            }
        }
    }
    let is_node_ip = rules
        .get(SetName::NodeIps, &Key::Address(address))?
        .is_some();
    let mut holds = |set, key| -> Result<bool, L::Error> { Ok(rules.get(set, &key)?.is_some()) };
    let at = Key::AddressPort(address, port);
    if holds(SetName::Masquerade(protocol), at)? {
        return Ok(Some(named(SetName::Masquerade(protocol), at)));
    }
    let nodeport = Key::Port(port);
    if is_node_ip && holds(SetName::MasqueradeNodeport(protocol), nodeport)? {
        let set = SetName::MasqueradeNodeport(protocol);
        return Ok(Some(named(set, nodeport)));
    }
    if source.kind != Kind::Node {
        return Ok(None);
    }
    if holds(SetName::MasqueradeNode(protocol), at)? {
        let set = SetName::MasqueradeNode(protocol);
        return Ok(Some(named(set, at) + ", and from this node"));
    }
    if is_node_ip && holds(SetName::MasqueradeNodeNodeport(protocol), nodeport)? {
        let set = SetName::MasqueradeNodeNodeport(protocol);
        return Ok(Some(named(set, nodeport) + ", and from this node"));
    }
    Ok(None)
}

/// The node may have an address among those of Pods: that of the bridge that they are on.
fn is_in_pod_cidrs<A: Address, L: Lookup<A>>(
    rules: &mut L,
    source: &Source<A>,
) -> Result<bool, L::Error> {
    let Some(address) = source.address else {
        return Ok(false);
    };
    let cidrs = rules.all(SetName::PodCidrs)?;
    let holds =
        |element: &Element<A>| matches!(element.key, Key::Net(net) if A::holds(net, address));
    Ok(cidrs.iter().any(holds))
}

fn named<A: Address>(set: SetName, key: Key<A>) -> String {
    format!("@{set} has {key}")
}

/// Why a connection to this endpoint is masqueraded besides: the endpoint would answer itself.
pub(super) fn hairpin<A: Address, L: Lookup<A>>(
    rules: &mut L,
    endpoint: A,
    source: &Source<A>,
) -> Result<Option<String>, L::Error> {
    let itself = match source.address {
        Some(address) => address == endpoint,
        None => source.kind == Kind::Pod,
    };
    let key = Key::Pair(endpoint, endpoint);
    if !itself || rules.get(SetName::Hairpin, &key)?.is_none() {
        return Ok(None);
    }
    Ok(Some(match source.address {
        Some(_) => format!("it reaches itself, @hairpin has {key}"),
        None => "only if it reaches itself (@hairpin)".to_owned(),
    }))
}
