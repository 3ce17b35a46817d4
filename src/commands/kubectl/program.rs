//! The program kubectl, which the plugin runs.

use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::Cluster;

/// The program in the Pods.
const KUBE_DNAT: &str = "/usr/local/bin/kube-dnat";

/// The container in the Pods.
const CONTAINER: &str = "kube-dnat";

/// What a command in a Pod printed.
#[derive(Debug)]
pub(super) struct PodOutput {
    /// The exit code of the command; 1 if kubectl was ended by a signal.
    pub(super) code: u8,
    /// The standard output.
    pub(super) out: String,
    /// The standard error, of the command and of kubectl.
    pub(super) error: String,
}

impl Cluster {
    /// Returns kubectl with the flags of the cluster.
    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        if let Some(kubeconfig) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.kill_on_drop(true);
        command
    }

    /// Gets a list from the API server.
    pub(super) async fn get<T: DeserializeOwned>(&self, arguments: &[&str]) -> anyhow::Result<T> {
        let mut kubectl = self.kubectl();
        kubectl.arg("get").args(arguments).args(["-o", "json"]);
        let output = kubectl.stdin(Stdio::null()).output().await;
        let output = output.context("cannot run kubectl")?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl get {}: {}", arguments.join(" "), error.trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "kubectl get {} did not answer with JSON",
                arguments.join(" ")
            )
        })
    }

    /// Returns `kubectl exec` of kube-dnat in a Pod.
    fn exec(&self, pod: &str, flags: &[&str], arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut kubectl = self.kubectl();
        kubectl
            .args(["exec", "--namespace", &self.namespace])
            .args(flags)
            .args([pod, "--container", CONTAINER, "--", KUBE_DNAT])
            .args(arguments);
        kubectl
    }

    /// Runs kube-dnat in a Pod.
    pub(super) async fn run_in(
        &self,
        pod: &str,
        arguments: &[impl AsRef<OsStr>],
    ) -> anyhow::Result<PodOutput> {
        let mut kubectl = self.exec(pod, &[], arguments);
        let output = kubectl.stdin(Stdio::null()).output().await;
        let output = output.context("cannot run kubectl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(PodOutput {
            code: code(output.status),
            out: text(&output.stdout),
            error: text(&output.stderr),
        })
    }

    /// Runs kube-dnat in a Pod at this terminal. Returns the exit code.
    pub(super) async fn attach(
        &self,
        pod: &str,
        arguments: &[impl AsRef<OsStr>],
    ) -> anyhow::Result<u8> {
        let mut kubectl = self.exec(pod, &["--stdin", "--tty"], arguments);
        let status = kubectl.status().await.context("cannot run kubectl")?;
        Ok(code(status))
    }
}

/// Returns the exit code, which kubectl takes over from the command in the Pod.
fn code(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| code.try_into().ok())
        .unwrap_or(1)
}
