use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;

mod features;
mod service;
mod slice;

use service::{as_service, ports};
use slice::{addresses, as_slices};

fn decoded<T: DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn reasons(update: &Update) -> Vec<String> {
    update.rejected.iter().map(ToString::to_string).collect()
}

#[test]
fn fields_that_are_null_count_as_absent() {
    let update = service(&decoded(json!({
        "metadata": {"name": "cart", "namespace": null, "labels": null, "annotations": null, "creationTimestamp": null},
        "spec": {
            "type": null, "clusterIP": "10.96.0.7", "clusterIPs": null, "externalIPs": null, "selector": null,
            "ports": [{"name": null, "protocol": null, "port": 80, "nodePort": null}],
        },
        "status": {"loadBalancer": {"ingress": null}},
    })));
    assert_eq!(
        (update.key.name.as_ref(), reasons(&update)),
        ("default/cart", vec![])
    );
    assert_eq!(ports(&update), ["/tcp/80/0"]);
    assert!(!as_service(&update).has_selector);
    assert_eq!(as_service(&update).created, None);

    let update = slice(
        &decoded(json!({
            "metadata": {"name": "x", "labels": {"kubernetes.io/service-name": "cart"}},
            "addressType": "IPv4", "ports": null,
            "endpoints": [{"addresses": ["10.244.0.1"], "conditions": null, "nodeName": null}],
        })),
        "n1",
    );
    assert_eq!(addresses(&as_slices(&update)[0].addresses), ["10.244.0.1+"]);
}

#[test]
fn an_object_without_a_valid_name_is_rejected() {
    for (metadata, key, reason) in [
        ("{}", "default/", "metadata.name is missing"),
        ("{namespace: shop}", "shop/", "metadata.name is missing"),
        (
            "{name: 'a\"b'}",
            "default/a\"b",
            "metadata.name \"a\\\"b\" is not a valid Kubernetes name",
        ),
        (
            "{name: Cart}",
            "default/Cart",
            "metadata.name \"Cart\" is not a valid Kubernetes name",
        ),
        (
            "{name: a/b}",
            "default/a/b",
            "metadata.name \"a/b\" is not a valid Kubernetes name",
        ),
        (
            "{name: a, namespace: -x}",
            "-x/a",
            "metadata.namespace \"-x\" is not a valid Kubernetes name",
        ),
    ] {
        let yaml = format!("metadata: {metadata}\nspec: {{clusterIP: 10.96.0.7}}");
        let update = service(&yaml_serde::from_str(&yaml).unwrap());
        assert_eq!((update.key.name.as_ref(), &update.object), (key, &None));
        assert_eq!(reasons(&update), [reason]);
    }
}

#[test]
fn only_this_node_is_used_and_its_internal_addresses_come_first() {
    let yaml = "metadata: {name: n1}
status:
  addresses: [{type: ExternalIP, address: 192.0.2.1}, {type: InternalIP, address: 10.0.0.7}, {type: InternalIP, address: x},
    {type: Hostname, address: n1}, {type: InternalIP, address: 'fd00::7'}]";
    let this_node = node(&yaml_serde::from_str(yaml).unwrap(), "n1");
    let addresses = ["10.0.0.7", "fd00::7", "192.0.2.1"].map(|ip| ip.parse().unwrap());
    assert_eq!(this_node.key.to_string(), "Node n1");
    assert_eq!(
        this_node.object,
        Some(Object::Node(Node {
            addresses: addresses.into(),
            ..Node::default()
        }))
    );
    assert_eq!(
        reasons(&this_node),
        ["status.addresses[2].address \"x\" is not an IP address"]
    );

    let other = node(&yaml_serde::from_str(yaml).unwrap(), "n2");
    assert_eq!((other.object, other.rejected), (None, vec![]));
}

#[test]
fn a_service_cidr_keeps_its_valid_ranges() {
    let yaml =
        "metadata: {name: kubernetes}\nspec: {cidrs: [10.96.0.0/12, 10.96.0.0, 'fd00:96::/112']}";
    let update = service_cidr(&yaml_serde::from_str(yaml).unwrap());
    let cidrs = vec![
        "10.96.0.0/12".parse().unwrap(),
        "fd00:96::/112".parse().unwrap(),
    ];
    assert_eq!(update.key.to_string(), "ServiceCIDR kubernetes");
    assert_eq!(
        update.object,
        Some(Object::ServiceCidr(ServiceCidr { cidrs }))
    );
    assert_eq!(
        reasons(&update),
        ["spec.cidrs[1] \"10.96.0.0\" is not an address range"]
    );
}
