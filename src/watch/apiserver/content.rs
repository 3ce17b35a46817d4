//! The content types in which the API server may answer.

use http::HeaderValue;

use crate::config::AcceptedTypes;

/// A format that kube-dnat decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl ContentType {
    /// The media type of protobuf (`k8s.io/apimachinery/pkg/runtime/types.go`).
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    /// The media type of JSON.
    const JSON: &str = "application/json";

    /// Returns the format of a media type, whose parameters do not matter.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        let name = media_type.split(';').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case(Self::PROTOBUF) {
            Some(Self::Protobuf)
        } else if name.eq_ignore_ascii_case(Self::JSON) {
            Some(Self::Json)
        } else {
            None
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_an_answer_is_that_of_its_media_type() {
        for (text, format) in [
            ("application/json", Some(ContentType::Json)),
            ("Application/JSON; charset=utf-8", Some(ContentType::Json)),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                Some(ContentType::Protobuf),
            ),
            ("application/yaml", None),
            ("", None),
        ] {
            assert_eq!(ContentType::of(text), format, "{text}");
        }
    }
}
