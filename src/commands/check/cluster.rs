//! Checks of the cluster that a configuration selects: its API server, the rights of the client, and
//! the Node object.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::timeout;

use super::configuration::cluster_cidr;
use super::{CheckResult, probes, routes};
use crate::config::Config;
use crate::logging::ErrorChain;
use crate::watch::apiserver::{ApiClient, ClientSettings, ServerCertificate, client};

/// The longest wait for an answer of the API server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Checks the cluster. Without an answer of the API server, nothing else can be checked.
pub(super) fn check(config: &Config, kubeconfig: Option<PathBuf>) -> Vec<CheckResult> {
    let checks = async {
        let mut results = Vec::new();
        let settings = ClientSettings {
            kubeconfig: kubeconfig.or_else(|| config.kubeconfig.clone()),
            ..ClientSettings::default()
        };
        match connect(&settings).await {
            Ok((client, connected)) => {
                results.push(connected);
                results.extend(of_objects(&client, config).await);
            }
            Err(problem) => results.push(problem),
        }
        results
    };
    match crate::agent::runtime() {
        Ok(runtime) => runtime.block_on(checks),
        Err(error) => vec![CheckResult::failure(
            "API server",
            format!("{error:#}"),
            "raise the limit of open files",
        )],
    }
}

/// Connects to the API server, and describes how.
async fn connect(settings: &ClientSettings) -> Result<(Client, CheckResult), CheckResult> {
    const CHECK: &str = "API server";
    const FIX: &str = "set clientConnection.kubeconfig, or --kubeconfig; in a Pod, KUBERNETES_SERVICE_HOST \
        must be the address of an API server and not a ClusterIP";
    let failure = |message: String| CheckResult::failure(CHECK, message, FIX);
    let client: ApiClient = client(settings)
        .await
        .map_err(|error| failure(error.to_string()))?;
    let version = timeout(TIMEOUT, client.kube().apiserver_version()).await;
    let version = match version {
        Ok(Ok(version)) => version.git_version,
        Ok(Err(error)) => return Err(failure(ErrorChain(&error).to_string())),
        Err(_elapsed) => {
            let server = client.server();
            let seconds = TIMEOUT.as_secs();
            return Err(failure(format!("no answer from {server} in {seconds} s")));
        }
    };
    let certificate = timeout(TIMEOUT, client.server_certificate()).await;
    let server = client.server();
    let certificate = match certificate {
        Ok(Ok(Some(ServerCertificate {
            subject,
            issuer,
            expires,
        }))) => {
            format!("its certificate is {subject}, issued by {issuer}, and expires on {expires}")
        }
        Ok(Ok(None)) => "the connection is not encrypted".to_owned(),
        Ok(Err(error)) => return Err(failure(format!("{server}: {error}"))),
        Err(_elapsed) => return Err(failure(format!("{server}: no TLS handshake"))),
    };
    let message = format!("{server} answers with version {version}; {certificate}");
    Ok((client.kube(), CheckResult::ok(CHECK, message)))
}

/// Checks the rights of the client, the Node object, and what depends on it.
async fn of_objects(client: &Client, config: &Config) -> Vec<CheckResult> {
    let mut results = rights(client).await;
    let (node, pod_cidrs) = node(client, &config.node).await;
    results.push(node);
    results.push(cluster_cidr(config, pod_cidrs.as_deref()));
    results.extend(route(client).await);
    results.extend(daemon_sets(client, config).await);
    results
}

/// The rights that kube-dnat needs: the API group, the resource, the verbs, and whether it works
/// without.
const RIGHTS: [(&str, &str, &[&str], bool); 5] = [
    ("", "services", &["list", "watch"], false),
    (
        "discovery.k8s.io",
        "endpointslices",
        &["list", "watch"],
        false,
    ),
    ("", "nodes", &["list", "watch"], false),
    (
        "networking.k8s.io",
        "servicecidrs",
        &["list", "watch"],
        true,
    ),
    ("events.k8s.io", "events", &["create"], true),
];

