//! The content types in which the API server may answer.

use super::schema::ClientConnection;

/// A format that kube-dnat decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Protobuf, in the envelope of Kubernetes.
    Protobuf,
    /// JSON.
    Json,
}

impl ContentType {
    /// Returns the format of a media type, whose parameters do not matter.
    #[must_use]
    pub fn of(media_type: &str) -> Option<Self> {
        let name = media_type.split(';').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("application/vnd.kubernetes.protobuf") {
            Some(Self::Protobuf)
        } else if name.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

/// The formats that requests accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptedTypes {
    /// Protobuf, and JSON from an API server that does not have it.
    #[default]
    ProtobufFirst,
    /// JSON, and protobuf from an API server that has no JSON.
    JsonFirst,
    /// JSON alone.
    JsonOnly,
}

impl AcceptedTypes {
    /// Returns the formats of `clientConnection`, as client-go reads it: `acceptContentTypes` if it
    /// is not empty, and otherwise `contentType`.
    ///
    /// The default is protobuf. JSON is always accepted, since no watch may fail for its format.
    /// `None` is a value that names neither, such as YAML, and that has no effect.
    pub(super) fn of(client: &ClientConnection) -> Option<Self> {
        let value = if client.accept_content_types.trim().is_empty() {
            &client.content_type
        } else {
            &client.accept_content_types
        };
        if value.trim().is_empty() {
            return Some(Self::default());
        }
        let mut known = value.split(',').filter_map(ContentType::of);
        match known.next()? {
            ContentType::Protobuf => Some(Self::ProtobufFirst),
            ContentType::Json if known.any(|other| other == ContentType::Protobuf) => {
                Some(Self::JsonFirst)
            }
            ContentType::Json => Some(Self::JsonOnly),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(accept: &str, content_type: &str) -> Option<AcceptedTypes> {
        AcceptedTypes::of(&ClientConnection {
            accept_content_types: accept.to_owned(),
            content_type: content_type.to_owned(),
            ..ClientConnection::default()
        })
    }

    #[test]
    fn the_first_known_content_type_is_preferred() {
        let protobuf = "application/vnd.kubernetes.protobuf";
        let json = "application/json";
        let both = format!("{json}, {protobuf};stream=watch");
        for (accept, content_type, types) in [
            ("", "", AcceptedTypes::ProtobufFirst),
            ("", protobuf, AcceptedTypes::ProtobufFirst),
            ("", json, AcceptedTypes::JsonOnly),
            (json, protobuf, AcceptedTypes::JsonOnly),
            (&both, "", AcceptedTypes::JsonFirst),
            (
                "application/yaml,application/json",
                "",
                AcceptedTypes::JsonOnly,
            ),
        ] {
            let configured = configured(accept, content_type);
            assert_eq!(configured, Some(types), "{accept} {content_type}");
        }
    }

    #[test]
    fn a_value_without_a_known_content_type_has_no_effect() {
        assert_eq!(configured("", "application/yaml"), None);
    }

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
