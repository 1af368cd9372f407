//! What clients accept.

use axum::http::{HeaderMap, header};

/// Whether the client prefers a page: browsers name `text/html` in `Accept`, programs don't.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|text| text.contains("text/html")))
}
