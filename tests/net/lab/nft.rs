//! The kernel's ruleset, as `nft` prints it.

use super::Namespace;

/// Returns the whole ruleset of a namespace.
pub(crate) fn list(namespace: &Namespace) -> String {
    namespace.command("nft", &["list", "ruleset"])
}

/// Returns one table of a namespace, such as `["ip", "kube-dnat"]`.
pub(crate) fn list_table(namespace: &Namespace, table: [&str; 2]) -> String {
    namespace.command("nft", &["list", "table", table[0], table[1]])
}

/// Returns the whole ruleset of a namespace, as JSON.
pub(crate) fn list_json(namespace: &Namespace) -> serde_json::Value {
    let text = namespace.command("nft", &["-j", "list", "ruleset"]);
    serde_json::from_str(&text).expect("nft -j prints JSON")
}

/// Loads rules in nft's language into a namespace.
pub(crate) fn load(namespace: &Namespace, rules: &str) {
    namespace.command_with_input("nft", &["-f", "-"], rules);
}

/// Returns whether a set or map has an element, in nft's syntax such as `10.96.0.1`.
pub(crate) fn has_element(
    namespace: &Namespace,
    table: [&str; 2],
    set: &str,
    element: &str,
) -> bool {
    let element = format!("{{ {element} }}");
    let arguments = ["get", "element", table[0], table[1], set, &element];
    namespace.output("nft", &arguments, "").status.success()
}

/// Normalises a listing, so that two listings are equal exactly if their rulesets are equal.
///
/// Each element is on its own line. Elements are in alphabetical order, and so are the sets, maps
/// and chains of a table. Rules keep their order in the chain. Counts, handles, the remaining time
/// of timeouts and the owner of a table are removed. Priorities are numbers, because nft 1.1 has
/// more names for them than earlier versions.
pub(crate) fn normalise(listing: &str) -> String {
    let text = join_elements(listing);
    let lines = text
        .lines()
        .map(without_state)
        .filter(|line| !line.trim().is_empty() && !line.starts_with("\tflags owner"));
    let mut tables: Vec<String> = Vec::new();
    let mut blocks: Vec<String> = Vec::new();
    for line in lines {
        let depth = line.chars().take_while(|c| *c == '\t').count();
        match (depth, line.trim()) {
            (0, "}") => {
                blocks.sort();
                blocks.push("}\n".to_owned());
                tables
                    .last_mut()
                    .expect("inside a table")
                    .push_str(&blocks.concat());
                blocks.clear();
            }
            (0, _) => tables.push(line + "\n"),
            (1, "}") | (2.., _) => blocks
                .last_mut()
                .expect("inside a block")
                .push_str(&(line + "\n")),
            (1, _) => blocks.push(line + "\n"),
        }
    }
    tables.sort();
    tables.concat()
}

/// Puts each element of `elements = { ... }`, which nft wraps, on its own line.
fn join_elements(listing: &str) -> String {
    let mut text = String::new();
    let mut rest = listing;
    while let Some((before, after)) = rest.split_once("elements = {") {
        let (elements, after) = split_at_unquoted(after, '}').expect("elements end with a brace");
        text.push_str(before);
        text.push_str("elements = {\n");
        let mut lines: Vec<String> = split_unquoted(elements)
            .iter()
            .map(|element| words(element))
            .collect();
        lines.sort();
        for line in &lines {
            text.extend(["\t\t\t", line, "\n"]);
        }
        text.push_str("\t\t}");
        rest = after;
    }
    text + rest
}

/// Splits elements at the commas.
fn split_unquoted(mut elements: &str) -> Vec<&str> {
    let mut all = Vec::new();
    while let Some((element, rest)) = split_at_unquoted(elements, ',') {
        all.push(element);
        elements = rest;
    }
    all.push(elements);
    all
}

/// Splits at the first occurrence of this character outside the quotes of a comment.
fn split_at_unquoted(text: &str, separator: char) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.find(|c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })?;
    Some((text.get(..at)?, text.get(at + separator.len_utf8()..)?))
}

