//! The real programs: helm, kubectl and kubernetes-validate, as `scripts/tools.sh` installs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::objects::Objects;

/// Runs a program; returns its output, or its standard error if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools/bin");
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{}:{path}", tools.display()))
        // A rendering must not depend on a cluster.
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap_or_else(|error| panic!("{program} (run scripts/tools.sh): {error}"));
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    let (out, err) = (output.stdout, output.stderr);
    Err(String::from_utf8_lossy(&[out, err].concat()).into_owned())
}

/// Validates the objects of renderings against Kubernetes' schemas, each once. Those of the Prometheus operator
/// are not Kubernetes'.
pub(crate) fn validate(renderings: &[Objects]) -> Result<String, String> {
    let objects = renderings.iter().flat_map(Objects::values);
    let known = objects.filter(|object| object["apiVersion"] != "monitoring.coreos.com/v1");
    let different: BTreeSet<_> = known.map(|object| format!("---\n{object}\n")).collect();
    assert!(!different.is_empty(), "{renderings:?}");
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("objects.yaml");
    fs::write(&file, String::from_iter(different)).unwrap();
    let file = file.to_str().unwrap();
    // The oldest and the newest that it knows.
    let versions = ["-k", "1.25.0", "-k", "1.37.0"];
    run(
        "kubernetes-validate",
        &[&versions[..], &["--strict", "--no-warn", file]].concat(),
    )
}

#[test]
fn a_field_that_does_not_exist_is_found() {
    let pod = |field: &str| {
        let container = serde_json::json!({"name": "a", field: "b"});
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [container]},
        });
        validate(&[Objects::read(&pod.to_string())])
    };
    pod("image").unwrap();
    let said = pod("imag").unwrap_err();
    assert!(said.contains("'imag' was unexpected"), "{said}");
}
