//! The messages of k8s.io/api/core/v1 for Services, by the field numbers of its `generated.proto`.

use super::message::Type::{Flag, Inner, IntOrString, Integer, Text, TextMap};
use super::message::{Message, always, optional, repeated};
use super::meta::{CONDITION, OBJECT_META};

pub(super) static OBJECT_REFERENCE: Message = Message {
    name: "ObjectReference",
    fields: &[
        always("kind", 1, Text),
        always("namespace", 2, Text),
        always("name", 3, Text),
        always("uid", 4, Text),
        always("apiVersion", 5, Text),
        always("resourceVersion", 6, Text),
        always("fieldPath", 7, Text),
    ],
};

pub(super) static SERVICE: Message = Message {
    name: "Service",
    fields: &[
        always("metadata", 1, Inner(&OBJECT_META)),
        always("spec", 2, Inner(&SERVICE_SPEC)),
        always("status", 3, Inner(&SERVICE_STATUS)),
    ],
};

pub(super) static SERVICE_SPEC: Message = Message {
    name: "ServiceSpec",
    fields: &[
        repeated("ports", 1, Inner(&SERVICE_PORT)),
        optional("selector", 2, TextMap),
        always("clusterIP", 3, Text),
        always("type", 4, Text),
        repeated("externalIPs", 5, Text),
        always("sessionAffinity", 7, Text),
        always("loadBalancerIP", 8, Text),
        repeated("loadBalancerSourceRanges", 9, Text),
        always("externalName", 10, Text),
        always("externalTrafficPolicy", 11, Text),
        always("healthCheckNodePort", 12, Integer),
        always("publishNotReadyAddresses", 13, Flag),
        optional("sessionAffinityConfig", 14, Inner(&SESSION_AFFINITY_CONFIG)),
        optional("ipFamilyPolicy", 17, Text),
        repeated("clusterIPs", 18, Text),
        repeated("ipFamilies", 19, Text),
        optional("allocateLoadBalancerNodePorts", 20, Flag),
        optional("loadBalancerClass", 21, Text),
        optional("internalTrafficPolicy", 22, Text),
        optional("trafficDistribution", 23, Text),
    ],
};

pub(super) static SERVICE_PORT: Message = Message {
    name: "ServicePort",
    fields: &[
        always("name", 1, Text),
        always("protocol", 2, Text),
        always("port", 3, Integer),
        always("targetPort", 4, IntOrString),
        always("nodePort", 5, Integer),
        optional("appProtocol", 6, Text),
    ],
};

pub(super) static SERVICE_STATUS: Message = Message {
    name: "ServiceStatus",
    fields: &[
        always("loadBalancer", 1, Inner(&LOAD_BALANCER_STATUS)),
        repeated("conditions", 2, Inner(&CONDITION)),
    ],
};

pub(super) static LOAD_BALANCER_STATUS: Message = Message {
    name: "LoadBalancerStatus",
    fields: &[repeated("ingress", 1, Inner(&LOAD_BALANCER_INGRESS))],
};

pub(super) static LOAD_BALANCER_INGRESS: Message = Message {
    name: "LoadBalancerIngress",
    fields: &[
        always("ip", 1, Text),
        always("hostname", 2, Text),
        optional("ipMode", 3, Text),
        repeated("ports", 4, Inner(&PORT_STATUS)),
    ],
};

pub(super) static PORT_STATUS: Message = Message {
    name: "PortStatus",
    fields: &[
        always("port", 1, Integer),
        always("protocol", 2, Text),
        optional("error", 3, Text),
    ],
};

pub(super) static SESSION_AFFINITY_CONFIG: Message = Message {
    name: "SessionAffinityConfig",
    fields: &[optional("clientIP", 1, Inner(&CLIENT_IP_CONFIG))],
};

pub(super) static CLIENT_IP_CONFIG: Message = Message {
    name: "ClientIPConfig",
    fields: &[optional("timeoutSeconds", 1, Integer)],
};
