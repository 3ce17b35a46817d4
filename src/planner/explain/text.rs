//! An explanation as people read it.

use std::fmt;

use super::{Explanation, LookupStep, Outcome, Path, PinnedEndpoint, SourceKind};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            frontend,
            service,
            client,
            paths,
        } = self;
        write!(f, "{frontend}/{protocol}")?;
        if let Some(service) = service {
            write!(f, "  {service}")?;
        }
        writeln!(f)?;
        let all = paths.len() == 1;
        for path in paths {
            writeln!(f, "  from {}", sources(path, client.as_deref(), all))?;
            write_path(f, path)?;
        }
        let mut commands: Vec<_> = paths
            .iter()
            .flat_map(|path| &path.steps)
            .map(|step| step.command.as_str())
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        commands.retain(|command| seen.insert(*command));
        if !commands.is_empty() {
            writeln!(f, "  the same by nft:")?;
        }
        for command in commands {
            writeln!(f, "    {command}")?;
        }
        Ok(())
    }
}

fn sources(path: &Path, client: Option<&str>, all: bool) -> String {
    let kinds: Vec<_> = path.from.iter().copied().map(SourceKind::words).collect();
    match client {
        Some(client) => format!("{client} ({})", kinds.join(" or ")),
        None if all && path.from.len() > 1 => "anywhere".to_owned(),
        None => kinds.join(" and "),
    }
}

fn write_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    let width = path.steps.iter().map(|step| step.chain.len()).max();
    let width = width.unwrap_or_default();
    for LookupStep { chain, found, .. } in &path.steps {
        writeln!(f, "    {chain:width$}  {found}")?;
    }
    match &path.outcome {
        Outcome::Refused { why } => writeln!(f, "    => refused: {why}"),
        Outcome::Dropped { why } => writeln!(f, "    => dropped: {why}"),
        Outcome::Untouched { why } => writeln!(f, "    => not touched: {why}"),
        Outcome::Served {
            affinity_seconds,
            held,
            endpoints,
            only_from,
        } => {
            match held {
                None => writeln!(f, "    => goes to one of")?,
                Some(PinnedEndpoint {
                    endpoint,
                    seconds_left,
                }) => writeln!(
                    f,
                    "    => goes to {endpoint}, which this client has for {seconds_left} s still; a new client to one of"
                )?,
            }
            let width = endpoints.iter().map(|chance| chance.endpoint.len()).max();
            let width = width.unwrap_or_default();
            for chance in endpoints {
                let percent = chance.probability * 100.0;
                let source = match &chance.masqueraded {
                    None => "keeps its source".to_owned(),
                    Some(why) => format!("masqueraded: {why}"),
                };
                let endpoint = &chance.endpoint;
                writeln!(f, "       {percent:5.1} %  {endpoint:width$}  {source}")?;
            }
            if let Some(seconds) = affinity_seconds {
                writeln!(
                    f,
                    "       a client keeps its endpoint for {seconds} s after its last connection"
                )?;
            }
            match only_from {
                Some(ranges) => writeln!(f, "       only from {}", ranges.join(", ")),
                None => Ok(()),
            }
        }
    }
}
