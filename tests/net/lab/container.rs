//! Containers without Docker: the read-only root file system of the image from
//! `scripts/rootfs.sh`, with the mounts and the capabilities of a manifest, without seccomp.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use k8s_openapi::api::core::v1::{Container, SecurityContext};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

use super::{Host, Namespace};

/// The root file system of an image. Dropping it removes the files.
#[derive(Debug)]
pub(crate) struct Image {
    root: PathBuf,
}

impl Image {
    /// Assembles the root file system.
    pub(crate) fn assemble(flags: &[&str]) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("image-{}-{count}", process::id());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rootfs.sh");
        let image = Self { root };
        let output = Command::new(script)
            .arg(&image.root)
            .args(flags)
            .env("KUBE_DNAT", env!("CARGO_BIN_EXE_kube-dnat"))
            .output()
            .expect("run scripts/rootfs.sh");
        assert!(output.status.success(), "{output:?}");
        image
    }

    /// Returns the path of a file of the image.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A leftover is harmless: it is in the build directory under a name of its own.
        let _left = fs::remove_dir_all(&self.root);
    }
}

/// The configuration of a container for its runtime.
#[derive(Clone, Debug)]
pub(crate) struct Run<'a> {
    /// The image of the container.
    pub(crate) image: &'a Image,
    /// The container of a manifest: command, arguments and capabilities.
    pub(crate) container: Container,
    /// Directories and their mount points in the container.
    pub(crate) mounts: Vec<(&'a Path, &'a str)>,
    /// The name of the node.
    pub(crate) node: &'a Host,
}

impl Run<'_> {
    /// Starts the container in the network of the node. Its standard error is piped.
    pub(crate) fn start(&self) -> process::Child {
        self.spawn(Stdio::null())
    }

    /// Runs the container until it exits.
    pub(crate) fn output(&self) -> Output {
        let child = self.spawn(Stdio::piped());
        child.wait_with_output().expect("wait for a container")
    }

    fn spawn(&self, stdout: Stdio) -> process::Child {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(stdout);
        command.stderr(Stdio::piped());
        let node = &self.node.namespace;
        node.run(|| {
            // The mount namespace belongs to this thread and its child, and disappears with them.
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
            self.mount();
            command.spawn().expect("run capsh")
        })
    }

    fn security(&self) -> SecurityContext {
        self.container.security_context.clone().unwrap_or_default()
    }

    /// Builds the command that changes the root, drops capabilities and executes the program.
    fn command(&self) -> Command {
        let security = self.security();
        let mut command = Command::new("capsh");
        command.arg(format!("--chroot={}", self.image.root.display()));
        if security.privileged != Some(true) {
            let dropped = dropped(&self.node.namespace, &security);
            command.arg(format!("--drop={dropped}"));
        }
        if security.allow_privilege_escalation == Some(false) {
            command.arg("--no-new-privs");
        }
        let mut words = self.container.command.iter().flatten();
        let program = words.next().expect("a program");
        let name = self.node.name();
        let arguments = words.chain(self.container.args.iter().flatten());
        let arguments = arguments.map(|argument| argument.replace("$(NODE_NAME)", name));
        command
            .arg(format!("--shell={program}"))
            .arg("--")
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NO_COLOR", "1");
        command
    }

    fn mount(&self) {
        let security = self.security();
        let root = &self.image.root;
        // Only a mount can become read-only.
        bind(root, root);
        // Like a runtime, create the mount points before the root becomes read-only.
        for (from, to) in &self.mounts {
            let to = self.image.file(to);
            fs::create_dir_all(&to).expect("a mount point");
            bind(from, &to);
            read_only(&to);
        }
        for name in ["/dev", "/proc", "/sys"] {
            bind(Path::new(name), &self.image.file(name));
        }
        if security.privileged != Some(true) {
            let settings = self.image.file("/proc/sys");
            bind(&settings, &settings);
            read_only(&settings);
        }
        if security.read_only_root_filesystem == Some(true) {
            read_only(root);
        }
    }
}

fn bind(from: &Path, to: &Path) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("mount {} on {}: {error}", from.display(), to.display()));
}

/// Makes a mount read-only. Its other flags (`nodev`, `noexec`) are locked in a user namespace, so
/// the remount repeats them.
fn read_only(path: &Path) {
    let is = statvfs(path).expect("statvfs of a mount").flags().bits();
    let keep = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let flags = keep & MsFlags::from_bits_truncate(is);
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("make {} read-only: {error}", path.display()));
}

/// Returns the capabilities of this process that a container lacks if it drops all and adds these.
fn dropped(namespace: &Namespace, security: &SecurityContext) -> String {
    let capabilities = security.capabilities.clone().unwrap_or_default();
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    let kept: Vec<_> = capabilities
        .add
        .iter()
        .flatten()
        .map(|name| format!("cap_{}", name.to_lowercase()))
        .collect();
    let printed = namespace.command("capsh", &["--print"]);
    let ours = printed
        .lines()
        .find_map(|line| line.strip_prefix("Bounding set ="))
        .expect("a bounding set");
    let ours = ours.split(',').map(str::trim);
    let dropped = ours.filter(|name| !kept.iter().any(|kept| kept == name));
    dropped.collect::<Vec<_>>().join(",")
}
