use super::*;

fn yaml(text: &str) -> Content {
    parse_text(ManifestFormat::Yaml, text, "n1").unwrap()
}

fn keys(content: &Content) -> Vec<String> {
    let keys = content.updates.iter().map(|update| update.key.to_string());
    keys.collect()
}

/// `1 apiVersion kind` for each kind that is ignored.
fn ignored(content: &Content) -> Vec<String> {
    let counts = content.ignored.iter();
    counts
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect()
}

#[test]
fn every_document_and_every_item_of_a_list_is_an_object() {
    let text = "# a comment first
apiVersion: v1
kind: Service
metadata: {name: a}
---
---
# nothing but a comment
---
apiVersion: v1
items:
- apiVersion: discovery.k8s.io/v1
  endpoints: []
  kind: EndpointSlice
  metadata: {name: b}
- null
- apiVersion: v1
  kind: List
  items:
  - {apiVersion: v1, kind: Node, metadata: {name: c}}
kind: List
---
apiVersion: networking.k8s.io/v1beta1
kind: ServiceCIDR
metadata: {name: d}
...
---
{apiVersion: v1, kind: Endpoints, metadata: {name: e, namespace: shop}}
";
    let expected = [
        "Service default/a",
        "EndpointSlice default/b",
        "Node c",
        "ServiceCIDR d",
        "Endpoints shop/e",
    ];
    let content = yaml(text);
    assert_eq!(keys(&content), expected);
    assert_eq!(ignored(&content), [""; 0]);
    assert_eq!(yaml(""), Content::default());
}

#[test]
fn items_of_a_list_of_one_kind_are_of_that_kind() {
    let text = "apiVersion: v1
kind: ServiceList
items: [{metadata: {name: a}}, {metadata: {name: b}}]";
    assert_eq!(
        keys(&yaml(text)),
        ["Service default/a", "Service default/b"]
    );
}

#[test]
fn json_and_yaml_have_the_same_objects() {
    let text = r#"{"kind": "List", "apiVersion": "v1", "items": [
        {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a\u0062"}},
        {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}}
    ]}
    {"metadata": {"name": "c"}, "apiVersion": "v1", "kind": "Node"}
"#;
    let json = parse_text(ManifestFormat::Json, text, "n1").unwrap();
    assert_eq!(keys(&json), ["Service default/ab", "Node c"]);
    assert_eq!(ignored(&json), ["1 v1 Pod"]);
    assert_eq!(
        parse_text(ManifestFormat::Json, " \n", "n1"),
        Ok(Content::default())
    );
}

#[test]
fn other_kinds_are_skipped_and_counted_whatever_they_hold() {
    let text = "apiVersion: apps/v1
kind: Deployment
spec: {ports: none, replicas: 99999999999999999999999}
---
apiVersion: apps/v1
kind: Deployment
---
kind: Secret
apiVersion: v1
data: {1: x, [a]: !vault y}
---
apiVersion: serving.knative.dev/v1
kind: Service
spec: {clusterIP: 7}
---
kind: Service
---
apiVersion: v1
metadata: {name: x}
items: [{apiVersion: v1, kind: Service, metadata: {name: y}}]
";
    let content = yaml(text);
    assert_eq!(keys(&content), [""; 0]);
    assert_eq!(
        ignored(&content),
        [
            "1 Service without apiVersion",
            "2 apps/v1 Deployment",
            "1 object without kind",
            "1 serving.knative.dev/v1 Service",
            "1 v1 Secret",
        ]
    );
}

#[test]
fn a_malformed_object_does_not_affect_the_others() {
    let text = "apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: bad, namespace: shop}
  spec: {clusterIP: 10.96.0.1, ports: [{port: 80}, {port: http}]}
- {apiVersion: v1, kind: Node, metadata: nonsense}
- {apiVersion: v1, kind: Service, metadata: {name: good}, spec: {clusterIP: 10.96.0.2}}
";
    let content = yaml(text);
    assert_eq!(
        keys(&content),
        ["Service shop/bad", "Node ", "Service default/good"]
    );
    let reasons = content.updates.iter().map(|update| {
        let reasons: Vec<_> = update.rejected.iter().map(ToString::to_string).collect();
        (update.object.is_some(), reasons.join("; "))
    });
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [
            (
                false,
                "spec.ports[1].port: invalid type: string \"http\", expected i64".to_owned()
            ),
            (
                false,
                "metadata: invalid type: string \"nonsense\", expected struct Metadata".to_owned()
            ),
            (true, String::new()),
        ]
    );
}

#[test]
fn a_syntax_error_has_its_line_and_column_in_the_file() {
    struct Case {
        format: ManifestFormat,
        text: &'static str,
        error: &'static str,
    }
    let good = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
    let second = format!("{good}---\n{good}spec: {{ports: [}}\n");
    let error = parse_text(ManifestFormat::Yaml, &second, "n1").unwrap_err();
    assert_eq!(error.position, Some((8, 16)));
    for Case {
        format,
        text,
        error,
    } in [
        Case {
            format: ManifestFormat::Yaml,
            text: "kind: Service\n  metadata: {}\n",
            error: "2:11: mapping values are not allowed in this context",
        },
        Case {
            format: ManifestFormat::Yaml,
            text: "---\nhello\n",
            error: "2:1: invalid type: string \"hello\", expected an object of Kubernetes or a list of them",
        },
        Case {
            format: ManifestFormat::Json,
            text: "{\"kind\": \"List\",\n \"items\": [}",
            error: "2:12: expected value",
        },
        Case {
            format: ManifestFormat::Json,
            text: "{\"kind\": \"List\"",
            error: "1:15: EOF while parsing an object",
        },
    ] {
        assert_eq!(
            parse_text(format, text, "n1").unwrap_err().to_string(),
            error
        );
    }
}
