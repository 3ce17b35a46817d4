//! Each mistake ends the program, with exit code 1 and one sentence that names it.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{kube_dnat, write_config};

/// Asserts that the program exits with an error that ends with this sentence.
fn fails_with(arguments: &[&str], sentence: &str) {
    let outcome = kube_dnat(arguments);
    assert_eq!(outcome.code, Some(1), "{arguments:?}: {:#?}", outcome.log);
    let error = outcome.error();
    assert!(error.ends_with(sentence), "{arguments:?}: {error}");
}

#[test]
fn an_invalid_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    let path = file.to_str().unwrap();
    for (body, sentence) in [
        (
            "mode: userspace",
            "mode \"userspace\" is not one of nftables, iptables and ipvs",
        ),
        (
            "conntrack: {min: lots}",
            "conntrack.min: invalid type: string \"lots\", expected i32",
        ),
        (
            "nftables: {syncPeriod: 30}",
            "nftables.syncPeriod: 30 is not a duration such as 30s or 1h30m",
        ),
        (
            "nodePortAddresses: 10.0.0.0/8",
            "nodePortAddresses: it must be a list: [\"10.0.0.0/8\"]",
        ),
        (
            "clusterCIDR: 10.0.0.0\noomScoreAdj: 5000",
            "clusterCIDR \"10.0.0.0\" is not a CIDR such as 10.0.0.0/8; \
             oomScoreAdj 5000 is not between -1000 and 1000",
        ),
        (
            "healthzBindAddress: localhost:1",
            "\"localhost\" is not an IP address",
        ),
    ] {
        write_config(&file, body);
        let sentence = if sentence.starts_with('"') {
            format!("cannot use {path}: healthzBindAddress \"localhost:1\": {sentence}")
        } else {
            format!("cannot use {path}: {sentence}")
        };
        fails_with(&["--config", path], &sentence);
        // `render` reports the same.
        fails_with(&["render", "--manifests", "-", "--config", path], &sentence);
    }
    fs::write(&file, "mode: [").unwrap();
    let outcome = kube_dnat(&["--config", path]);
    let error = outcome.error();
    assert!(
        error.contains(&format!("cannot parse {path}: ")) && error.contains("at line 2 column 1")
    );
    fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
    fails_with(
        &["--config", path],
        &format!("cannot read {path}: it is larger than 1 MiB"),
    );
    fs::write(&file, [0xff, 0xfe]).unwrap();
    fails_with(
        &["--config", path],
        &format!("cannot read {path}: stream did not contain valid UTF-8"),
    );
}

#[test]
fn a_config_map_instead_of_its_contents() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/config/fixtures/kubeadm/configmap.yaml"
    );
    let sentence = format!(
        "cannot use {path}: it is a ConfigMap: extract the KubeProxyConfiguration from its data"
    );
    fails_with(&["--config", path], &sentence);
}

#[test]
fn a_path_that_is_not_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let sentence = format!("cannot read {path}: it is not a regular file");
    fails_with(&["--config", path], &sentence);
    let missing = format!("{path}/missing");
    let sentence = format!("cannot read {missing}: No such file or directory (os error 2)");
    fails_with(&["--config", &missing], &sentence);
    let pipe = dir.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let pipe = pipe.to_str().unwrap();
    let sentence = format!("cannot read {pipe}: it is not a regular file");
    fails_with(&["--config", pipe], &sentence);
    let out = format!("{missing}/out.yaml");
    let sentence = format!("cannot write {out}: No such file or directory (os error 2)");
    fails_with(&["--write-config-to", &out], &sentence);
}

#[test]
fn flags_with_invalid_syntax() {
    for (arguments, sentence) in [
        (
            &["--no-such-flag"][..],
            "unexpected argument '--no-such-flag' found (see --help)",
        ),
        (
            &["--feature-gates=A"],
            "not of the form Name=true or Name=false (see --help)",
        ),
        (
            &["--manifests=m", "--master=x"],
            "the argument '--manifests <DIR>' cannot be used with '--master <URL>' (see --help)",
        ),
    ] {
        fails_with(arguments, sentence);
        let with_run = [&["run"], arguments].concat();
        fails_with(&with_run, sentence);
    }
}

#[test]
fn flags_with_invalid_values() {
    for (arguments, sentence) in [
        (
            &["--cluster-cidr", "10.0.0.0/33"][..],
            "--cluster-cidr \"10.0.0.0/33\" is not a CIDR such as 10.0.0.0/8",
        ),
        (
            &["--proxy-mode=kernelspace"],
            "--proxy-mode \"kernelspace\" is not one of nftables, iptables and ipvs",
        ),
        (
            &["--nodeport-addresses=primary,10.0.0.0/8"],
            "--nodeport-addresses \"primary\" can only be combined with localhost",
        ),
        (
            &["--detect-local-mode=BridgeInterface"],
            "--pod-bridge-interface is missing: BridgeInterface needs it",
        ),
        (
            &["--iptables-min-sync-period=1m"],
            "--iptables-min-sync-period 1m0s is greater than syncPeriod, which is 30s",
        ),
        (
            &["--proxy-mode=nftables", "--iptables-sync-period=-1s"],
            "--iptables-sync-period -1s is not greater than 0",
        ),
        (&["--conntrack-min=-1"], "--conntrack-min -1 is less than 0"),
        (
            &["--bind-address=node-1"],
            "--bind-address \"node-1\" is not an IP address",
        ),
        (
            &["--healthz-bind-address=localhost"],
            "--healthz-bind-address \"localhost\" is not IP:port",
        ),
        (
            &["--logging-format=xml"],
            "--logging-format \"xml\" is neither text nor json",
        ),
        (
            &["--hostname-override= "],
            "--hostname-override is empty: the Node needs a name",
        ),
        (
            &["--oom-score-adj=-1001"],
            "--oom-score-adj -1001 is not between -1000 and 1000",
        ),
    ] {
        fails_with(arguments, sentence);
        let with_run = [&["run"], arguments].concat();
        fails_with(&with_run, sentence);
    }
}

#[test]
fn an_invalid_flag_with_a_file_is_named_as_a_flag() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    write_config(&file, "mode: nftables\noomScoreAdj: 5000");
    let path = file.to_str().unwrap();
    let sentence = format!(
        "--logging-format \"xml\" is neither text nor json; \
         cannot use {path}: oomScoreAdj 5000 is not between -1000 and 1000"
    );
    fails_with(&["--config", path, "--logging-format=xml"], &sentence);
}
