//! A kernel that rejects a Service: a library preloaded into the daemon damages its elements on their way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

/// What has the kernel reject the elements of one Service, once it is named.
pub(crate) struct Reject {
    library: PathBuf,
    file: PathBuf,
}

impl Reject {
    /// Builds it; nothing is rejected yet.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("reject-{}-{number}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/net/lab/reject.c");
        let library = directory.join(format!("{name}.so"));
        // What bindgen needs is there.
        let mut clang = Command::new("clang");
        clang.args(["-Wall", "-Werror", "-shared", "-fPIC", source, "-o"]);
        let status = clang.arg(&library).status().expect("clang");
        assert!(status.success(), "{clang:?}: {status}");
        Self {
            library,
            file: directory.join(name),
        }
    }

    /// What a program's environment must hold.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 2] {
        [
            ("LD_PRELOAD", utf8(&self.library)),
            ("REJECT", utf8(&self.file)),
        ]
    }

    /// From now on the kernel rejects what is added of this Service, `namespace/name`.
    pub(crate) fn reject(&self, service: &str) {
        let temporary = self.file.with_extension("new");
        fs::write(&temporary, service).expect("write what is rejected");
        fs::rename(&temporary, &self.file).expect("name what is rejected");
    }

    /// From now on it rejects nothing.
    pub(crate) fn accept(&self) {
        fs::remove_file(&self.file).expect("remove what is rejected");
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

impl Drop for Reject {
    fn drop(&mut self) {
        for path in [&self.library, &self.file] {
            // What is left over is in the build directory and in no one's way.
            let _left = fs::remove_file(path);
        }
    }
}
