//! `kube-dnat explain`: what happens to a connection, by the rules in the kernel.

mod live;
mod not_served;
mod notes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use clap_complete::ArgValueCompleter;
use live::{LiveLookup, kinds, own_addresses};
use notes::{LocalhostPort, close_removed, localhost_port};
use serde::Serialize;

use super::completions::services;
use super::output::{AnswerStatus, OutputFormat};
use super::{inspect_table, no_tables};
use crate::netlink::Kernel;
use crate::planner::explain::{
    Destination, Explanation, KnownFrontend, Lookup, Query, Source, suggest, trace,
};
use crate::planner::model::Address;
use crate::planner::ruleset::{Element, Key, SetName};

/// The arguments of `kube-dnat explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat explain 10.96.0.10:53/udp\n  \
    kube-dnat explain shop/cart:http --from 10.244.1.9\n  \
    kube-dnat explain cart            (in all namespaces)\n  \
    kube-dnat explain 10.96.0.10      (all ports of an address)\n  \
    kube-dnat explain [fd00:10:96::1]:443 -o json\n\n\
    Exit codes:\n  0  no connection is rejected or dropped\n  1  error: wrong usage, no permission, no nftables\n  2  connections from some of the sources are rejected or dropped\n  3  no such Service or address, or no kube-dnat tables")]
pub(super) struct Explain {
    /// Destination of the connection (TCP unless a protocol is given), or a Service with the name
    /// or number of its port. Without a port: all ports. Without a namespace: in all namespaces.
    #[arg(value_name = "ADDRESS[:PORT[/PROTOCOL]]|[NAMESPACE/]NAME[:PORT]", value_parser = str::parse::<Query>, add = ArgValueCompleter::new(services))]
    to: Query,

    /// Address of the client. Without it, explain shows each kind of client.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// The answer: one explanation for each frontend, or what was searched.
#[derive(Debug, Serialize)]
struct ExplainReport {
    /// The explanations, by frontend.
    connections: Vec<Explanation>,
    /// The searched maps and similar frontends, if no Service matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Missing>,
    /// The reasons why the daemon does not serve the Services in the query as asked.
    #[serde(rename = "notServed", skip_serializing_if = "BTreeMap::is_empty")]
    not_served: BTreeMap<String, Vec<String>>,
}

/// The search that matched no Service.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Missing {
    /// The maps that were searched, with their numbers of elements, by family.
    searched: Vec<String>,
    /// Frontends that are similar to the query.
    similar: Vec<String>,
}

impl fmt::Display for ExplainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, explanation) in self.connections.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            explanation.fmt(f)?;
        }
        for (object, reasons) in &self.not_served {
            for reason in reasons {
                writeln!(f, "not served: {object}: {reason}")?;
            }
        }
        let Some(Missing { searched, similar }) = &self.missing else {
            return Ok(());
        };
        writeln!(f, "no Service matches; searched")?;
        for table in searched {
            writeln!(f, "  {table}")?;
        }
        if !similar.is_empty() {
            writeln!(f, "similar: {}", similar.join(", "))?;
        }
        Ok(())
    }
}

impl Explain {
    /// Explains the connections, and prints the explanation.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self { to, from, output } = self;
        let mut kernel = Kernel::open()?;
        let mut request = ExplainRequest {
            to,
            from: from.map(|from| from.to_canonical()),
            tables: 0,
            answer: ExplainReport {
                connections: Vec::new(),
                missing: None,
                not_served: BTreeMap::new(),
            },
            missing: Missing::default(),
            known: Vec::new(),
            own: BTreeSet::new(),
        };
        request.validate()?;
        request.own = own_addresses()?;
        request.search::<Ipv4Addr>(&mut kernel)?;
        request.search::<Ipv6Addr>(&mut kernel)?;
        if request.tables == 0 {
            output.print(&request.answer)?;
            return Ok(no_tables());
        }
        let answer = request.answer();
        output.print(&answer)?;
        let connections = &answer.connections;
        let status = if !connections.iter().any(Explanation::is_matched) {
            AnswerStatus::NotFound
        } else if connections.iter().any(Explanation::has_denied_source) {
            AnswerStatus::Problem
        } else {
            AnswerStatus::Fine
        };
        Ok(status.into())
    }
}

