//! The messages of k8s.io/api/discovery/v1, by the field numbers of its `generated.proto`.

use super::message::Type::{Flag, Inner, Integer, Text, TextMap};
use super::message::{Message, always, optional, repeated};
use super::meta::OBJECT_META;
use super::services::OBJECT_REFERENCE;

pub(super) static ENDPOINT_SLICE: Message = Message {
    name: "EndpointSlice",
    fields: &[
        always("metadata", 1, Inner(&OBJECT_META)),
        repeated("endpoints", 2, Inner(&ENDPOINT)),
        repeated("ports", 3, Inner(&ENDPOINT_PORT)),
        always("addressType", 4, Text),
    ],
};

pub(super) static ENDPOINT: Message = Message {
    name: "Endpoint",
    fields: &[
        repeated("addresses", 1, Text),
        always("conditions", 2, Inner(&ENDPOINT_CONDITIONS)),
        optional("hostname", 3, Text),
        optional("targetRef", 4, Inner(&OBJECT_REFERENCE)),
        optional("deprecatedTopology", 5, TextMap),
        optional("nodeName", 6, Text),
        optional("zone", 7, Text),
        optional("hints", 8, Inner(&ENDPOINT_HINTS)),
    ],
};

pub(super) static ENDPOINT_CONDITIONS: Message = Message {
    name: "EndpointConditions",
    fields: &[
        optional("ready", 1, Flag),
        optional("serving", 2, Flag),
        optional("terminating", 3, Flag),
    ],
};

pub(super) static ENDPOINT_HINTS: Message = Message {
    name: "EndpointHints",
    fields: &[
        repeated("forZones", 1, Inner(&FOR_ZONE)),
        repeated("forNodes", 2, Inner(&FOR_NODE)),
    ],
};

pub(super) static FOR_ZONE: Message = Message {
    name: "ForZone",
    fields: &[always("name", 1, Text)],
};

pub(super) static FOR_NODE: Message = Message {
    name: "ForNode",
    fields: &[always("name", 1, Text)],
};

pub(super) static ENDPOINT_PORT: Message = Message {
    name: "EndpointPort",
    fields: &[
        optional("name", 1, Text),
        optional("protocol", 2, Text),
        optional("port", 3, Integer),
        optional("appProtocol", 4, Text),
    ],
};
