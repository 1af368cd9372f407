//! The frame of every page: head, header with navigation and search, and the events that change the page.

use maud::{DOCTYPE, Markup, html};

use crate::{
    account_frame::{head_mark, header_mark},
    foreign_text::foreign_text,
};

/// Whom the browser may load what from, as the header `Content-Security-Policy` of every page: this server alone.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A part of the pages that the navigation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NavigationSection {
    Overview,
    Runs,
    Rollouts,
    Releases,
    Approvals,
    Settings,
}

impl NavigationSection {
    const ALL: [Self; 6] = [
        Self::Overview,
        Self::Runs,
        Self::Rollouts,
        Self::Releases,
        Self::Approvals,
        Self::Settings,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Runs => "Runs",
            Self::Rollouts => "Rollouts",
            Self::Releases => "Releases",
            Self::Approvals => "Approvals",
            Self::Settings => "Settings",
        }
    }

    const fn address(self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Runs => "/runs",
            Self::Rollouts => "/rollouts",
            Self::Releases => "/releases",
            Self::Approvals => "/approvals",
            Self::Settings => "/settings",
        }
    }
}

/// What surrounds the content of a page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageFrame<'a> {
    pub(crate) title: &'a str,
    /// The part of the navigation that the page belongs to.
    pub(crate) section: Option<NavigationSection>,
    /// The query of `/api/v1/events` for the events that change the page: the script then fetches it again. Empty for a page that
    /// doesn't follow the log in this way.
    pub(crate) events: &'a str,
    /// The address of the stream of changed parts of the page; empty unless the page has one.
    pub(crate) changes: &'a str,
    /// The text in the search box.
    pub(crate) search: &'a str,
    /// Addresses of scripts that this page needs in addition to the shared one.
    pub(crate) scripts: &'a [&'a str],
}

/// A whole page.
pub(crate) fn page(frame: &PageFrame<'_>, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (frame.title) " · Shipway" }
                link rel="stylesheet" href="/assets/shipway.css";
                link rel="icon" href="data:,";
                script src="/assets/shipway.js" defer {}
                (head_mark())
                @for script in frame.scripts { script src=(script) defer {} }
            }
            body data-events=(frame.events) data-changes=[(!frame.changes.is_empty()).then_some(frame.changes)] {
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "Shipway" }
                    (navigation(frame.section))
                    form.search role="search" action="/" {
                        input type="search" name="q" id="search" value=(frame.search) placeholder="Search services" maxlength="100" aria-label="Search services (press / to focus)" autocomplete="off";
                    }
                    @if !(frame.events.is_empty() && frame.changes.is_empty()) {
                        p.connection {
                            span.live title="This page follows the log" { "live" }
                            span.stale title="Reload the page for updates" { "not live" }
                        }
                    }
                    (header_mark())
                }
                main id="content" tabindex="-1" { (content) }
                p.refusal id="refusal" role="alert" {}
            }
        }
    };
    page.into_string()
}

fn navigation(current: Option<NavigationSection>) -> Markup {
    html! {
        nav aria-label="Main" {
            @for section in NavigationSection::ALL {
                a href=(section.address()) aria-current=[(current == Some(section)).then_some("page")] { (section.title()) }
            }
        }
    }
}

/// The page of a form that was refused, with the reason and the way to the page of the form.
#[must_use]
pub fn refused_action_page(reason: &str, back: &str) -> String {
    let content = html! {
        h1 { "Not done" }
        p.lead.bad { (foreign_text(reason)) }
        p { @if back == "/" { a href="/" { "All services" } } @else { a href=(back) { "See how it is now" } } }
    };
    let frame = PageFrame {
        title: "Not done",
        ..PageFrame::default()
    };
    page(&frame, &content)
}

/// The page of a request that was refused or failed: what kind of refusal it is by its HTTP status, and the reason.
#[must_use]
pub fn refusal_page(status: u16, reason: &str) -> String {
    let title = match status {
        401 => "Sign in first",
        403 => "Not allowed",
        404 | 410 => "Not found",
        405 => "Not possible here",
        413 => "Too large",
        429 => "Too many requests",
        500.. => "The server could not do this",
        _ => "Not done",
    };
    let content = html! {
        h1 { (title) }
        p { (foreign_text(reason)) }
        p { @if status == 401 { a href="/login" { "Sign in" } " · " } a href="/" { "All services" } }
    };
    let frame = PageFrame {
        title,
        ..PageFrame::default()
    };
    page(&frame, &content)
}
