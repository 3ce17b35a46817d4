//! `/`: the web page of the node, one HTML document with its style and its script.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
};
use ring::digest::{SHA256, digest};

use super::answers::with_type;
use crate::http::server::HttpResponse;

/// The document, in which the style and the script are missing.
const DOCUMENT: &str = include_str!("page.html");

/// The place of the style in the document.
const STYLE_PLACE: &str = "/*style*/";

/// The style.
const STYLE: &str = include_str!("page.css");

/// The place of the script in the document.
const SCRIPT_PLACE: &str = "/*script*/";

/// The script, one module.
const SCRIPT: &str = concat!(
    include_str!("elements.js"),
    include_str!("numbers.js"),
    include_str!("rates.js"),
    include_str!("plots.js"),
    include_str!("overview.js"),
    include_str!("source.js"),
    include_str!("problems.js"),
    include_str!("ports.js"),
    include_str!("table.js"),
    include_str!("details.js"),
    include_str!("refresh.js"),
);

/// The whole document and its policy.
static PAGE: LazyLock<(String, Option<HeaderValue>)> = LazyLock::new(|| {
    let page = DOCUMENT
        .replace(STYLE_PLACE, STYLE)
        .replace(SCRIPT_PLACE, SCRIPT);
    (page, HeaderValue::try_from(policy()).ok())
});

/// Returns the Content-Security-Policy: nothing but this style and this script, and requests to this
/// server. No text becomes markup either (`require-trusted-types-for`).
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// Returns the page.
pub(super) fn response() -> HttpResponse {
    let (page, policy) = &*PAGE;
    let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", page.clone());
    let headers = response.headers_mut();
    if let Some(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    }
    for (name, value) in [
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_one_style_and_one_script_and_names_nothing_else() {
        let (page, policy) = &*PAGE;
        assert!(policy.is_some());
        for (text, element) in [(STYLE, "style"), (SCRIPT, "script")] {
            // The hash is that of all text between the tags.
            let (_, rest) = page.split_once(&format!("<{element}")).unwrap();
            let (_, rest) = rest.split_once('>').unwrap();
            let (content, _) = rest.split_once(&format!("</{element}>")).unwrap();
            assert_eq!(content, text, "{element}");
            assert_eq!(page.matches(&format!("<{element}")).count(), 1);
        }
        let page = page.replace("http://www.w3.org/2000/svg", "");
        for refused in [
            "http:",
            "https:",
            "src=",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
        ] {
            assert!(!page.contains(refused), "{refused}");
        }
    }
}
