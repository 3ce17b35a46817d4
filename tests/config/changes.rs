//! Detection of changes of the configuration file, for each way to change a file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use kube_dnat::config::{ConfigFile, FollowError};
use tokio::time::timeout;

use super::write_config;

/// Asserts that the watch reports no change after `unchanged`, and reports one after `change`.
fn assert_changed(file: &Path, unchanged: impl FnOnce(), change: impl FnOnce()) {
    let read = ConfigFile::read(file).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut changed = std::pin::pin!(read.changed());
        unchanged();
        let early = timeout(Duration::from_millis(500), &mut changed).await;
        assert!(early.is_err(), "nothing has changed: {early:?}");
        change();
        let ended = timeout(Duration::from_secs(5), changed).await;
        assert!(matches!(ended, Ok(FollowError::Changed(path)) if path == file));
    });
}

#[test]
fn a_file_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    write_config(&file, "mode: nftables");
    let others = || {
        fs::write(dir.path().join("other"), "x").unwrap();
        // The same contents are not a change.
        write_config(&file, "mode: nftables");
    };
    assert_changed(&file, others, || write_config(&file, "mode: ipvs"));
}

#[test]
fn a_file_is_replaced_by_rename() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    let new = dir.path().join(".new");
    write_config(&file, "mode: nftables");
    // A missing file may be about to be replaced.
    let gone = || fs::remove_file(&file).unwrap();
    assert_changed(&file, gone, || {
        write_config(&new, "mode: ipvs");
        fs::rename(&new, &file).unwrap();
    });
}

#[test]
fn a_config_map_volume_is_updated() {
    // The kubelet links files to ..data, which is a link that it replaces.
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path();
    let link_to = |name: &str, body: &str| {
        fs::create_dir(volume.join(name)).unwrap();
        write_config(&volume.join(name).join("config.conf"), body);
        symlink(name, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    link_to("..1", "mode: nftables");
    let file = volume.join("config.conf");
    symlink("..data/config.conf", &file).unwrap();
    let same = || {
        link_to("..2", "mode: nftables");
        fs::remove_dir_all(volume.join("..1")).unwrap();
    };
    assert_changed(&file, same, || link_to("..3", "mode: ipvs"));
}

#[test]
fn the_target_of_a_link_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("proxy.yaml");
    write_config(&target, "mode: nftables");
    let file = dir.path().join("config.conf");
    symlink(&target, &file).unwrap();
    assert_changed(&file, || {}, || write_config(&target, "mode: ipvs"));
}
