//! As much of Helm's templates as the chart uses, so that it is rendered where there is no helm.
//! What is not understood here panics: keep the chart small, or teach this.

use serde_json::Value;

/// A piece of a template.
#[derive(Debug)]
enum Node {
    Text(String),
    Print(Vec<Call>),
    If {
        condition: Vec<Call>,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// A function or a value, and what it is given. A pipeline gives each call what the one before
/// came to.
type Call = Vec<Operand>;

#[derive(Debug)]
enum Operand {
    Path(Vec<String>),
    Text(String),
    Function(String),
    Nested(Vec<Call>),
}

/// What a template comes to, with `.Values` and the rest below `root`; or what it says by `fail`.
pub(crate) fn render(template: &str, root: &Value) -> Result<String, String> {
    let mut pieces = pieces(template).into_iter();
    let nodes = nodes(&mut pieces, false).0;
    let mut out = String::new();
    print(&nodes, root, &mut out)?;
    Ok(out)
}

/// The paths that a template reads, as `.Values.image.tag`.
pub(crate) fn paths(template: &str) -> Vec<String> {
    let actions = pieces(template)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Action(action) => Some(words(&action)),
            Piece::Text(_) => None,
        });
    let words = actions.flatten();
    words.filter(|word| word.starts_with('.')).collect()
}

enum Piece {
    Text(String),
    Action(String),
}

/// Texts and what is between the braces. `{{-` and `-}}` take the white space before and after.
fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, action)) = rest.split_once("{{") {
        let (action, after) = action.split_once("}}").expect("an action ends");
        let (trimmed, action) = match action.strip_prefix("- ") {
            Some(action) => (text.trim_end(), action),
            None => (text, action),
        };
        let (action, after) = match action.strip_suffix(" -") {
            Some(action) => (action, after.trim_start()),
            None => (action, after),
        };
        pieces.push(Piece::Text(trimmed.to_owned()));
        pieces.push(Piece::Action(action.trim().to_owned()));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces
}

/// The nodes up to the end of a block, and the action that ended it.
fn nodes(pieces: &mut impl Iterator<Item = Piece>, inside: bool) -> (Vec<Node>, String) {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        if action == "end" || action == "else" {
            assert!(inside, "{action} of nothing");
            return (nodes, action);
        }
        if let Some(condition) = action.strip_prefix("if ") {
            let (then, by) = self::nodes(pieces, true);
            let otherwise = match by.as_str() {
                "else" => self::nodes(pieces, true).0,
                _ => Vec::new(),
            };
            let condition = pipeline(&mut words(condition).into_iter());
            nodes.push(Node::If {
                condition,
                then,
                otherwise,
            });
        } else {
            nodes.push(Node::Print(pipeline(&mut words(&action).into_iter())));
        }
    }
    assert!(!inside, "an if without an end");
    (nodes, String::new())
}

/// Words, texts in quotes, pipes and parentheses.
fn words(action: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => 2 + rest[1..].find('"').expect("a text ends"),
            '(' | ')' | '|' => 1,
            _ => rest.find([' ', ')', '|']).unwrap_or(rest.len()),
        };
        words.push(rest[..len].to_owned());
        rest = rest[len..].trim_start();
    }
    words
}

/// Calls up to the end, or to a closing parenthesis.
fn pipeline(words: &mut impl Iterator<Item = String>) -> Vec<Call> {
    let mut calls = vec![Vec::new()];
    while let Some(word) = words.next() {
        let operand = match word.as_str() {
            ")" => break,
            "|" => {
                calls.push(Vec::new());
                continue;
            }
            "(" => Operand::Nested(pipeline(words)),
            _ if word.starts_with('.') => {
                Operand::Path(word.split('.').skip(1).map(str::to_owned).collect())
            }
            _ if word.starts_with('"') => Operand::Text(word.trim_matches('"').to_owned()),
            _ if word.parse::<usize>().is_ok() => Operand::Text(word),
            _ => Operand::Function(word),
        };
        calls.last_mut().expect("there is one").push(operand);
    }
    calls
}