/// The request, and the results so far.
struct ExplainRequest {
    /// The destination.
    to: Query,
    /// The address of the client, if it is given.
    from: Option<IpAddr>,
    /// The number of kube-dnat's tables.
    tables: usize,
    /// The explanations so far.
    answer: ExplainReport,
    /// The search so far.
    missing: Missing,
    /// All frontends in the tables, for suggestions.
    known: Vec<KnownFrontend>,
    /// The addresses of this node.
    own: BTreeSet<IpAddr>,
}

impl ExplainRequest {
    /// Rejects requests that cannot reach a Service.
    fn validate(&self) -> anyhow::Result<()> {
        if let Some(from) = self.from.filter(IpAddr::is_loopback) {
            bail!(
                "{from} is a loopback address: the kernel never routes it to a Service; \
                 use another address of the node"
            );
        }
        if let (Some(address), Some(from)) = (self.to.address(), self.from)
            && address.is_ipv4() != from.is_ipv4()
        {
            bail!("{address} cannot be reached from {from}: the families differ");
        }
        Ok(())
    }

    /// Explains the connections to the frontends in the table of family `A`.
    fn search<A: Address>(&mut self, kernel: &mut Kernel) -> anyhow::Result<()> {
        let other_family = |address: IpAddr| A::from_ip(address).is_none();
        let target = self.to.address();
        let is_searched = ![self.from, target].into_iter().flatten().any(other_family);
        let Some(shape) = inspect_table::<A>(kernel)? else {
            if is_searched {
                let nothing = format!("{} maps: no table", A::FAMILY);
                self.missing.searched.push(nothing);
            }
            return Ok(());
        };
        self.tables += 1;
        if !is_searched {
            return Ok(());
        }
        let own = self.own.clone();
        let mut live = LiveLookup { kernel, shape, own };
        let frontends = match &self.to {
            Query::Frontend(target) => {
                let address = A::from_ip(target.address).context("an address of this family")?;
                vec![Destination {
                    protocol: target.protocol,
                    address,
                    port: target.port,
                }]
            }
            Query::Address(_) | Query::Service(_) => self.frontends(&mut live)?,
        };
        for frontend in frontends {
            let explanation = explain(&mut live, frontend, self.from)?;
            if explanation.service.is_none() {
                // Collects the frontends for suggestions.
                self.frontends(&mut live)?;
            }
            self.answer.connections.push(explanation);
        }
        Ok(())
    }

