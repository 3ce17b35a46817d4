//! The isolation of the test process from the caller's network, and the check of the machine.

use std::fs;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Moves the single-threaded process into network and mount namespaces of its own. Without the
/// right to do that, the process moves into a user namespace of its own too.
pub(crate) fn enter() -> Result<(), String> {
    let ours = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let (uid, gid) = (geteuid(), getegid());
    let entered = if uid.is_root() {
        unshare(ours)
    } else {
        Err(Errno::EPERM)
    };
    if entered == Err(Errno::EPERM) {
        unshare(ours | CloneFlags::CLONE_NEWUSER)
            .map_err(|error| format!("unshare into user, network and mount namespaces: {error}; run as root, or allow unprivileged user namespaces"))?;
        for (file, text) in [
            ("setgroups", "deny"),
            ("uid_map", &format!("0 {uid} 1")),
            ("gid_map", &format!("0 {gid} 1")),
        ] {
            fs::write(format!("/proc/self/{file}"), text)
                .map_err(|error| format!("write /proc/self/{file}: {error}"))?;
        }
    } else {
        entered.map_err(|error| format!("unshare into network and mount namespaces: {error}"))?;
    }
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(|error| format!("make mounts private: {error}"))
}

/// Checks the machine. The error names the first program or kernel feature that it lacks.
pub(crate) fn check_machine() -> Result<(), String> {
    run("ip", &["-V"])?;
    run("nft", &["--version"])?;
    run("nginx", &["-v"])?;
    run("dnsmasq", &["--version"])?;
    run("capsh", &["--print"])?;
    let device = [
        "link", "add", "veth0", "type", "veth", "peer", "name", "veth1",
    ];
    run("ip", &device).map_err(|error| format!("{error} (kernel: veth)"))?;
    run("ip", &["link", "add", "bridge0", "type", "bridge"])
        .map_err(|error| format!("{error} (kernel: bridge)"))?;
    for (feature, chain, rule) in [
        ("nf_tables with maps", "", ""),
        (
            "nft_chain_nat and nft_nat",
            "type nat hook prerouting priority 0;",
            "ip protocol tcp dnat to 192.0.2.1:80",
        ),
        (
            "nft_numgen",
            "",
            "numgen random mod 2 vmap { 0 : accept, 1 : accept }",
        ),
        (
            "nft_masq",
            "type nat hook postrouting priority 0;",
            "masquerade fully-random",
        ),
        (
            "nft_reject",
            "type filter hook forward priority 0;",
            "reject",
        ),
        (
            "nft_fib",
            "type filter hook prerouting priority 0;",
            "fib saddr type local accept",
        ),
        (
            "nf_conntrack and nft_ct",
            "type filter hook output priority 0;",
            "ct state new accept",
        ),
    ] {
        let rules = format!(
            "table ip check {{ chain check {{ {chain}\n{rule}\n }}\n }}\ndelete table ip check"
        );
        run("nft", &[&rules]).map_err(|error| format!("{error} (kernel: {feature})"))?;
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("the program {program} does not run: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    output
        .status
        .success()
        .then_some(())
        .ok_or_else(|| format!("{program} {}: {}", arguments.join(" "), error.trim()))
}
