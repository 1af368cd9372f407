//! The frame of every page: head, header, and the events that make it reload.

use maud::{DOCTYPE, Markup, html};

/// Whom the browser may load what from, as the header `Content-Security-Policy` of every page: this server alone.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'";

/// A whole page. `events` is the query of `/api/v1/events` for the events that change it; the script reloads the content then.
pub(crate) fn page(title: &str, events: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Shipway" }
                link rel="stylesheet" href="/assets/shipway.css";
                link rel="icon" href="data:,";
                script src="/assets/shipway.js" defer {}
            }
            body data-events=(events) {
                header.top {
                    a.brand href="/" { "Shipway" }
                    span.live title="This page follows the log" { "live" }
                    span.stale { "disconnected: reload for updates" }
                }
                main id="content" { (content) }
            }
        }
    };
    page.into_string()
}

/// The page of an address where there is nothing, with the reason.
#[must_use]
pub fn not_found_page(reason: &str) -> String {
    let content = html! { h1 { "Not found" } p { (reason) } p { a href="/" { "All services" } } };
    page("Not found", "", &content)
}
