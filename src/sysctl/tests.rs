use super::*;

fn settings() -> ConntrackSettings {
    ConntrackSettings {
        max_per_core: 32 * 1024,
        min: 128 * 1024,
        tcp_established_timeout: Duration::from_hours(24),
        tcp_close_wait_timeout: Duration::from_hours(1),
        ..ConntrackSettings::default()
    }
}

fn texts(sysctls: &[Sysctl]) -> Vec<String> {
    let name = |path: &str| path.replace("net/netfilter/nf_conntrack_", "");
    let sysctls = sysctls.iter();
    sysctls
        .map(|sysctl| format!("{} {}", name(sysctl.path), sysctl.value))
        .collect()
}

#[test]
fn the_defaults_are_kube_proxys() {
    let expected = [
        "max 262144",
        "buckets 65536",
        "tcp_timeout_established 86400",
        "tcp_timeout_close_wait 3600",
    ];
    assert_eq!(texts(&wanted(&settings(), 8)), expected);
}

#[test]
fn entries_scale_with_cpus_between_min_and_a_million() {
    for (max_per_core, min, cpus, expected) in [
        (32 * 1024, 128 * 1024, 1, Some(128 * 1024)),
        (32 * 1024, 128 * 1024, 8, Some(256 * 1024)),
        (32 * 1024, 128 * 1024, 256, Some(MAX_ENTRIES)),
        (
            i32::MAX.unsigned_abs(),
            i32::MAX.unsigned_abs(),
            1,
            Some(MAX_ENTRIES),
        ),
        (1, i32::MAX.unsigned_abs(), 1, Some(i32::MAX as u64)),
        (0, 128 * 1024, 8, None),
    ] {
        let settings = ConntrackSettings {
            max_per_core,
            min,
            ..settings()
        };
        let sysctls = wanted(&settings, cpus);
        let entries = sysctls.iter().find(|sysctl| sysctl.path.ends_with("_max"));
        assert_eq!(entries.map(|sysctl| sysctl.value), expected, "{settings:?}");
    }
}

#[test]
fn zero_keeps_the_kernels_value() {
    assert!(wanted(&ConntrackSettings::default(), 8).is_empty());
    let settings = ConntrackSettings {
        tcp_be_liberal: true,
        udp_timeout: Duration::from_secs(10),
        udp_stream_timeout: Duration::from_secs(20),
        ..ConntrackSettings::default()
    };
    let expected = [
        "udp_timeout 10",
        "udp_timeout_stream 20",
        "tcp_be_liberal 1",
    ];
    assert_eq!(texts(&wanted(&settings, 8)), expected);
}

/// A directory like `/proc/sys` with these numbers.
fn root(numbers: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("net/netfilter")).unwrap();
    for (name, number) in numbers {
        let path = format!("net/netfilter/nf_conntrack_{name}");
        fs::write(root.path().join(path), number).unwrap();
    }
    root
}

#[test]
fn only_wrong_values_are_written_and_machine_settings_never_decrease() {
    let root = root(&[
        ("max", "1000000\n"),
        ("buckets", "1000\n"),
        ("tcp_timeout_established", "432000\n"),
        ("tcp_timeout_close_wait", "3600\n"),
    ]);
    let sysctls = wanted(&settings(), 4);
    let outcomes = apply(root.path(), &sysctls).unwrap();
    let set: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            SysctlOutcome::Set { sysctl, before } => (sysctl.value, *before),
            SysctlOutcome::LeftAlone { .. } => panic!("{outcome:?}"),
        })
        .collect();
    assert_eq!(set, [(32 * 1024, 1000), (86_400, 432_000)]);
    let again = apply(root.path(), &sysctls).unwrap();
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn a_missing_setting_is_named() {
    let root = root(&[("max", "1\n")]);
    let error = apply(root.path(), &wanted(&settings(), 4)).unwrap_err();
    assert!(error.is_missing());
    let message = error.to_string();
    let expected = "cannot read the kernel setting net.netfilter.nf_conntrack_buckets: No such";
    assert!(message.starts_with(expected), "{message}");
    let file = root.path().join("net/netfilter/nf_conntrack_max");
    assert_eq!(fs::read_to_string(&file).unwrap(), "131072");
    assert_eq!(count("0-3,8\n"), Some(5));
    assert_eq!(count("0\n"), Some(1));
    assert_eq!(count("x"), None);
}