fn print(nodes: &[Node], root: &Value, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(calls) => out.push_str(&plain(&value(calls, root)?)),
            Node::If {
                condition,
                then,
                otherwise,
            } => {
                let chosen = if is_true(&value(condition, root)?) {
                    then
                } else {
                    otherwise
                };
                print(chosen, root, out)?;
            }
        }
    }
    Ok(())
}

fn value(calls: &[Call], root: &Value) -> Result<Value, String> {
    let mut last = None;
    for call in calls {
        let (function, operands) = match call.split_first() {
            Some((Operand::Function(name), operands)) => (Some(name.as_str()), operands),
            _ => (None, call.as_slice()),
        };
        let mut given = Vec::new();
        for operand in operands {
            given.push(match operand {
                Operand::Path(path) => path
                    .iter()
                    .fold(root, |at, key| at.get(key).unwrap_or(&Value::Null))
                    .clone(),
                Operand::Text(text) => text.clone().into(),
                Operand::Nested(calls) => value(calls, root)?,
                Operand::Function(name) => panic!("{name} stands where a value should"),
            });
        }
        given.extend(last);
        last = Some(match function {
            Some(name) => apply(name, &given)?,
            None => given.remove(0),
        });
    }
    Ok(last.expect("a call"))
}

fn apply(function: &str, given: &[Value]) -> Result<Value, String> {
    Ok(match (function, given) {
        ("not", [value]) => (!is_true(value)).into(),
        ("and", [first, second]) => if is_true(first) { second } else { first }.clone(),
        ("or", [first, second]) => if is_true(first) { first } else { second }.clone(),
        ("default", [other, value]) => if is_true(value) { value } else { other }.clone(),
        ("quote", [value]) => Value::String(plain(value)).to_string().into(),
        ("toYaml", [value]) => {
            let text = yaml_serde::to_string(value).expect("YAML");
            text.trim_end().into()
        }
        ("nindent", [depth, text]) => {
            let indent = " ".repeat(plain(depth).parse().expect("a number"));
            let text = plain(text);
            let lines = text.lines().map(|line| format!("\n{indent}{line}"));
            lines.collect::<String>().into()
        }
        // Any text will do that is another for other values.
        ("sha256sum", [text]) => format!("{:?}", plain(text)).into(),
        ("fail", [message]) => return Err(plain(message)),
        _ => panic!("unknown here: {function} of {given:?}"),
    })
}

/// As a template prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => panic!("prints as nonsense: {value}"),
    }
}

/// As a template's `if` sees it.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

#[test]
fn templates_are_rendered_as_helm_does() {
    let root = serde_json::json!({"Values": {
        "name": "it's", "port": 80, "off": false, "list": ["a", "b"], "map": {"x": "1"},
    }});
    for (template, expected) in [
        ("a {{ .Values.name }} b", "a it's b"),
        (
            "a\n  {{- if .Values.off }}\n  no\n  {{- else }}\n  yes\n  {{- end }}\nb",
            "a\n  yes\nb",
        ),
        (
            "{{ .Values.port | quote }} {{ .Values.none | default \"x y\" }}",
            "\"80\" x y",
        ),
        (
            "l:\n  {{- toYaml .Values.list | nindent 2 }}\n",
            "l:\n  - a\n  - b\n",
        ),
        ("{{ toYaml .Values.map | nindent 4 }}", "\n    x: '1'"),
        (
            "{{- if not (or .Values.off .Values.none) }}x{{- end }}",
            "x",
        ),
        ("{{ if and .Values.port .Values.off }}x{{ end }}", ""),
    ] {
        assert_eq!(
            render(template, &root).as_deref(),
            Ok(expected),
            "{template}"
        );
    }
    assert_eq!(
        render("{{ fail \"no way\" }}", &root),
        Err("no way".to_owned())
    );
}
