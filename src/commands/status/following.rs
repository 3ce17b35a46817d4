//! What the daemon follows: the API server and its watches, or the manifests; and the Node.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::daemon::rounded;
use crate::http::admin::NodeReport;
use crate::watch::{ApiServerReport, ManifestsReport, SourceReport, WatchReport, WatchState};

/// What the daemon follows, as it reports.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Following {
    /// The Node object of this node.
    pub(super) node: Option<NodeReport>,
    /// The API server with the state of each watch, or the manifests.
    #[serde(flatten)]
    pub(super) source: SourceReport,
    /// What a pending takeover waits for; null if no takeover is pending.
    pub(super) takeover_waits_for: Option<String>,
}

impl Following {
    /// Whether the API server shows no Node object of this node.
    pub(super) fn lacks_node(&self) -> bool {
        let exists = self.node.as_ref().and_then(|node| node.exists);
        self.source.api_server.is_some() && exists == Some(false)
    }
}

/// Formats seconds as an age.
fn age(seconds: f64) -> String {
    rounded(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

impl fmt::Display for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceReport {
            api_server,
            watches,
            manifests,
        } = &self.source;
        if let Some(server) = api_server {
            write_api_server(f, server)?;
        }
        for watch in watches {
            write_watch(f, watch)?;
        }
        if let Some(ManifestsReport {
            directory,
            problems,
        }) = manifests
        {
            writeln!(f, "manifests  {directory}")?;
            for (file, reason) in problems {
                writeln!(f, "PROBLEM    {file}: {reason}")?;
            }
        }
        if let Some(NodeReport { name, exists }) = &self.node {
            match exists {
                Some(true) => writeln!(f, "node       {name}")?,
                None => writeln!(f, "node       {name}, not listed yet")?,
                Some(false) if api_server.is_some() => {
                    writeln!(f, "node       {name}: NO such Node object")?;
                }
                Some(false) => writeln!(f, "node       {name}, without a Node object")?,
            }
        }
        if let Some(waits_for) = &self.takeover_waits_for {
            writeln!(f, "takeover   pending: waits for {waits_for}")?;
        }
        Ok(())
    }
}

/// Writes the line on the API server.
fn write_api_server(f: &mut fmt::Formatter<'_>, server: &ApiServerReport) -> fmt::Result {
    let ApiServerReport {
        url,
        followed_seconds,
        servers,
    } = server;
    match (url, followed_seconds) {
        (Some(url), Some(seconds)) => {
            writeln!(f, "API server {url}, followed for {}", age(*seconds))
        }
        _ => writeln!(f, "API server NOT connected yet: {}", servers.join(", ")),
    }
}

/// Writes the line on a watch.
fn write_watch(f: &mut fmt::Formatter<'_>, watch: &WatchReport) -> fmt::Result {
    let WatchReport {
        kind,
        state,
        seconds,
        last_event_seconds,
        objects,
        error,
    } = watch;
    let state = match state {
        WatchState::Listing => "listing",
        WatchState::Synced => "synced",
        WatchState::Failing => "FAILING",
        WatchState::Unavailable => "unavailable",
    };
    let since = age(*seconds);
    write!(
        f,
        "watch      {kind}: {state} for {since}, objects {objects}"
    )?;
    if let Some(seconds) = last_event_seconds {
        write!(f, ", last event {} ago", age(*seconds))?;
    }
    match error {
        Some(error) => writeln!(f, ": {error}"),
        None => writeln!(f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_a_watch_has_its_line() {
        let watch = |state, last_event_seconds, error: Option<&str>| WatchReport {
            kind: "Service".to_owned(),
            state,
            seconds: 125.0,
            last_event_seconds,
            objects: 3,
            error: error.map(str::to_owned),
        };
        let following = Following {
            source: SourceReport {
                api_server: Some(ApiServerReport {
                    url: None,
                    followed_seconds: None,
                    servers: vec!["https://192.0.2.1:6443/".to_owned()],
                }),
                watches: vec![
                    watch(WatchState::Synced, Some(4.2), None),
                    watch(WatchState::Failing, None, Some("refused")),
                ],
                manifests: None,
            },
            node: Some(NodeReport {
                name: "nod-1".to_owned(),
                exists: Some(false),
            }),
            takeover_waits_for: Some("the first sync".to_owned()),
        };
        assert_eq!(
            following.to_string(),
            "API server NOT connected yet: https://192.0.2.1:6443/\n\
             watch      Service: synced for 2m5s, objects 3, last event 4s ago\n\
             watch      Service: FAILING for 2m5s, objects 3: refused\n\
             node       nod-1: NO such Node object\n\
             takeover   pending: waits for the first sync\n"
        );
        assert!(following.lacks_node());
    }
}