/// Asks the API server for each right.
async fn rights(client: &Client) -> Vec<CheckResult> {
    const CHECK: &str = "rights";
    const FIX: &str = "bind the ClusterRole of the manifests, or kube-proxy's system:node-proxier";
    let mut missing = Vec::new();
    let mut optional = Vec::new();
    for (group, resource, verbs, is_optional) in RIGHTS {
        for verb in verbs {
            match is_allowed(client, group, resource, verb).await {
                Ok(true) => {}
                Ok(false) if is_optional => optional.push(format!("{verb} {resource}")),
                Ok(false) => missing.push(format!("{verb} {resource}")),
                Err(error) => {
                    let message = format!("cannot be reviewed: {error}");
                    return vec![CheckResult::warning(CHECK, message, FIX)];
                }
            }
        }
    }
    let mut results = Vec::new();
    if !missing.is_empty() {
        let message = format!("the client may not {}", missing.join(", "));
        results.push(CheckResult::failure(CHECK, message, FIX));
    }
    if !optional.is_empty() {
        let message = format!(
            "the client may not {}: kube-dnat works without",
            optional.join(", ")
        );
        results.push(CheckResult::warning(CHECK, message, FIX));
    }
    if results.is_empty() {
        let message = "the client may list and watch Services, EndpointSlices, Nodes and ServiceCIDRs, \
            and create Events";
        results.push(CheckResult::ok(CHECK, message));
    }
    results
}

/// Asks whether the client may do something with all objects of a resource.
async fn is_allowed(
    client: &Client,
    group: &str,
    resource: &str,
    verb: &str,
) -> Result<bool, String> {
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = answered(reviews.create(&kube::api::PostParams::default(), &review)).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// Checks that the Node object exists. Returns its ranges of Pods, too.
async fn node(client: &Client, name: &str) -> (CheckResult, Option<Vec<IpNet>>) {
    const CHECK: &str = "node";
    const FIX: &str =
        "set --hostname-override or hostnameOverride to the name of this node's Node object";
    let nodes: Api<Node> = Api::all(client.clone());
    match answered(nodes.get_opt(name)).await {
        Ok(Some(node)) => {
            let spec = node.spec.unwrap_or_default();
            let cidrs = spec.pod_cidrs.unwrap_or_default();
            let cidrs = cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
            let message = format!("the Node object {name} exists");
            (CheckResult::ok(CHECK, message), Some(cidrs))
        }
        Ok(None) => {
            let message = format!("there is no Node object {name}");
            (CheckResult::failure(CHECK, message, FIX), None)
        }
        Err(error) => {
            let message = format!("the Node object {name} cannot be read: {error}");
            (CheckResult::warning(CHECK, message, FIX), None)
        }
    }
}

/// Checks that a route covers the `ClusterIP` of the Service `default/kubernetes`.
async fn route(client: &Client) -> Option<CheckResult> {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = answered(services.get_opt("kubernetes")).await.ok()??;
    let ip = service.spec?.cluster_ip?.parse().ok()?;
    Some(routes::to_cluster_ip(ip))
}

/// Checks the probes of kube-dnat's `DaemonSets`, by the label that the chart and the manifests set.
async fn daemon_sets(client: &Client, config: &Config) -> Vec<CheckResult> {
    let ours = ListParams::default().labels("app.kubernetes.io/name=kube-dnat");
    let sets: Api<DaemonSet> = Api::all(client.clone());
    match answered(sets.list(&ours)).await {
        Ok(sets) => probes::check(&sets.items, config.healthz_bind_address),
        Err(error) => vec![CheckResult::warning(
            probes::CHECK,
            format!("the DaemonSets cannot be read: {error}"),
            "use a kubeconfig whose client may list DaemonSets, or compare the probes with \
             healthzBindAddress",
        )],
    }
}

/// Waits for an answer. Returns the error in words.
async fn answered<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ErrorChain(&error).to_string()),
        Err(_elapsed) => Err(format!("no answer in {} s", TIMEOUT.as_secs())),
    }
}
