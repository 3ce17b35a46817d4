//! A real Prometheus scrapes the daemon, evaluates the dashboard and the alerts, and parses both text formats.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::shop::{Shop, cart_on_every_frontend, cart_slices};
use super::{Daemon, Family, everywhere};
use crate::lab::http::ask_with;
use crate::lab::{objects, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::prometheus;
    crate::trials!(prometheus:
        promtool_parses_both_formats,
        every_panel_of_the_dashboard_shows_this_node,
    )
}

const METRICS: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);
/// Where Prometheus listens, on the node.
const PROMETHEUS: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

fn shop() -> Shop {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    shop.manifests
        .write("cart.yaml", &cart_on_every_frontend().yaml());
    shop.manifests.write("slices.yaml", &slices);
    shop
}

/// Requests a path on the node; returns the head and the body of the answer.
fn get(shop: &Shop, to: (IpAddr, u16), path: &str, headers: &str) -> (String, String) {
    let headers = format!("{headers}Connection: close\r\n");
    let answer = ask_with(&shop.cluster.node, to, &format!("GET {path}"), &headers, "");
    let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    (head.to_ascii_lowercase(), body.to_owned())
}

fn promtool_parses_both_formats() {
    let shop = shop();
    let _daemon = Daemon::start(&shop.cluster, &shop.manifests);
    let node = &shop.cluster.node.namespace;
    for accept in [
        "",
        "Accept: text/plain;version=0.0.4\r\n",
        "Accept: */*\r\n",
    ] {
        let (head, text) = get(&shop, METRICS, "/metrics", accept);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        let output = node.output("promtool", &["check", "metrics"], &text);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // kube-proxy's name, which its alerts have.
        let expected = "kubeproxy_sync_proxy_rules_no_local_endpoints_total non-counter metrics should \
                        not have \"_total\" suffix";
        assert_eq!(said.trim(), expected, "{text}");
    }
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (head, text) = get(&shop, METRICS, "/metrics", accept);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    // promtool reads OpenMetrics to import it, which needs a time for each sample.
    let timed: Vec<_> = text
        .lines()
        .map(|line| {
            let time = if line.starts_with('#') {
                ""
            } else {
                " 1700000000"
            };
            format!("{line}{time}\n")
        })
        .collect();
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("metrics");
    fs::write(&file, timed.concat()).expect("write metrics");
    let [file, data] = [file, dir.path().join("data")].map(|path| path.display().to_string());
    node.command(
        "promtool",
        &["tsdb", "create-blocks-from", "openmetrics", &file, &data],
    );
}

/// A running Prometheus on the node.
struct Prometheus<'a> {
    shop: &'a Shop,
    process: Child,
    _data: TempDir,
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The relabelings of the `PodMonitor`, as Prometheus' own configuration has them.
fn relabelings() -> Vec<Value> {
    let monitor: Value =
        yaml_serde::from_str(&file("manifests/monitoring/podmonitor.yaml")).expect("YAML");
    let rules = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"].clone();
    let names = [
        ("sourceLabels", "source_labels"),
        ("targetLabel", "target_label"),
    ];
    let renamed = rules.as_array().expect("relabelings").iter().map(|rule| {
        let fields = rule
            .as_object()
            .expect("an object")
            .iter()
            .map(|(name, value)| {
                let other = names.iter().find(|(operator, _)| operator == name);
                (
                    other.map_or(name.clone(), |(_, own)| (*own).to_owned()),
                    value.clone(),
                )
            });
        Value::Object(fields.collect())
    });
    renamed.collect()
}

impl<'a> Prometheus<'a> {
    /// Starts it with the alerts, and with targets as the `PodMonitor` finds them. Another program has the
    /// same instance, like a node-exporter.
    fn start(shop: &'a Shop) -> Self {
        let data = TempDir::new().expect("a directory");
        let name = shop.cluster.node.name();
        let pod = |container: &str| {
            json!({"targets": ["192.0.2.1:80"], "labels": {
                "__meta_kubernetes_pod_container_name": container,
                "__meta_kubernetes_pod_ip": "127.0.0.1",
                "__meta_kubernetes_pod_node_name": name,
            }})
        };
        // The value `monitoring.job` of the chart.
        let mut relabel = relabelings();
        relabel.push(json!({"target_label": "job", "replacement": "kube-proxy"}));
        let other = json!([{"target_label": "instance", "replacement": name}]);
        let config = json!({
            "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"},
            "rule_files": [Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/monitoring/alerts.yaml")],
            "scrape_configs": [
                {
                    "job_name": "podMonitor/kube-system/kube-dnat/0",
                    "relabel_configs": relabel,
                    "static_configs": [pod("kube-dnat"), pod("kernel-settings")],
                },
                {
                    "job_name": "node-exporter",
                    "relabel_configs": other,
                    "static_configs": [{"targets": ["127.0.0.1:9090"]}],
                },
            ],
        });
        let at = data.path().join("prometheus.yaml");
        fs::write(&at, config.to_string()).expect("write a configuration");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", at.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                data.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(data.path().join("log")).expect("a log"));
        let process = shop.cluster.node.namespace.spawn(&mut command);
        Self {
            shop,
            process,
            _data: data,
        }
    }

