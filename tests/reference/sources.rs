//! The sources that the documents name.

use std::fs;
use std::path::{Path, PathBuf};

use super::root;

/// The text between backticks of a document, and what stands between it and the text before.
fn quoted(text: &str) -> Vec<(String, String)> {
    let parts: Vec<_> = text.split('`').collect();
    let pairs = parts.chunks_exact(2);
    pairs
        .map(|pair| {
            let between = pair[0].split_whitespace().collect::<Vec<_>>().join(" ");
            let within = pair[1].split_whitespace().collect::<Vec<_>>().join(" ");
            (between, within)
        })
        .collect()
}

/// The documents with their text, without blocks of code.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<_> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let prose: Vec<_> = text.split("```").step_by(2).collect();
        (path.display().to_string(), prose.join(""))
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_source_that_a_document_names_exists() {
    let mut count = 0;
    for (document, text) in documents() {
        for (_, path) in quoted(&text) {
            if path.starts_with("src/") && !path.contains(' ') {
                count += 1;
                assert!(root().join(&path).exists(), "{document}: {path}");
            }
        }
    }
    assert!(count > 30, "{count} sources are named");
}

#[test]
fn the_path_of_a_change_names_functions_that_exist() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let section = text.split("## The path of one change").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let steps = section.lines().filter(|line| {
        let number = line.split('.').next().unwrap_or_default();
        number.parse::<u8>().is_ok()
    });
    assert!((8..=12).contains(&steps.count()), "{section}");
    let quoted = quoted(section);
    let mut functions = 0;
    for (file, function) in quoted.iter().zip(quoted.iter().skip(1)) {
        let (path, (between, name)) = (&file.1, function);
        let is_source = Path::new(path)
            .extension()
            .is_some_and(|ending| ending == "rs");
        if !is_source || between != "," {
            continue;
        }
        let source = fs::read_to_string(root().join(path)).unwrap();
        let name = name.rsplit("::").next().unwrap();
        let is_there = ["(", "<"].map(|after| source.contains(&format!("fn {name}{after}")));
        assert!(is_there.contains(&true), "{path} has no function {name}");
        functions += 1;
    }
    assert!(functions >= 10, "{functions} functions are named");
}
