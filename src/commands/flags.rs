//! Flags that several commands share. Their names are kube-proxy's.

use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use ipnet::IpNet;

/// What the node is, and what its Pods are.
#[derive(Debug, Args)]
pub(super) struct NodeFlags {
    /// Which Node this is; the host name if it is not given.
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,

    /// The addresses of the cluster's Pods: one IPv4 range, one IPv6 range, or both with a comma.
    ///
    /// Connections to a ClusterIP from anywhere else are masqueraded. Without it, none is.
    #[arg(long, value_name = "CIDR[,CIDR]")]
    cluster_cidr: Option<ClusterCidrs>,
}

impl NodeFlags {
    /// The name of our Node, as kube-proxy has it: trimmed, in lower case.
    pub(super) fn node_name(&self) -> anyhow::Result<String> {
        let name = match &self.hostname_override {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()
                .context("cannot read the host name")?
                .to_string_lossy()
                .into_owned(),
        };
        let name = name.trim().to_lowercase();
        anyhow::ensure!(
            !name.is_empty(),
            "the name of this Node is empty: --hostname-override"
        );
        Ok(name)
    }

    /// The ranges of Pods.
    pub(super) fn cluster_cidrs(&self) -> Vec<IpNet> {
        let cidrs = self.cluster_cidr.as_ref();
        cidrs.map(|cidrs| cidrs.0.clone()).unwrap_or_default()
    }
}

/// At most one range of each family.
#[derive(Clone, Debug)]
struct ClusterCidrs(Vec<IpNet>);

impl FromStr for ClusterCidrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cidrs: Vec<IpNet> = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let cidr: IpNet = part
                .parse()
                .map_err(|error| format!("\"{part}\" is not an address range: {error}"))?;
            let same = |other: &IpNet| other.addr().is_ipv4() == cidr.addr().is_ipv4();
            if let Some(other) = cidrs.iter().find(|other| same(other)) {
                return Err(format!(
                    "{other} and {cidr} are of one family; one of each is taken"
                ));
            }
            cidrs.push(cidr);
        }
        Ok(Self(cidrs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_range_of_each_family_is_taken() {
        let cases = [
            ("", Ok(0)),
            ("10.244.0.0/16", Ok(1)),
            ("10.244.0.0/16, fd00:10:244::/56", Ok(2)),
            ("10.244.0.0/16,10.245.0.0/16", Err("one family")),
            ("10.244.0.0", Err("not an address range")),
            ("10.244.0.0/33", Err("not an address range")),
        ];
        for (text, expected) in cases {
            match (text.parse::<ClusterCidrs>(), expected) {
                (Ok(cidrs), Ok(count)) => assert_eq!(cidrs.0.len(), count, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }
}
