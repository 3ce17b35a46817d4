//! The bytes and connections of a server in the network namespace of this thread.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The state of an open connection in `/proc/net/tcp` (`TCP_ESTABLISHED`).
const ESTABLISHED: &str = "01";

/// Counts the bytes that are sent from a port from now on, with the headers of IP and TCP.
pub(super) fn count(port: u16) {
    let rules = format!(
        "table inet fleet {{
            counter sent {{}}
            chain output {{
                type filter hook output priority 0;
                tcp sport {port} counter name sent
            }}
        }}"
    );
    nft(&["-f", "-"], &rules);
}

/// Returns the bytes that were sent so far.
pub(super) fn sent() -> u64 {
    let counters = nft(&["-j", "list", "counter", "inet", "fleet", "sent"], "");
    let counters: Value = serde_json::from_str(&counters).expect("JSON");
    let objects = counters["nftables"].as_array().expect("objects");
    let bytes = objects
        .iter()
        .find_map(|object| object["counter"]["bytes"].as_u64());
    bytes.expect("the counter")
}

/// Returns the number of open connections of a server at `port`.
pub(super) fn connections(port: u16) -> usize {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc");
    let local = format!(":{port:04X}");
    let lines = table.lines().skip(1);
    let of_server = lines.filter(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_local = fields.next().is_some_and(|field| field.ends_with(&local));
        is_local && fields.nth(1) == Some(ESTABLISHED)
    });
    of_server.count()
}

fn nft(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nft");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("nft reads");
    drop(stdin);
    let output = child.wait_with_output().expect("nft");
    assert!(output.status.success(), "nft {arguments:?}");
    String::from_utf8(output.stdout).expect("text")
}