/// Returns the element without line breaks.
fn words(element: &str) -> String {
    element.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the line without the values that change by themselves: counts, handles and the
/// remaining time of timeouts.
fn without_state(line: &str) -> String {
    let indent: String = line.chars().take_while(|c| *c == '\t').collect();
    let mut kept = Vec::new();
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let counts =
            ["packets", "bytes", "expires"].contains(&word) && kept.last() != Some(&"comment");
        if word == "#" && matches!(words.peek(), Some(&("handle" | "progname"))) {
            break;
        } else if counts {
            words.next();
        } else {
            kept.push(word);
        }
    }
    indent + &with_number(&kept).join(" ")
}

/// Returns the words of a line, with the priority of a base chain as a number.
fn with_number(words: &[&str]) -> Vec<String> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let at = words.iter().position(|word| *word == "priority");
    let (Some(at), Some(&"type")) = (at, words.first()) else {
        return owned(words);
    };
    let end = at + words[at..].iter().take_while(|w| !w.ends_with(';')).count();
    let last = words[end].trim_end_matches(';');
    let mut number = 0;
    let mut sign = 1;
    for word in words[at + 1..end].iter().chain([&last]) {
        match *word {
            "+" => sign = 1,
            "-" => sign = -1,
            word => number += sign * priority(word),
        }
    }
    let mut line: Vec<String> = owned(&words[..=at]);
    line.push(format!("{number};"));
    line.extend::<Vec<_>>(owned(&words[end + 1..]));
    line
}

/// Parses a priority, which is a name of nft or a number.
fn priority(word: &str) -> i32 {
    match word {
        "raw" => -300,
        "mangle" => -150,
        "dstnat" => -100,
        "filter" => 0,
        "security" => 50,
        "srcnat" => 100,
        number => number.parse().expect("a priority"),
    }
}

pub(crate) fn priorities_are_normalised_to_numbers() {
    let normalised = |priority: &str| {
        let chain = format!("type nat hook output priority {priority}; policy accept;");
        normalise(&format!(
            "table ip t {{\n\tchain c {{\n\t\t{chain}\n\t}}\n}}\n"
        ))
    };
    for (name, number) in [
        ("dstnat - 1", "-101"),
        ("dstnat + 10", "-90"),
        ("srcnat", "100"),
        ("srcnat - 1", "99"),
        ("filter", "0"),
    ] {
        assert_eq!(normalised(name), normalised(number));
    }
    assert_ne!(normalised("dstnat"), normalised("srcnat"));
}

pub(crate) fn listings_of_one_ruleset_in_any_order_normalise_to_one_text() {
    let one = "table ip t {\n\tset b {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.2 comment \"x/y: a, {b}\",\n\t\t\t     10.0.0.1 }\n\t}\n\n\
               \tmap a {\n\t\ttype ipv4_addr : verdict\n\t\tcounter\n\t\telements = { 10.0.0.1 counter packets 3 bytes 9 : drop }\n\t}\n\n\
               \tchain c {\n\t\tip saddr @b drop\n\t\taccept\n\t}\n}\n";
    let other = "table ip t {\n\tchain c {\n\t\tip saddr @b drop\n\t\taccept\n\t}\n\n\
                 \tmap a {\n\t\ttype ipv4_addr : verdict\n\t\tcounter\n\t\telements = { 10.0.0.1 counter packets 4 bytes 1 : drop }\n\t}\n\n\
                 \tset b {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1, 10.0.0.2 comment \"x/y: a, {b}\" }\n\t}\n}\n";
    assert_eq!(normalise(one), normalise(other));
    assert!(normalise(one).contains(
        "\t\telements = {\n\t\t\t10.0.0.1\n\t\t\t10.0.0.2 comment \"x/y: a, {b}\"\n\t\t}\n"
    ));
    assert!(normalise(one).contains("\t\tip saddr @b drop\n\t\taccept\n"));
    assert!(!normalise(one).contains("packets"));
}
