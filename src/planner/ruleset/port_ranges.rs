//! The base chains that serve port ranges (`kube-dnat.io/port-ranges`).

use std::fmt;

use super::{Chain, ChainName, DynamicChain, Hook, LookupField, Rule, SRCNAT, SetName, Statement};
use crate::planner::model::Protocol;

/// The hooks of these chains. One at prerouting requires the one at output, which requires the one at
/// postrouting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RangesHook {
    /// Outgoing packets, after routing: masquerades.
    Postrouting,
    /// Packets of the node itself.
    Output,
    /// Incoming packets.
    Prerouting,
}

/// The priority of the chains that send connections to endpoints: after the ports of Services and the
/// standard -100, where other programs serve ports of the same addresses, and before the chains that
/// deny what nothing has translated.
const AFTER_PORTS: i32 = super::AFTER_DSTNAT - 1;

/// The priority of the chain that masquerades.
const BEFORE_SRCNAT: i32 = SRCNAT - 1;

impl RangesHook {
    /// Every hook.
    pub const ALL: [Self; 3] = [Self::Postrouting, Self::Output, Self::Prerouting];

    /// Returns the hook whose chain must exist before the one of this hook.
    pub(super) fn required(self) -> Option<Self> {
        match self {
            Self::Postrouting => None,
            Self::Output => Some(Self::Postrouting),
            Self::Prerouting => Some(Self::Output),
        }
    }
}

/// Returns the chain at a hook.
pub(super) fn port_ranges(at: RangesHook) -> Chain {
    let (hook, rules) = match at {
        RangesHook::Prerouting => ((Hook::Prerouting, AFTER_PORTS), vec![dispatch()]),
        RangesHook::Output => ((Hook::Output, AFTER_PORTS), vec![dispatch()]),
        RangesHook::Postrouting => ((Hook::Postrouting, BEFORE_SRCNAT), postrouting()),
    };
    Chain {
        name: ChainName::Dynamic(DynamicChain::PortRanges(at)),
        hook: Some(hook),
        rules,
    }
}

/// Returns the rule that looks up the range, then the verdict of its address:
///
/// `ip daddr . meta l4proto . th dport @port-ranges meta l4proto . ip daddr vmap @ranges`
fn dispatch() -> Rule {
    use LookupField::{Daddr, Dport, Protocol};
    vec![
        Statement::Lookup {
            fields: vec![Daddr, Protocol, Dport],
            set: SetName::PortRanges,
            inverted: false,
        },
        Statement::Vmap {
            fields: vec![Protocol, Daddr],
            map: SetName::Ranges,
        },
    ]
}

/// Returns the rules that masquerade connections to external addresses.
///
/// Those to a `ClusterIP` are masqueraded by its address, as for ports.
fn postrouting() -> Vec<Rule> {
    use LookupField::{OriginalDaddr, OriginalDport};
    // meta l4proto udp ct original ip daddr . meta l4proto . ct original proto-dst @port-ranges
    //   meta l4proto . ct original ip daddr vmap @external-ranges
    let of_protocol = |protocol| {
        vec![
            Statement::Protocol(protocol),
            Statement::Lookup {
                fields: vec![OriginalDaddr, LookupField::Protocol, OriginalDport],
                set: SetName::PortRanges,
                inverted: false,
            },
            Statement::Vmap {
                fields: vec![LookupField::Protocol, OriginalDaddr],
                map: SetName::ExternalRanges,
            },
        ]
    };
    let untranslated = vec![Statement::CtStatusNotDnat, Statement::Return];
    let by_protocol = Protocol::ALL.map(of_protocol);
    [untranslated].into_iter().chain(by_protocol).collect()
}

/// Writes the name of the chain at a hook.
pub(super) fn write_name(at: RangesHook, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(match at {
        RangesHook::Prerouting => "nat-prerouting-ranges",
        RangesHook::Output => "nat-output-ranges",
        RangesHook::Postrouting => "nat-postrouting-ranges",
    })
}