    /// Evaluates an expression; returns the labels and the value of each series.
    fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let path = format!("/api/v1/query?query={query}");
        let (_, body) = get(self.shop, PROMETHEUS, &path, "");
        let answer: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let series = answer["data"]["result"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"));
        let value = |series: &Value| {
            let text = series["value"][1].as_str().expect("a value");
            (series["metric"].clone(), text.parse().expect("a number"))
        };
        series.iter().map(value).collect()
    }

    fn is_ready(&self) -> bool {
        let ready = ask_with(
            &self.shop.cluster.node,
            PROMETHEUS,
            "GET /-/ready",
            "Connection: close\r\n",
            "",
        );
        ready.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }
}

/// What a panel shows with all instances.
fn expressions() -> Vec<(String, String)> {
    let dashboard: Value =
        serde_json::from_str(&file("manifests/monitoring/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let targets = panel["targets"].as_array().expect("targets").clone();
        targets.into_iter().map(move |target| {
            let expression = target["expr"].as_str().expect("an expression");
            (title.clone(), expression.replace("$instance", ".*"))
        })
    };
    panels.iter().flat_map(of_panel).collect()
}

/// Changes endpoints, as a controller does, connects, and asks for health.
fn disturb(shop: &Shop, daemon: &Daemon, round: usize) {
    let pods = if round.is_multiple_of(2) {
        &["pod-1"][..]
    } else {
        &["pod-1", "remote-1"]
    };
    let slices = cart_slices(
        pods.iter()
            .map(|name| shop.cluster.pod(name))
            .collect::<Vec<_>>(),
    );
    let slices = objects(&slices.yaml()).into_iter().map(|mut slice| {
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        slice["metadata"]["annotations"] =
            json!({"endpoints.kubernetes.io/last-change-trigger-time": now});
        format!("---\n{slice}\n")
    });
    daemon.apply("slices.yaml", &slices.collect::<String>());
    for (family, protocol) in everywhere() {
        let pod = shop.cluster.pod("pod-3");
        pod.probe(protocol, (family.cluster_ip(1), 80));
    }
    get(shop, (Family::V4.lan(2), 10_256), "/healthz", "");
    get(shop, (Family::V4.lan(2), 10_256), "/livez", "");
}

fn every_panel_of_the_dashboard_shows_this_node() {
    let shop = shop();
    let daemon = Daemon::start(&shop.cluster, &shop.manifests);
    let prometheus = Prometheus::start(&shop);
    wait_until("Prometheus is ready", || prometheus.is_ready());
    let up = "up{job=\"kube-proxy\",instance=\"node-1\"} == 1";
    wait_until("the daemon is scraped", || prometheus.query(up).len() == 1);
    // Only the container that has metrics is a target.
    assert_eq!(prometheus.query("up{job=\"kube-proxy\"}").len(), 1);
    // kubernetes-mixin's KubeProxyDown.
    assert_eq!(prometheus.query("absent(up{job=\"kube-proxy\"} == 1)"), []);

    let bad =
        crate::lab::Service::new("shop/bad", 2).spec("externalIPs", json!(["not-an-address"]));
    daemon.apply("bad.yaml", &bad.yaml());
    daemon.await_programmed();
    for (title, expression) in expressions() {
        let mut round = 0;
        // NaN is no value: a histogram without observations in the range.
        wait_until(&format!("{title}: {expression}"), || {
            round += 1;
            disturb(&shop, &daemon, round);
            let series = prometheus.query(&expression);
            series.iter().any(|(_, value)| value.is_finite())
        });
    }
    let memory = |job: &str| {
        let query = format!("process_resident_memory_bytes{{job=\"{job}\"}}");
        prometheus.query(&query)[0].1
    };
    let (_, panel) = expressions()
        .into_iter()
        .find(|(title, _)| title == "Memory")
        .expect("a panel on memory");
    let shown = prometheus.query(&panel);
    let (_, others) = (memory("kube-proxy"), memory("node-exporter"));
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].1 < others, "{shown:?} of {others}");
    let not_served = prometheus.query("ALERTS{alertname=\"KubeDnatObjectsNotServed\"}");
    assert_eq!(not_served.len(), 1, "{not_served:?}");
}
