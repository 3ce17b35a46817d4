//! Any bytes as the configuration file or, if they begin with `-`, as the command line, one word a
//! line.

#![no_main]

use std::path::Path;

use clap::Parser;
use kube_dnat::commands::CommandLine;
use kube_dnat::config::{Config, parse, to_yaml};
use libfuzzer_sys::fuzz_target;

/// Reads a file, and once more as kube-dnat writes it.
fn file(text: &str) {
    let path = Path::new("config.conf");
    let Ok((read, _lenience)) = parse(text, path) else {
        return;
    };
    let Ok(config) = Config::resolve(read, "host-1", None, &[]) else {
        return;
    };
    let yaml = to_yaml(&config.written).expect("a configuration is YAML");
    let (again, lenience) = parse(&yaml, path).expect("what kube-dnat wrote");
    assert!(lenience.is_strict(), "{lenience:?}");
    assert_eq!(again, config.written);
    let resolved = Config::resolve(again, "host-1", None, &[]).expect("the same configuration");
    assert_eq!(resolved, config);
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if text.starts_with('-') {
        let words = ["kube-dnat"].into_iter().chain(text.lines());
        drop(CommandLine::try_parse_from(words));
    } else {
        file(text);
    }
});
