//! A kernel that rejects a Service: a preloaded library damages the elements that the daemon sends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

/// A preloaded library that makes the kernel reject the elements of one Service.
pub(crate) struct Reject {
    library: PathBuf,
    file: PathBuf,
}

impl Reject {
    /// Builds the library. The kernel rejects nothing until [`reject`](Self::reject).
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("reject-{}-{number}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/net/lab/reject.c");
        let library = directory.join(format!("{name}.so"));
        // The build of kube-dnat needs clang too, for bindgen.
        let mut clang = Command::new("clang");
        clang.args(["-Wall", "-Werror", "-shared", "-fPIC", source, "-o"]);
        let status = clang.arg(&library).status().expect("clang");
        assert!(status.success(), "{clang:?}: {status}");
        Self {
            library,
            file: directory.join(name),
        }
    }

    /// Returns the environment of a program that loads the library.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 2] {
        [
            ("LD_PRELOAD", utf8(&self.library)),
            ("REJECT", utf8(&self.file)),
        ]
    }

    /// Makes the kernel reject new elements of this Service, which is `namespace/name`.
    pub(crate) fn reject(&self, service: &str) {
        let temporary = self.file.with_extension("new");
        fs::write(&temporary, service).expect("write the name of the rejected Service");
        fs::rename(&temporary, &self.file).expect("rename the file of the rejected Service");
    }

    /// Makes the kernel accept all elements again.
    pub(crate) fn accept(&self) {
        fs::remove_file(&self.file).expect("remove the file of the rejected Service");
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

impl Drop for Reject {
    fn drop(&mut self) {
        for path in [&self.library, &self.file] {
            // A leftover is harmless: it is in the build directory under a name of its own.
            let _left = fs::remove_file(path);
        }
    }
}
