//! What the running kernel can do, as far as tests expect something else where it cannot.

use std::fs;
use std::sync::OnceLock;

/// The first version with tables that have an owner and outlive it.
const TABLE_OWNERS: (u32, u32) = (6, 9);

/// Returns whether the kernel supports owned tables. The first call prints the answer.
pub(crate) fn supports_owned_tables() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    *SUPPORTED.get_or_init(|| {
        let release =
            fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
        let release = release.trim();
        let supported = version(release) >= TABLE_OWNERS;
        let expected = if supported {
            "tables to be owned"
        } else {
            "tables that any process can change, and their repair"
        };
        eprintln!("Linux {release}: the tests expect {expected}");
        supported
    })
}

/// Parses the major and the minor version of a release.
fn version(release: &str) -> (u32, u32) {
    let number = |text: Option<&str>| {
        let digits: String = text
            .unwrap_or_default()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().expect("a version of two numbers")
    };
    let mut parts = release.split('.');
    (number(parts.next()), number(parts.next()))
}

pub(crate) fn releases_have_a_version() {
    assert_eq!(version("6.1.0-56-cloud-amd64"), (6, 1));
    assert_eq!(version("7.3+deb13"), (7, 3));
    assert!(version("6.18.5") > TABLE_OWNERS);
    assert!(version("5.10.0") < TABLE_OWNERS);
}
