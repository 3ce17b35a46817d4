//! The `Accept` headers of requests.

use http::HeaderValue;

use crate::config::AcceptedTypes;

/// Returns the `Accept` header of a list.
pub(super) fn of_list(accepted: AcceptedTypes) -> HeaderValue {
    HeaderValue::from_static(match accepted {
        AcceptedTypes::ProtobufFirst => "application/vnd.kubernetes.protobuf,application/json",
        AcceptedTypes::JsonFirst => "application/json,application/vnd.kubernetes.protobuf",
        AcceptedTypes::JsonOnly => "application/json",
    })
}

/// Returns the `Accept` header of a watch.
pub(super) fn of_watch(accepted: AcceptedTypes) -> HeaderValue {
    HeaderValue::from_static(match accepted {
        AcceptedTypes::ProtobufFirst => {
            "application/vnd.kubernetes.protobuf;stream=watch,application/json"
        }
        AcceptedTypes::JsonFirst => {
            "application/json,application/vnd.kubernetes.protobuf;stream=watch"
        }
        AcceptedTypes::JsonOnly => "application/json",
    })
}
