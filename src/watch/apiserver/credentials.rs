//! The files of the client certificate, which a kubelet or a certificate manager renews.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kube::Config;

/// The files of the client certificate and its key, with their states.
pub(super) struct CertificateFiles(Vec<(PathBuf, Option<FileState>)>);

/// The inode, the time of the last change in nanoseconds, and the size in bytes of a file.
///
/// A renewed file has another inode, or was written later.
type FileState = (u64, i128, u64);

impl CertificateFiles {
    /// Reads the states of the files that the settings name, if they name any.
    pub(super) fn of(config: &Config) -> Self {
        let identity = &config.auth_info;
        let paths = [&identity.client_certificate, &identity.client_key];
        let paths = paths.into_iter().flatten().map(PathBuf::from);
        let with_state = |path: PathBuf| {
            let state = state(&path);
            (path, state)
        };
        Self(paths.map(with_state).collect())
    }

    /// Reads the states again; returns whether one has changed.
    pub(super) fn have_changed(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.0 {
            let now = state(path);
            changed |= *known != now;
            *known = now;
        }
        changed
    }
}

/// Returns the state of a file, or of the file to which a symbolic link leads.
fn state(path: &Path) -> Option<FileState> {
    let metadata = fs::metadata(path).ok()?;
    let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000;
    let changed = nanoseconds + i128::from(metadata.mtime_nsec());
    Some((metadata.ino(), changed, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_file_is_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.crt");
        fs::write(&path, "old").unwrap();
        let mut files = CertificateFiles(vec![(path.clone(), state(&path))]);
        assert!(!files.have_changed());

        let renewed = directory.path().join("renewed");
        fs::write(&renewed, "new").unwrap();
        fs::rename(&renewed, &path).unwrap();
        assert!(files.have_changed());
        assert!(!files.have_changed());

        fs::remove_file(&path).unwrap();
        assert!(files.have_changed());
        assert!(!files.have_changed());
    }
}
