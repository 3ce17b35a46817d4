//! `kube-dnat bugreport`: one archive with everything that a bug report needs.

mod archive;
mod collect;
mod parts;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::jiff::Timestamp;

use crate::clock;

/// The arguments of `kube-dnat bugreport`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat bugreport\n  \
    kube-dnat bugreport --output - > bugreport.tar.gz\n  \
    kubectl -n kube-system exec POD -c kube-dnat -- kube-dnat bugreport --output - > bugreport.tar.gz\n\n\
    The archive contains the names and addresses of Services, endpoints and this node. It contains no Secret, \
    token, kubeconfig, certificate or environment variable. Its README.txt lists the files.\n\n\
    Exit codes:\n  0  the archive is written; README.txt says which parts are missing\n  1  error: the archive cannot be written")]
pub(super) struct Bugreport {
    /// File to write, or - for standard output [default: kube-dnat-bugreport-NODE-TIME.tar.gz].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Bugreport {
    /// Collects all parts, and writes the archive.
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let to_stdout = self.output.as_deref() == Some(Path::new("-"));
        if to_stdout && io::stdout().is_terminal() {
            bail!("standard output is a terminal: redirect it, or use --output FILE");
        }
        let name = archive_name()?;
        let file = format!("{name}.tar.gz");
        let path = self.output.unwrap_or_else(|| file.into());
        // Before the parts are collected, so that a wrong path fails at once.
        let target: Box<dyn io::Write> = if to_stdout {
            Box::new(io::stdout().lock())
        } else {
            Box::new(File::create(&path).with_context(|| {
                format!(
                    "cannot write {}: use --output FILE, or --output - for standard output",
                    path.display()
                )
            })?)
        };
        let collected = crate::agent::runtime()?.block_on(collect::all(parts::all()));
        let readme = archive::readme(&name, &collected);
        archive::write(target, &name, &readme, &collected, clock::now())
            .with_context(|| format!("cannot write {}", path.display()))?;
        // Standard output may be the archive.
        let mut summary = io::stderr().lock();
        // An error here means that nobody reads the summary.
        let _closed = summary.write_all(readme.as_bytes());
        if !to_stdout {
            let _closed = writeln!(summary, "\nwritten to {}", path.display());
        }
        Ok(())
    }
}

/// Returns the name of the archive and of its folder, with the host name and the time.
fn archive_name() -> anyhow::Result<String> {
    let host = nix::unistd::gethostname().context("cannot read the host name")?;
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
    let host: String = host.to_string_lossy().chars().filter(is_plain).collect();
    let time = Timestamp::try_from(clock::now()).context("the clock is out of range")?;
    let time = time.strftime("%Y%m%dT%H%M%SZ");
    Ok(format!("kube-dnat-bugreport-{host}-{time}"))
}
