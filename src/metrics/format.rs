//! The two text formats of a scrape, and the choice between them by `Accept`.
//!
//! kube-proxy serves version 0.0.4 of Prometheus' text format, so this is the default. `OpenMetrics` is
//! served if it is asked for, as by Prometheus itself.

/// The media type of `OpenMetrics`.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// A text format for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// `OpenMetrics`, version 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// Returns the content type of the format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Selects the format for a request with this `Accept`: the first of those with the highest quality.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let mut best = (Self::Prometheus, 0.0);
        for range in accept.split(',') {
            if let Some((format, quality)) = media_range(range)
                && quality > best.1
            {
                best = (format, quality);
            }
        }
        best.0
    }
}

/// Reads a media range: the format that it accepts, and its quality.
fn media_range(range: &str) -> Option<(TextFormat, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let mut quality = 1.0;
    let mut version = None;
    for parameter in parts {
        match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("q") => {
                quality = value.trim().parse().ok()?;
            }
            Some((name, value)) if name.trim().eq_ignore_ascii_case("version") => {
                version = Some(value.trim().trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
    let format = match (media_type.as_str(), version.as_deref()) {
        (OPEN_METRICS, None | Some("1.0.0")) => TextFormat::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => TextFormat::Prometheus,
        _ => return None,
    };
    Some((format, quality))
}

/// Converts text of `OpenMetrics` to Prometheus' text format.
///
/// They differ in the descriptions: there a counter has the name of its sample, an info is a gauge, and
/// there are no units and no end. The samples are the same, since kube-dnat has no exemplars and no
/// creation times.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The help precedes the type, which decides the name.
    let mut help = None;
    for line in open_metrics.lines() {
        let Some(description) = line.strip_prefix("# ") else {
            text.extend([line, "\n"]);
            continue;
        };
        let mut words = description.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(_), Some(words)) => help = Some(words),
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some(help) = help.take() {
                    text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
                }
                text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            // A unit, or the end.
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_with_the_highest_quality() {
        use TextFormat::{OpenMetrics, Prometheus};
        for (accept, expected) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain;version=0.0.4", Prometheus),
            ("text/html, */*;q=0.8", Prometheus),
            ("application/json", Prometheus),
            ("application/openmetrics-text", OpenMetrics),
            (
                "application/openmetrics-text; version=\"1.0.0\"",
                OpenMetrics,
            ),
            (
                "Application/OpenMetrics-Text;Version=1.0.0;Q=0.3",
                OpenMetrics,
            ),
            // Prometheus 2.42 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            // With scrape_protocols, the order is the operator's.
            (
                "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5",
                Prometheus,
            ),
            ("application/openmetrics-text;version=0.0.1", Prometheus),
            ("application/openmetrics-text;q=0, text/plain", Prometheus),
            ("application/openmetrics-text;q=much", Prometheus),
        ] {
            assert_eq!(TextFormat::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn descriptions_are_converted_and_samples_are_kept() {
        let open_metrics = "# HELP a_build Version.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
            # HELP b Sent bytes.\n# TYPE b counter\n# UNIT b bytes\nb_total{x=\"# TYPE\"} 2\n\
            # HELP c Now.\n# TYPE c gauge\nc 3\n# EOF\n";
        let expected = "# HELP a_build_info Version.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
            # HELP b_total Sent bytes.\n# TYPE b_total counter\nb_total{x=\"# TYPE\"} 2\n\
            # HELP c Now.\n# TYPE c gauge\nc 3\n";
        assert_eq!(to_prometheus(open_metrics), expected);
    }
}
