//! The collection of all parts at the same time.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use nix::ifaddrs::getifaddrs;
use tokio::process::Command;
use tokio::time::timeout;

use super::parts::{Part, Source};
use crate::commands::http_get::ask_daemon;
use crate::commands::{inspect_table, processes};
use crate::netlink::Kernel;
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{SetName, render};

/// The longest wait for a program.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A part with its content, or the reason why it is missing.
#[derive(Debug)]
pub(super) struct Collected {
    /// The file in the archive.
    pub(super) file: &'static str,
    /// The source in words, such as the command.
    pub(super) origin: String,
    /// The content, or the reason why it is missing.
    pub(super) content: Result<Vec<u8>, String>,
}

/// Collects all parts at the same time. A part that fails costs only itself.
pub(super) async fn all(parts: Vec<Part>) -> Vec<Collected> {
    join_all(parts.into_iter().map(collect)).await
}

/// Collects one part.
async fn collect(Part { file, source }: Part) -> Collected {
    let origin = describe(&source);
    let content = match source {
        Source::Own(arguments) => output("/proc/self/exe", arguments).await,
        Source::Program(program, arguments) => output(program, arguments).await,
        Source::File(path) => tokio::task::spawn_blocking(move || std::fs::read(path))
            .await
            .map_err(anyhow::Error::from)
            .and_then(|content| Ok(content?)),
        Source::Daemon(path) => ask_daemon(path).await.map(String::into_bytes),
        Source::Table(Family::Ipv4) => table::<Ipv4Addr>(),
        Source::Table(Family::Ipv6) => table::<Ipv6Addr>(),
        Source::Interfaces => interfaces(),
        Source::Process => process(),
    };
    let content = content.map_err(|error| format!("{error:#}"));
    Collected {
        file,
        origin,
        content,
    }
}

/// Describes a source.
fn describe(source: &Source) -> String {
    match source {
        Source::Own(arguments) => format!("kube-dnat {}", arguments.join(" ")),
        Source::Program(program, arguments) => format!("{program} {}", arguments.join(" ")),
        Source::File(path) => (*path).to_owned(),
        Source::Daemon(path) => format!("GET {path}"),
        Source::Table(family) => format!("the {family} table, read from the kernel"),
        Source::Interfaces => "the addresses of the interfaces".to_owned(),
        Source::Process => "command line and limits of the daemon".to_owned(),
    }
}

/// Returns what a program prints, with its exit code if that is not 0.
async fn output(program: &str, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(TIMEOUT, command.output()).await;
    let output = output.context("no answer in 10 s")??;
    let mut content = output.stdout;
    content.extend(output.stderr);
    if !output.status.success() {
        content.extend(format!("\n({})\n", output.status).into_bytes());
    }
    Ok(content)
}

/// Returns the table of family `A` as nft text, without the help of nft.
fn table<A: Address>() -> anyhow::Result<Vec<u8>> {
    let mut kernel = Kernel::open()?;
    let shape = inspect_table::<A>(&mut kernel)?.context("no such table")?;
    let sets: Vec<_> = SetName::all().collect();
    let table = kernel.read_elements(&shape.table, &sets)?;
    let table = table.context("the table was deleted meanwhile")?;
    Ok(render(&table, &shape.program).into_bytes())
}

/// Returns the addresses of the interfaces, one a line.
fn interfaces() -> anyhow::Result<Vec<u8>> {
    let mut text = String::new();
    for interface in getifaddrs()? {
        let Some(address) = interface.address else {
            continue;
        };
        let flags = interface.flags;
        writeln!(text, "{} {address} {flags:?}", interface.interface_name)?;
    }
    Ok(text.into_bytes())
}

/// Returns the command line and the limits of the daemon.
fn process() -> anyhow::Result<Vec<u8>> {
    let daemon = processes::daemons().into_iter().next();
    let daemon = daemon.context("not running, or not visible from here")?;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", daemon.id));
    let command = read("cmdline")?.replace('\0', " ");
    Ok(format!("{command}\n\n{}\n{}", read("status")?, read("limits")?).into_bytes())
}
