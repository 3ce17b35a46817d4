//! The file that lists the API servers, one URL a line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::client::parse_server;
use super::connections::Connections;
use crate::config::FileWatch;
use crate::logging::LogEvent;

/// The time after which a file is read again that cannot be watched.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(5);

/// A file with the URLs of API servers, and the servers that it had when it was read.
///
/// A line is a URL such as `https://192.0.2.1:6443`. Empty lines and lines that begin with `#` are
/// ignored.
#[derive(Clone, Debug)]
pub(super) struct ServersFile {
    /// The path of the file.
    path: PathBuf,
    /// The servers at the time of reading.
    servers: Vec<Uri>,
}

/// The reason why the file with the API servers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServersFileError {
    /// The file cannot be read.
    #[error("cannot read the API servers from {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// A line is not the URL of an API server.
    #[error(
        "line {number} of {} is not the URL of an API server, such as https://192.0.2.1:6443: {line}",
        .path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        number: usize,
        /// The line.
        line: String,
    },
    /// The file names no server.
    #[error("{} names no API server", .0.display())]
    Empty(PathBuf),
}

impl ServersFile {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, ServersFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| ServersFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let servers = parse(&text).map_err(|(number, line)| ServersFileError::Line {
            path: path.to_owned(),
            number,
            line: line.to_owned(),
        })?;
        if servers.is_empty() {
            return Err(ServersFileError::Empty(path.to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            servers,
        })
    }

    /// Returns the servers.
    pub(super) fn servers(&self) -> &[Uri] {
        &self.servers
    }

    /// Replaces the servers at each change of the file, together with those of `--master`. An
    /// invalid file changes nothing.
    pub(super) async fn follow(self, masters: &[Uri], connections: &Connections) {
        let Self { path, mut servers } = self;
        let mut reported = None;
        loop {
            let watch = FileWatch::start(&path);
            match Self::read(&path) {
                Ok(file) => {
                    reported = None;
                    if file.servers != servers {
                        info!(
                            event = %LogEvent::ApiServersChanged,
                            file = %path.display(), servers = file.servers.len(), "API servers changed"
                        );
                        servers = file.servers;
                        let mut all = masters.to_vec();
                        all.extend_from_slice(&servers);
                        fastrand::shuffle(&mut all);
                        connections.replace(all).await;
                    }
                }
                // Other files in the directory may change often.
                Err(error) => {
                    let error = Some(error.to_string());
                    if error != reported {
                        warn!(
                            event = %LogEvent::ApiServersFileInvalid,
                            error, "keeping the API servers from before"
                        );
                        reported = error;
                    }
                }
            }
            match watch {
                Ok(watch) => watch.changed().await,
                // The directory may be about to be replaced.
                Err(error) => {
                    debug!(%error, file = %path.display(), "cannot watch the file with the API servers");
                    sleep(UNWATCHED_INTERVAL).await;
                }
            }
        }
    }
}

/// Parses the lines of the file; the error is the number of a line, from 1, and the line.
fn parse(text: &str) -> Result<Vec<Uri>, (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| parse_server(line).ok_or((number, line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_server_a_comment_or_empty() {
        let text = "# control plane\nhttps://192.0.2.1:6443\n\n  http://[2001:db8::1]:8080/api  \n";
        let servers = parse(text).unwrap();
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(
            servers,
            ["https://192.0.2.1:6443/", "http://[2001:db8::1]:8080/api"]
        );
    }

    #[test]
    fn the_number_of_an_invalid_line_is_reported() {
        assert_eq!(
            parse("https://192.0.2.1\n192.0.2.2:6443\n"),
            Err((2, "192.0.2.2:6443"))
        );
        assert_eq!(parse("ftp://192.0.2.1"), Err((1, "ftp://192.0.2.1")));
        assert_eq!(parse("https://"), Err((1, "https://")));
    }
}
