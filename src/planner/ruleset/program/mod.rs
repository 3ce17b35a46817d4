//! The fixed program: the chains that do not depend on the cluster's objects.
//!
//! Each rule has its nft text as a comment. `docs/ruleset.md` is the contract.

mod after_dnat;
mod dispatch;

use after_dnat::{input, masquerading, postrouting, session_affinity};
use dispatch::{dispatch, unserved_hook};

use super::{
    Chain, ChainName, Denial, DynamicChain, Hook, Interface, LookupField, Rule, Set, SetName,
    Statement, set,
};

/// The priority of the chains that send connections to endpoints, one before the standard -100.
///
/// (`include/uapi/linux/netfilter_ipv4.h`) The first chain that translates a connection decides
/// (`nf_nat_inet_fn`). While kube-proxy's chains exist, too, kube-dnat's must come first.
pub const DSTNAT: i32 = -101;

/// The priority of the chains that deny connections to `ClusterIPs` that no Service has.
///
/// It is after the standard -100, so that another program that serves an address of a ServiceCIDR
/// (`service.kubernetes.io/service-proxy-name`) comes first: the kernel evaluates no further NAT
/// chain for a connection that is translated (`nf_nat_inet_fn`).
pub(super) const AFTER_DSTNAT: i32 = -90;

/// The priority of the chains that pin clients and masquerade, one before the standard 100.
///
/// The kernel would not evaluate them for a connection that another program masquerades first.
pub(super) const SRCNAT: i32 = 99;

/// The match on connections from Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodMatch {
    /// Pods cannot be recognised: no connection to a `ClusterIP` is masqueraded for its source.
    ///
    /// kube-proxy does the same without a local-traffic detector.
    #[default]
    Unknown,
    /// By source address: `@pod-cidrs` for all Pods, `@pod-cidrs-local` for those of this node.
    Cidrs,
    /// By the input interface of the first packet, which packets of the node itself do not have.
    Interface(Interface),
}

/// The options of the fixed chains; they change only with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The match on connections from Pods.
    pub pods: PodMatch,
    /// Whether all connections to a `ClusterIP` are masqueraded (`--masquerade-all`).
    pub masquerade_all: bool,
    /// Whether ports of load-balancer IPs that no Service has are refused
    /// (`--refuse-unserved-load-balancer-ports`).
    pub refuse_load_balancer_ports: bool,
    /// Whether the elements of frontends count connections (`--connection-counters`).
    pub counters: bool,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            pods: PodMatch::default(),
            masquerade_all: false,
            refuse_load_balancer_ports: false,
            counters: true,
        }
    }
}

impl Program {
    /// Returns the declaration of a set.
    #[must_use]
    pub fn set(&self, name: SetName) -> Set {
        let declared = set(name);
        let is_frontends = Denial::MAPS.contains(&name);
        Set {
            counter: declared.counter && (self.counters || !is_frontends),
            ..declared
        }
    }
}

impl PodMatch {
    /// Returns the match on sources other than Pods; `None` if Pods cannot be recognised.
    fn others(&self) -> Option<Statement> {
        self.matched(SetName::PodCidrs, true)
    }

    /// Returns the match on Pods of this node; `None` if Pods cannot be recognised.
    fn of_this_node(&self) -> Option<Statement> {
        self.matched(SetName::PodCidrsLocal, false)
    }

    /// Returns the match on Pods, or on all other sources if `inverted`.
    fn matched(&self, set: SetName, inverted: bool) -> Option<Statement> {
        match self {
            Self::Unknown => None,
            Self::Cidrs => Some(Statement::Lookup {
                fields: vec![LookupField::Saddr],
                set,
                inverted,
            }),
            Self::Interface(interface) => Some(Statement::InputInterface {
                interface: interface.clone(),
                inverted,
            }),
        }
    }
}

/// Returns the fixed chains, each before the chains that call it.
#[must_use]
pub fn program(program: &Program) -> Vec<Chain> {
    let chains = [
        DynamicChain::initial().map(DynamicChain::chain).collect(),
        dispatch(program),
        session_affinity(&program.pods),
        masquerading(program),
        base_chains(program),
    ];
    chains.into_iter().flatten().collect()
}

/// Returns a chain without a hook.
fn regular(name: ChainName, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

/// Returns the base chains.
fn base_chains(program: &Program) -> Vec<Chain> {
    let base = |name, hook, priority, rules| Chain {
        name,
        hook: Some((hook, priority)),
        rules,
    };
    let services = || vec![vec![Statement::Jump(ChainName::Services)]];
    vec![
        base(
            ChainName::NatPrerouting,
            Hook::Prerouting,
            DSTNAT,
            services(),
        ),
        base(ChainName::NatOutput, Hook::Output, DSTNAT, services()),
        base(
            ChainName::NatPreroutingUnserved,
            Hook::Prerouting,
            AFTER_DSTNAT,
            unserved_hook(program),
        ),
        base(
            ChainName::NatOutputUnserved,
            Hook::Output,
            AFTER_DSTNAT,
            unserved_hook(program),
        ),
        base(ChainName::NatInput, Hook::Input, SRCNAT, input()),
        base(
            ChainName::NatPostrouting,
            Hook::Postrouting,
            SRCNAT,
            postrouting(),
        ),
    ]
}

/// Returns a look-up in a set.
fn lookup(fields: &[LookupField], set: SetName) -> Statement {
    Statement::Lookup {
        fields: fields.to_vec(),
        set,
        inverted: false,
    }
}

/// Returns a look-up in a verdict map.
fn vmap(fields: &[LookupField], map: SetName) -> Statement {
    Statement::Vmap {
        fields: fields.to_vec(),
        map,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_chains_have_a_hook() {
        // Their type is nat (`netlink::encode`): established packets are not evaluated.
        let chains = program(&Program::default());
        let hooks: Vec<_> = chains.iter().filter_map(|chain| chain.hook).collect();
        assert_eq!(
            hooks,
            [
                (Hook::Prerouting, -101),
                (Hook::Output, -101),
                (Hook::Prerouting, -90),
                (Hook::Output, -90),
                (Hook::Input, 99),
                (Hook::Postrouting, 99)
            ]
        );
    }
}
