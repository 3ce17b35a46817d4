//! The messages of k8s.io/api/core/v1 for Nodes, by the field numbers of its `generated.proto`.

use super::message::Type::{Flag, Inner, Integer, QuantityMap, Text, Time};
use super::message::{Message, always, optional, repeated};
use super::meta::OBJECT_META;

pub(super) static NODE: Message = Message {
    name: "Node",
    fields: &[
        always("metadata", 1, Inner(&OBJECT_META)),
        always("spec", 2, Inner(&NODE_SPEC)),
        always("status", 3, Inner(&NODE_STATUS)),
    ],
};

pub(super) static NODE_SPEC: Message = Message {
    name: "NodeSpec",
    fields: &[
        always("podCIDR", 1, Text),
        always("externalID", 2, Text),
        always("providerID", 3, Text),
        always("unschedulable", 4, Flag),
        repeated("taints", 5, Inner(&TAINT)),
        repeated("podCIDRs", 7, Text),
    ],
};

pub(super) static TAINT: Message = Message {
    name: "Taint",
    fields: &[
        always("key", 1, Text),
        always("value", 2, Text),
        always("effect", 3, Text),
        optional("timeAdded", 4, Time),
    ],
};

pub(super) static NODE_STATUS: Message = Message {
    name: "NodeStatus",
    fields: &[
        optional("capacity", 1, QuantityMap),
        optional("allocatable", 2, QuantityMap),
        always("phase", 3, Text),
        repeated("conditions", 4, Inner(&NODE_CONDITION)),
        repeated("addresses", 5, Inner(&NODE_ADDRESS)),
        always("daemonEndpoints", 6, Inner(&NODE_DAEMON_ENDPOINTS)),
        always("nodeInfo", 7, Inner(&NODE_SYSTEM_INFO)),
        repeated("images", 8, Inner(&CONTAINER_IMAGE)),
        repeated("volumesInUse", 9, Text),
        repeated("volumesAttached", 10, Inner(&ATTACHED_VOLUME)),
        repeated("runtimeHandlers", 12, Inner(&NODE_RUNTIME_HANDLER)),
        optional("features", 13, Inner(&NODE_FEATURES)),
        repeated("declaredFeatures", 14, Text),
    ],
};

pub(super) static NODE_CONDITION: Message = Message {
    name: "NodeCondition",
    fields: &[
        always("type", 1, Text),
        always("status", 2, Text),
        always("lastHeartbeatTime", 3, Time),
        always("lastTransitionTime", 4, Time),
        always("reason", 5, Text),
        always("message", 6, Text),
    ],
};

pub(super) static NODE_ADDRESS: Message = Message {
    name: "NodeAddress",
    fields: &[always("type", 1, Text), always("address", 2, Text)],
};

pub(super) static NODE_DAEMON_ENDPOINTS: Message = Message {
    name: "NodeDaemonEndpoints",
    fields: &[always("kubeletEndpoint", 1, Inner(&DAEMON_ENDPOINT))],
};

pub(super) static DAEMON_ENDPOINT: Message = Message {
    name: "DaemonEndpoint",
    fields: &[always("Port", 1, Integer)],
};

pub(super) static NODE_SYSTEM_INFO: Message = Message {
    name: "NodeSystemInfo",
    fields: &[
        always("machineID", 1, Text),
        always("systemUUID", 2, Text),
        always("bootID", 3, Text),
        always("kernelVersion", 4, Text),
        always("osImage", 5, Text),
        always("containerRuntimeVersion", 6, Text),
        always("kubeletVersion", 7, Text),
        always("kubeProxyVersion", 8, Text),
        always("operatingSystem", 9, Text),
        always("architecture", 10, Text),
        optional("swap", 11, Inner(&NODE_SWAP_STATUS)),
    ],
};

pub(super) static NODE_SWAP_STATUS: Message = Message {
    name: "NodeSwapStatus",
    fields: &[optional("capacity", 1, Integer)],
};

pub(super) static CONTAINER_IMAGE: Message = Message {
    name: "ContainerImage",
    fields: &[repeated("names", 1, Text), always("sizeBytes", 2, Integer)],
};

pub(super) static ATTACHED_VOLUME: Message = Message {
    name: "AttachedVolume",
    fields: &[always("name", 1, Text), always("devicePath", 2, Text)],
};

pub(super) static NODE_RUNTIME_HANDLER: Message = Message {
    name: "NodeRuntimeHandler",
    fields: &[
        always("name", 1, Text),
        optional("features", 2, Inner(&NODE_RUNTIME_HANDLER_FEATURES)),
    ],
};

pub(super) static NODE_RUNTIME_HANDLER_FEATURES: Message = Message {
    name: "NodeRuntimeHandlerFeatures",
    fields: &[
        optional("recursiveReadOnlyMounts", 1, Flag),
        optional("userNamespaces", 2, Flag),
    ],
};

pub(super) static NODE_FEATURES: Message = Message {
    name: "NodeFeatures",
    fields: &[optional("supplementalGroupsPolicy", 1, Flag)],
};
