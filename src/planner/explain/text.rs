//! The text form of an explanation.

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
            notes,
        } = self;
        write!(f, "{frontend}/{protocol}")?;
        if let Some(service) = service {
            write!(f, "  {service}")?;
        }
        writeln!(f)?;
        let only_path = paths.len() == 1;
        for path in paths {
            writeln!(f, "  from {}", sources(path, client.as_deref(), only_path))?;
            write_path(f, path)?;
        }
        for note in notes {
            writeln!(f, "  {note}")?;
        }
        let mut commands: Vec<_> = paths
            .iter()
            .flat_map(|path| &path.steps)
            .map(|step| step.command.as_str())
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        commands.retain(|command| seen.insert(*command));
        if !commands.is_empty() {
            writeln!(f, "  verify with:")?;
        }
        for command in commands {
            writeln!(f, "    {command}")?;
        }
        Ok(())
    }
}

/// Describes the sources of a path.
fn sources(path: &Path, client: Option<&str>, only_path: bool) -> String {
    let kinds: Vec<_> = path.from.iter().copied().map(SourceKind::as_str).collect();
    match client {
        Some(client) => format!("{client} ({})", kinds.join(" or ")),
        None if only_path && path.from.len() > 1 => "anywhere".to_owned(),
        None => kinds.join(" and "),
    }
}

/// Writes the steps and the outcome of a path.
fn write_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    let width = path
        .steps
        .iter()
        .map(|step| step.chain.len())
        .max()
        .unwrap_or(0);
    for LookupStep { chain, found, .. } in &path.steps {
        writeln!(f, "    {chain:width$}  {found}")?;
    }
    match &path.outcome {
        Outcome::Rejected { reason } => writeln!(f, "    => rejected: {reason}"),
        Outcome::Dropped { reason } => writeln!(f, "    => dropped: {reason}"),
        Outcome::NotTranslated { reason } => writeln!(f, "    => not translated: {reason}"),
        Outcome::Translated {
            affinity_seconds,
            pinned,
            endpoints,
            only_from,
        } => {
            match pinned {
                None => writeln!(f, "    => goes to one of")?,
                Some(PinnedEndpoint {
                    endpoint,
                    seconds_left,
                }) => writeln!(
                    f,
                    "    => goes to {endpoint}, pinned for another {seconds_left} s; \
                     a new client goes to one of"
                )?,
            }
            let width = endpoints
                .iter()
                .map(|chance| chance.endpoint.len())
                .max()
                .unwrap_or(0);
            for chance in endpoints {
                let percent = chance.probability * 100.0;
                let source = match &chance.masqueraded {
                    None => "source preserved".to_owned(),
                    Some(rule) => format!("masqueraded: {rule}"),
                };
                let endpoint = &chance.endpoint;
                writeln!(f, "       {percent:5.1} %  {endpoint:width$}  {source}")?;
            }
            if let Some(seconds) = affinity_seconds {
                writeln!(
                    f,
                    "       session affinity: {seconds} s after the last connection of a client"
                )?;
            }
            match only_from {
                Some(ranges) => writeln!(f, "       only from {}", ranges.join(", ")),
                None => Ok(()),
            }
        }
    }
}