    /// Returns the frontends of the requested Service. Adds all frontends to the known ones.
    fn frontends<A: Address>(
        &mut self,
        live: &mut LiveLookup<'_, A>,
    ) -> anyhow::Result<Vec<Destination<A>>> {
        let mut frontends = Vec::new();
        let node_ips = live.all(SetName::NodeIps)?;
        let mut node_ips = node_ips.iter().filter_map(|element| element.key.address());
        // A node port is explained at the address in the query, or at any address that serves it.
        let node_ip = match &self.to {
            Query::Address(address) => {
                let wanted = A::from_ip(*address);
                node_ips.find(|node_ip| Some(*node_ip) == wanted)
            }
            Query::Frontend(_) | Query::Service(_) => node_ips.next(),
        };
        let ranges = live.all(SetName::PortRanges)?;
        let mut counts = Vec::new();
        for set in SetName::OF_FRONTENDS {
            let elements = live.all(set)?;
            counts.push(format!("{set} ({})", elements.len()));
            for Element { key, comment, .. } in elements {
                let Some((protocol, own, port)) = key.frontend() else {
                    continue;
                };
                let port = first_port(&ranges, &key).unwrap_or(port);
                let at = own.or(node_ip);
                let wanted = match (&self.to, &comment) {
                    (Query::Service(wanted), Some(name)) => wanted.matches(name, port),
                    (Query::Address(address), _) => at.map(Into::into) == Some(*address),
                    (Query::Service(_), None) | (Query::Frontend(_), _) => false,
                };
                let service = comment.as_deref().unwrap_or_default().to_owned();
                self.known.push(KnownFrontend {
                    protocol,
                    address: own.map(Into::into),
                    port,
                    service,
                });
                if let Some(address) = at
                    && wanted
                {
                    frontends.push(Destination {
                        protocol,
                        address,
                        port,
                    });
                }
            }
        }
        let family = A::FAMILY;
        let searched = format!("{family} maps (elements): {}", counts.join(", "));
        self.missing.searched.push(searched);
        // A frontend with policy Local and without local endpoints is in two maps.
        let mut seen = BTreeSet::new();
        frontends.retain(|at| seen.insert((at.protocol, at.address, at.port)));
        Ok(frontends)
    }

    /// Completes the answer. Adds the search if no Service matches.
    fn answer(self) -> ExplainReport {
        let Self {
            to,
            mut answer,
            mut missing,
            known,
            ..
        } = self;
        if answer.connections.iter().all(|to| to.service.is_none()) {
            missing.similar = match &to {
                Query::Frontend(target) => suggest(Some(target), None, &known),
                Query::Address(_) => Vec::new(),
                Query::Service(wanted) => suggest(None, Some(wanted), &known),
            };
            answer.missing = Some(missing);
        }
        let is_served = answer.missing.is_none()
            && !answer
                .connections
                .iter()
                .any(Explanation::has_denied_source);
        if let (Query::Service(query), false) = (&to, is_served) {
            answer.not_served = not_served::not_served(query);
        }
        answer
    }
}

/// Returns the first port of the ranges of an address, which stands for all; `None` for another key.
fn first_port<A: Address>(ranges: &[Element<A>], frontend: &Key<A>) -> Option<u16> {
    let mut ranges = ranges.iter();
    ranges.find_map(|element| match (element.key, *frontend) {
        (Key::PortRange(protocol, address, range), Key::Ranges(own, at))
            if (own, at) == (protocol, address) =>
        {
            Some(range.first())
        }
        _ => None,
    })
}

/// Explains the connections to a frontend. Kinds of sources with the same result share a path.
fn explain<A: Address>(
    live: &mut LiveLookup<'_, A>,
    frontend: Destination<A>,
    from: Option<IpAddr>,
) -> anyhow::Result<Explanation> {
    let explanation = |service, client: Option<A>, paths, notes| Explanation {
        protocol: frontend.protocol.to_string(),
        frontend: SocketAddr::new(frontend.address.into(), frontend.port).to_string(),
        service,
        client: client.map(|client| client.to_string()),
        paths,
        notes,
    };
    if let Some(LocalhostPort {
        service,
        path,
        note,
    }) = localhost_port(live, frontend)?
    {
        return Ok(explanation(service, None, vec![path], vec![note]));
    }
    let address = from.and_then(A::from_ip);
    let mut service = None;
    let mut paths: Vec<crate::planner::explain::Path> = Vec::new();
    for kind in kinds(live, address)? {
        let program = live.shape.program.clone();
        let (name, path) = trace(live, &program, frontend, Source { address, kind })?;
        service = service.or(name);
        let same = |other: &&mut crate::planner::explain::Path| {
            other.outcome == path.outcome && other.steps == path.steps
        };
        match paths.iter_mut().find(same) {
            Some(other) => other.from.push(kind),
            None => paths.push(path),
        }
    }
    let notes = close_removed(live, frontend)?.into_iter().collect();
    Ok(explanation(service, address, paths, notes))
}
