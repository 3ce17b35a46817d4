//! The Dockerfile, which nothing here can build: that what it copies gets to it, that what it installs
//! suffices, and that its images are what `scripts/rootfs.sh` assembles.

use std::collections::BTreeSet;

use crate::{path, text};

/// An instruction and its arguments, continued lines joined.
fn instructions() -> Vec<(String, Vec<String>)> {
    let text = text("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = lines.map(|line| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.collect())
    });
    split.collect()
}

/// The instructions of the stages that become images: those that are made of nothing.
fn of_images() -> Vec<(String, Vec<String>)> {
    let all = instructions();
    let scratch = |(name, words): &(String, Vec<String>)| name == "FROM" && words[0] == "scratch";
    let start = all.iter().position(scratch).expect("FROM scratch");
    all[start..].to_vec()
}

#[test]
fn every_image_is_what_rootfs_sh_assembles_and_nothing_else() {
    let assembled: Vec<_> = instructions()
        .into_iter()
        .filter(|(name, _)| name == "RUN")
        .flat_map(|(_, words)| {
            let line = words.join(" ");
            let steps = line.split(" && ").map(str::to_owned);
            steps.collect::<Vec<_>>()
        })
        .filter_map(|step| step.strip_prefix("scripts/rootfs.sh ").map(str::to_owned))
        .collect();
    assert_eq!(assembled, ["/rootfs", "/rootfs-debug --debug"]);
    let mut copied = Vec::new();
    let mut stages = Vec::new();
    for (name, words) in of_images() {
        match name.as_str() {
            "FROM" => stages.push(words.join(" ")),
            "COPY" => copied.push((stages.last().unwrap().clone(), words.join(" "))),
            "ARG" | "LABEL" | "USER" | "ENTRYPOINT" => {}
            _ => panic!("{name} puts into an image what rootfs.sh does not"),
        }
    }
    assert_eq!(stages, ["scratch AS common", "common AS debug", "common"]);
    let expected = [
        ("common AS debug", "--from=build /rootfs-debug /"),
        ("common", "--from=build /rootfs /"),
    ];
    let expected = expected.map(|(stage, copied)| (stage.to_owned(), copied.to_owned()));
    assert_eq!(copied, expected);
}

#[test]
fn what_is_copied_is_sent_to_the_builder_and_nothing_else() {
    let mut copied = BTreeSet::new();
    for (name, words) in instructions() {
        let (_, from) = words.split_last().unwrap();
        if name == "COPY" && !words[0].starts_with("--from=") {
            copied.extend(from.to_vec());
        }
    }
    let ignored = text(".dockerignore");
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    let sent: BTreeSet<_> = lines
        .map(|line| line.strip_prefix('!').unwrap().to_owned())
        .collect();
    assert_eq!(sent, copied);
    for name in sent {
        assert!(path(&name).exists(), "{name}");
    }
}

/// The packages of one of the lists of `scripts/lib.sh`: `WHAT:PACKAGE ...`.
fn packages(list: &str) -> BTreeSet<String> {
    let text = text("scripts/lib.sh");
    let (_, rest) = text.split_once(&format!("\n{list}=(")).unwrap();
    let (list, _) = rest.split_once(')').unwrap();
    let pairs = list.split_whitespace();
    pairs
        .map(|pair| pair.rsplit_once(':').unwrap().1.to_owned())
        .collect()
}

#[test]
fn the_builder_has_the_packages_that_the_scripts_ask_for() {
    let (_, install) = instructions()
        .into_iter()
        .find(|(name, words)| name == "RUN" && words.contains(&"install".to_owned()))
        .unwrap();
    let install = install.join(" ");
    let (_, install) = install.split_once("--no-install-recommends").unwrap();
    let (install, _) = install.split_once("&&").unwrap();
    let installed: BTreeSet<_> = install.split_whitespace().map(str::to_owned).collect();
    let mut asked = packages("build_packages");
    asked.extend(packages("nft_packages"));
    asked.extend(["ca-certificates", "conntrack"].map(str::to_owned));
    assert_eq!(installed, asked);
}

#[test]
fn it_is_built_by_the_rust_and_labelled_with_the_version_of_the_package() {
    let dockerfile = text("Dockerfile");
    let rust = format!("FROM rust:{}-slim-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(dockerfile.contains(&rust), "{rust}");
    let version = format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"));
    assert!(dockerfile.contains(&version), "{version}");
    let description = format!("description=\"{}\"", env!("CARGO_PKG_DESCRIPTION"));
    assert!(dockerfile.contains(&description), "{description}");
    let entry_point = "ENTRYPOINT [\"/usr/local/bin/kube-dnat\"]\n";
    assert!(dockerfile.contains(entry_point), "{entry_point}");
}
