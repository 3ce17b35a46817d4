//! `kube-dnat render`: the ruleset of manifests as nft text.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tracing::warn;

use super::flags::{GivenFlags, NodeFlags, load};
use crate::per_family;
use crate::planner::ruleset::render;
use crate::sync::State;
use crate::watch::manifests::{self, Listing};

/// The arguments of `kube-dnat render`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat render --manifests manifests/examples | less\n  \
    kubectl get services,endpointslices,nodes -A -o yaml | kube-dnat render --manifests - --hostname-override node-1\n  \
    kube-dnat render --manifests DIR | unshare --net nft --check --file -")]
pub(super) struct Render {
    #[command(flatten)]
    given: GivenFlags<RenderFlags>,
}

/// The flags of `render`.
#[derive(Debug, Args)]
struct RenderFlags {
    /// Directory of manifests, or - to read YAML or JSON from standard input.
    #[arg(long, value_name = "DIR|-")]
    manifests: PathBuf,

    #[command(flatten)]
    node: NodeFlags,
}

impl Render {
    /// Reads the manifests, and prints the ruleset.
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let GivenFlags { flags, names } = self.given;
        let RenderFlags { manifests, node } = flags;
        let (config, notices) = load(node, None, &names)?;
        for notice in notices {
            notice.log();
        }
        let name = config.node;
        let listing = if manifests.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            manifests::read_text(&text, &name).context("cannot parse standard input")?
        } else {
            manifests::read(&manifests, &name)?
        };
        let mut state = State::new(config.facts);
        let mut diagnostics = Vec::new();
        let Listing {
            events, problems, ..
        } = listing;
        for problem in problems {
            warn!(error = %anyhow::Error::new(problem), "manifest skipped");
        }
        for event in events {
            diagnostics.extend(state.apply(event));
        }
        diagnostics.extend(state.check_unserved());
        for diagnostic in diagnostics {
            diagnostic.log();
        }
        let mut out = std::io::stdout().lock();
        let tables = state.desired_tables().zip(state.programs());
        let texts = per_family!(tables, |(table, program)| render(&table, &program));
        for text in texts {
            out.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}
