//! The files of the client certificate, which a kubelet or a certificate manager renews.

use std::path::PathBuf;

use kube::Config;

use crate::watch::file_stamp::FileStamp;

/// The files of the client certificate and its key, with their stamps.
pub(super) struct CertificateFiles(Vec<(PathBuf, Option<FileStamp>)>);

impl CertificateFiles {
    /// Reads the stamps of the files that the settings name, if they name any.
    pub(super) fn of(config: &Config) -> Self {
        let identity = &config.auth_info;
        let paths = [&identity.client_certificate, &identity.client_key];
        let paths = paths.into_iter().flatten().map(PathBuf::from);
        Self(paths.map(stamped).collect())
    }

    /// Reads the stamps again; returns whether one has changed.
    pub(super) fn have_changed(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.0 {
            let now = FileStamp::of(path);
            changed |= *known != now;
            *known = now;
        }
        changed
    }
}

/// Returns a path with the stamp of its file.
fn stamped(path: PathBuf) -> (PathBuf, Option<FileStamp>) {
    let stamp = FileStamp::of(&path);
    (path, stamp)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_renewed_file_is_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.crt");
        fs::write(&path, "old").unwrap();
        let mut files = CertificateFiles(vec![stamped(path.clone())]);
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
