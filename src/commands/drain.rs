//! `kube-dnat drain` and `kube-dnat undrain`: whether load balancers should use this node.

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::output::{AnswerStatus, OutputFormat};
use crate::http::control::{DRAIN, DrainAnswer, SOCKET, is_trusted};

/// The longest wait for the answer.
const TIMEOUT: Duration = Duration::from_millis(1_800);

/// The maximum size of an answer in bytes.
const MAX_ANSWER: usize = 4096;

/// The arguments of `kube-dnat drain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat drain && sleep 60 && systemctl reboot\n  \
    kubectl dnat drain --node node-1\n\n\
    Exit codes:\n  0  the node is drained\n  1  error: wrong usage, no permission\n  2  the daemon does not answer in 2 s\n  3  no daemon is running")]
pub(super) struct Drain {
    #[command(flatten)]
    output: Output,
}

/// The arguments of `kube-dnat undrain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  the node is not drained\n  1  error: wrong usage, no permission\n  2  the daemon does not answer in 2 s\n  3  no daemon is running"
)]
pub(super) struct Undrain {
    #[command(flatten)]
    output: Output,
}

/// The form of the answer.
#[derive(Debug, Args)]
struct Output {
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// The answer of the daemon, as the command prints it.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Report(DrainAnswer);

/// The reason why there is no answer.
enum Failure {
    /// No process serves the socket in this network namespace.
    NotRunning,
    /// The daemon does not answer in time.
    Silent,
    /// The request failed.
    Failed(anyhow::Error),
}

impl Drain {
    /// Drains the node.
    pub(super) fn execute(&self) -> anyhow::Result<ExitCode> {
        self.output.request(&Method::PUT)
    }
}

impl Undrain {
    /// Ends the drain.
    pub(super) fn execute(&self) -> anyhow::Result<ExitCode> {
        self.output.request(&Method::DELETE)
    }
}

impl Output {
    /// Sends the request to the daemon, and prints the answer.
    fn request(&self, method: &Method) -> anyhow::Result<ExitCode> {
        let asked = crate::agent::runtime()?.block_on(async {
            let asked = timeout(TIMEOUT, ask(method)).await;
            asked.unwrap_or(Err(Failure::Silent))
        });
        match asked {
            Ok(answer) => {
                self.output.print(&Report(answer))?;
                Ok(AnswerStatus::Fine.into())
            }
            Err(Failure::NotRunning) => {
                tracing::error!("no kube-dnat daemon is running in this network namespace");
                Ok(AnswerStatus::NotFound.into())
            }
            Err(Failure::Silent) => {
                tracing::error!(
                    "the daemon does not answer within 2 s: `kube-dnat status` shows its state"
                );
                Ok(AnswerStatus::Problem.into())
            }
            Err(Failure::Failed(error)) => Err(error),
        }
    }
}

/// Sends the request to the daemon of this network namespace.
async fn ask(method: &Method) -> Result<DrainAnswer, Failure> {
    let stream = match UnixStream::connect(SOCKET).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(Failure::NotRunning);
        }
        // The daemon has not accepted the connections before this one.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Failure::Silent),
        Err(error) => {
            return Err(Failure::Failed(
                anyhow!(error).context("cannot reach the daemon"),
            ));
        }
    };
    exchange(stream, method).await.map_err(Failure::Failed)
}

/// Sends the request over a connection, and reads the answer.
async fn exchange(stream: UnixStream, method: &Method) -> anyhow::Result<DrainAnswer> {
    let peer = stream.peer_cred().context("cannot identify the daemon")?;
    if !is_trusted(peer) {
        bail!(
            "the control socket belongs to user {} and not to root: stop process {}",
            peer.uid(),
            peer.pid().unwrap_or_default()
        );
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(DRAIN)
        .header("host", "kube-dnat")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::FORBIDDEN => bail!("only root can drain a node: run this command as root"),
        status => bail!("the daemon rejects the request ({status}): it has another version"),
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
    let body = body.await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DrainAnswer { drained, changed } = self.0;
        f.write_str(match (drained, changed) {
            (true, true) => {
                "drained: load-balancer health checks answer 503, and the node serves all connections\n"
            }
            (true, false) => "the node is drained already\n",
            (false, true) => "not drained any more: load-balancer health checks report the endpoints\n",
            (false, false) => "the node is not drained\n",
        })
    }
}
