//! The negotiation of an answer's media type (`pkg/endpoints/handlers/negotiation` of the real API
//! server; RFC 9110, section 12.5.1).

/// An encoding of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

impl Format {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// Returns the `Content-Type` of a watch.
    pub(crate) fn stream_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// The encodings that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encodings {
    /// JSON and protobuf, as the kinds of Kubernetes itself.
    All,
    /// JSON, as the kinds of an aggregated API server.
    Json,
    /// JSON, and 406 if protobuf is the first choice of the client.
    RejectFirst,
    /// JSON, and 406 if protobuf is among the choices of the client.
    RejectAny,
}

impl Encodings {
    /// Returns the encodings for a kind that the tables do not have.
    pub(crate) fn without_protobuf(self) -> Self {
        match self {
            Self::All | Self::Json => Self::Json,
            Self::RejectFirst => Self::RejectFirst,
            Self::RejectAny => Self::RejectAny,
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) format: Format,
    /// Only the metadata of the objects.
    pub(crate) partial: bool,
}

/// A choice of the client.
struct Clause<'a> {
    media_type: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

/// Returns the form that the client prefers of those that the server has; `None` means 406.
pub(crate) fn negotiate(accept: &str, encodings: Encodings) -> Option<Media> {
    if accept.is_empty() {
        return Some(Media {
            format: Format::Json,
            partial: false,
        });
    }
    let mut clauses: Vec<_> = accept.split(',').map(clause).collect();
    clauses.sort_by(|one, other| {
        let quality = other.quality.total_cmp(&one.quality);
        quality.then(wildcards(one.media_type).cmp(&wildcards(other.media_type)))
    });
    let is_protobuf = |clause: &Clause| clause.media_type == Format::Protobuf.media_type();
    let formats: &[Format] = match encodings {
        Encodings::All => &[Format::Json, Format::Protobuf],
        Encodings::RejectFirst if clauses.first().is_some_and(is_protobuf) => return None,
        Encodings::RejectAny if clauses.iter().any(is_protobuf) => return None,
        Encodings::Json | Encodings::RejectFirst | Encodings::RejectAny => &[Format::Json],
    };
    clauses.iter().find_map(|clause| {
        let mut formats = formats.iter().copied();
        let format = formats.find(|format| covers(clause.media_type, format.media_type()))?;
        let is = |name, expected| clause.parameter(name).is_none_or(|value| value == expected);
        is("stream", "watch").then(|| Media {
            format,
            partial: clause.parameter("as") == Some("PartialObjectMetadataList"),
        })
    })
}

impl Clause<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        parameters.find(|(known, _)| *known == name).map(|it| it.1)
    }
}

fn clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let parameters: Vec<_> = parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .collect();
    let quality = parameters.iter().find(|(name, _)| *name == "q");
    Clause {
        media_type,
        quality: quality.and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0),
        parameters,
    }
}

/// Returns how general a media type is.
fn wildcards(media_type: &str) -> usize {
    media_type.matches('*').count()
}

fn covers(clause: &str, media_type: &str) -> bool {
    let of_type = clause.strip_suffix("/*");
    clause == media_type
        || of_type == Some("*")
        || of_type.is_some_and(|of_type| media_type.split('/').next() == Some(of_type))
}

#[cfg(test)]
mod tests {
    use super::Encodings::{All, Json, RejectAny, RejectFirst};
    use super::*;

    #[test]
    fn the_client_gets_its_first_choice_of_what_the_server_has() {
        let protobuf_first = "application/vnd.kubernetes.protobuf, application/json";
        let watch = "application/vnd.kubernetes.protobuf;stream=watch,application/json;q=0.9";
        let (json, protobuf) = (Some(Format::Json), Some(Format::Protobuf));
        for (accept, encodings, expected) in [
            ("", All, json),
            ("*/*", All, json),
            ("application/*", All, json),
            ("application/json", All, json),
            (protobuf_first, All, protobuf),
            (watch, All, protobuf),
            (
                "application/json;q=0.5, application/vnd.kubernetes.protobuf;q=0.6",
                All,
                protobuf,
            ),
            ("*/*, application/vnd.kubernetes.protobuf", All, protobuf),
            (
                "application/yaml, application/vnd.kubernetes.protobuf",
                All,
                protobuf,
            ),
            (
                "application/vnd.kubernetes.protobuf;stream=other",
                All,
                None,
            ),
            ("application/yaml", All, None),
            (protobuf_first, Json, json),
            ("application/vnd.kubernetes.protobuf", Json, None),
            (protobuf_first, RejectFirst, None),
            (
                "application/json, application/vnd.kubernetes.protobuf",
                RejectFirst,
                json,
            ),
            (
                "application/json, application/vnd.kubernetes.protobuf",
                RejectAny,
                None,
            ),
            ("application/json", RejectAny, json),
        ] {
            let format = negotiate(accept, encodings).map(|media| media.format);
            assert_eq!(format, expected, "{accept} {encodings:?}");
        }
    }

    #[test]
    fn only_the_chosen_entry_asks_for_metadata() {
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert!(negotiate(partial, All).unwrap().partial);
        let later = format!("application/vnd.kubernetes.protobuf, {partial}");
        assert!(!negotiate(&later, All).unwrap().partial);
        assert!(negotiate(&later, Json).unwrap().partial);
    }
}
