//! The messages of k8s.io/apimachinery/pkg/apis/meta/v1, by the field numbers of its `generated.proto`.

use super::message::Type::{FieldsV1, Flag, Inner, Integer, Text, TextMap, Time};
use super::message::{Message, always, optional, repeated};

pub(super) static OBJECT_META: Message = Message {
    name: "ObjectMeta",
    fields: &[
        always("name", 1, Text),
        always("generateName", 2, Text),
        always("namespace", 3, Text),
        always("selfLink", 4, Text),
        always("uid", 5, Text),
        always("resourceVersion", 6, Text),
        always("generation", 7, Integer),
        always("creationTimestamp", 8, Time),
        optional("deletionTimestamp", 9, Time),
        optional("deletionGracePeriodSeconds", 10, Integer),
        optional("labels", 11, TextMap),
        optional("annotations", 12, TextMap),
        repeated("ownerReferences", 13, Inner(&OWNER_REFERENCE)),
        repeated("finalizers", 14, Text),
        repeated("managedFields", 17, Inner(&MANAGED_FIELDS_ENTRY)),
    ],
};

pub(super) static OWNER_REFERENCE: Message = Message {
    name: "OwnerReference",
    fields: &[
        always("kind", 1, Text),
        always("name", 3, Text),
        always("uid", 4, Text),
        always("apiVersion", 5, Text),
        optional("controller", 6, Flag),
        optional("blockOwnerDeletion", 7, Flag),
    ],
};

pub(super) static MANAGED_FIELDS_ENTRY: Message = Message {
    name: "ManagedFieldsEntry",
    fields: &[
        always("manager", 1, Text),
        always("operation", 2, Text),
        always("apiVersion", 3, Text),
        optional("time", 4, Time),
        always("fieldsType", 6, Text),
        optional("fieldsV1", 7, FieldsV1),
        always("subresource", 8, Text),
    ],
};

pub(super) static LIST_META: Message = Message {
    name: "ListMeta",
    fields: &[
        always("selfLink", 1, Text),
        always("resourceVersion", 2, Text),
        always("continue", 3, Text),
        optional("remainingItemCount", 4, Integer),
    ],
};

pub(super) static CONDITION: Message = Message {
    name: "Condition",
    fields: &[
        always("type", 1, Text),
        always("status", 2, Text),
        always("observedGeneration", 3, Integer),
        always("lastTransitionTime", 4, Time),
        always("reason", 5, Text),
        always("message", 6, Text),
    ],
};

pub(super) static STATUS: Message = Message {
    name: "Status",
    fields: &[
        always("metadata", 1, Inner(&LIST_META)),
        always("status", 2, Text),
        always("message", 3, Text),
        always("reason", 4, Text),
        optional("details", 5, Inner(&STATUS_DETAILS)),
        always("code", 6, Integer),
    ],
};

pub(super) static STATUS_DETAILS: Message = Message {
    name: "StatusDetails",
    fields: &[
        always("name", 1, Text),
        always("group", 2, Text),
        always("kind", 3, Text),
        repeated("causes", 4, Inner(&STATUS_CAUSE)),
        always("retryAfterSeconds", 5, Integer),
        always("uid", 6, Text),
    ],
};

pub(super) static STATUS_CAUSE: Message = Message {
    name: "StatusCause",
    fields: &[
        always("reason", 1, Text),
        always("message", 2, Text),
        always("field", 3, Text),
    ],
};
