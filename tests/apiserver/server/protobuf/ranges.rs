//! The messages of k8s.io/api/networking/v1, by the field numbers of its `generated.proto`.

use super::message::Type::{Inner, Text};
use super::message::{Message, always, repeated};
use super::meta::{CONDITION, OBJECT_META};

pub(super) static SERVICE_CIDR: Message = Message {
    name: "ServiceCIDR",
    fields: &[
        always("metadata", 1, Inner(&OBJECT_META)),
        always("spec", 2, Inner(&SERVICE_CIDR_SPEC)),
        always("status", 3, Inner(&SERVICE_CIDR_STATUS)),
    ],
};

pub(super) static SERVICE_CIDR_SPEC: Message = Message {
    name: "ServiceCIDRSpec",
    fields: &[repeated("cidrs", 1, Text)],
};

pub(super) static SERVICE_CIDR_STATUS: Message = Message {
    name: "ServiceCIDRStatus",
    fields: &[repeated("conditions", 1, Inner(&CONDITION))],
};
