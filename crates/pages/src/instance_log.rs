//! The log of an instance: its last lines, what state it is in, and its release. Readable without a script; `instance_log.js` adds
//! the lines that the instance prints from then on.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::LogLine;
use shipway_core::target::{InstanceId, InstancePhase, InstanceStatus};

use crate::{
    ansi_text::ansi_text,
    delivery_lists::release_link,
    foreign_text::foreign_text,
    format::{relative_time, status_badge},
    layout::{NavigationSection, PageFrame, page},
    release_contents::size_text,
};

/// The page of `/instances/{name}`.
#[derive(Clone, Debug)]
pub struct InstanceLogPage {
    pub id: InstanceId,
    /// None once no target runs it: its log is kept for a while.
    pub status: Option<InstanceStatus>,
    /// Why the instances of its release keep exiting.
    pub crash_loop: Option<String>,
    /// The last lines.
    pub lines: Vec<LogLine>,
    /// The bytes of the log that come before the last line, where that is incomplete; else all of its bytes.
    pub read_to: u64,
    /// The number of the line at `read_to`.
    pub next_line: u64,
    pub now: Timestamp,
}

impl InstanceLogPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let id = &self.id;
        let place = &id.set.place;
        let environment = format!(
            "/services/{}/environments/{}",
            place.service, place.environment
        );
        let content = html! {
            p.dim { a href={ "/services/" (place.service) } { (place.service) } " / " a href=(environment) { (place.environment) } " / instances" }
            h1 { "Instance " code { (id) } }
            section.card { h2 { "State" } (self.state()) }
            (self.log())
        };
        let frame = PageFrame {
            title: &format!("Log of {id}"),
            section: Some(NavigationSection::Overview),
            events: &format!("service={}", place.service),
            scripts: &["/assets/instance_log.js"],
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    fn state(&self) -> Markup {
        let release = self.id.set.release;
        html! {
            @if let Some(reason) = &self.crash_loop { p.trouble { (status_badge("crash loop")) " " (foreign_text(reason)) } }
            dl.facts {
                dt { "Release" } dd {
                    (release_link(&self.id.set.place.service, release.released().0))
                    @if release.is_baseline() { " as the baseline of a canary" } @else if release.is_mirrored() { " with copies of requests" }
                }
                @match &self.status {
                    None => { dt { "State" } dd { (status_badge("stopped")) " It no longer runs. Its log is removed with its release's other files." } },
                    Some(status) => (running_facts(status, self.now)),
                }
            }
        }
    }

    fn log(&self) -> Markup {
        let name = self.id.to_string();
        let raw = format!("/api/v1/instances/{name}/log");
        let follow = self.status.as_ref().map(|_| {
            format!(
                "/instances/{name}/log?offset={}&line={}",
                self.read_to, self.next_line
            )
        });
        let first = self.lines.first().map_or(1, |line| line.number);
        html! {
            section.card.log-panel id="log" data-keep aria-label="Log" {
                header.log-tools {
                    h2 { "Log" }
                    p.log-links { a href=(raw) { "Raw" } " " a href=(raw) download={ (name) ".log" } { "Download raw" } }
                }
                p.dim {
                    @if first > 1 { "The last lines; earlier ones are in the raw log. " }
                    "Standard output and standard error, newest at the end."
                }
                div.log-lines tabindex="0" role="region" aria-label={ "Log of " (name) } data-follow=[follow] {
                    @if self.lines.is_empty() { p.dim { "The instance has not printed anything yet." } }
                    (log_lines(&self.lines))
                }
            }
        }
    }
}

/// The facts of an instance that a target runs.
fn running_facts(status: &InstanceStatus, now: Timestamp) -> Markup {
    let (state, reason, next_start) = match &status.phase {
        InstancePhase::Starting { why } => ("starting", Some(why), None),
        InstancePhase::Ready => ("ready", None, None),
        InstancePhase::Unready { why } => ("unready", Some(why), None),
        InstancePhase::Backoff { why, until } => ("backoff", Some(why), Some(*until)),
        InstancePhase::Stopping => ("stopping", None, None),
    };
    let reason = reason.filter(|reason| !reason.is_empty());
    html! {
        dt { "State" } dd {
            (status_badge(state))
            @if let Some(reason) = reason { " " (foreign_text(reason)) }
            @if let Some(at) = next_start { ". It starts again " (relative_time(at, now)) }
        }
        dt { "Started" } dd { (relative_time(status.since, now)) }
        dt { "Restarts" } dd { (status.restarts) @if status.restarts > 0 { ": it has exited " @if status.restarts == 1 { "once" } @else { (status.restarts) " times" } " without being asked to" } }
        dt { "Address" } dd { code { (status.address) } }
        @if let Some(usage) = &status.usage {
            dt { "Uses" } dd { (size_text(usage.memory_bytes)) " of memory, " (format!("{:.1}", usage.cpu_seconds)) " s of CPU time since its start" }
        }
    }
}

/// Lines of the log, alone: what the script adds.
#[must_use]
pub fn instance_log_lines(lines: &[LogLine]) -> String {
    log_lines(lines).into_string()
}

fn log_lines(lines: &[LogLine]) -> Markup {
    html! { @for line in lines {
        div.log-line id={ "L" (line.number) } data-line=(line.number) {
            a.line-number href={ "#L" (line.number) } tabindex="-1" { (line.number) }
            span.log-text { (ansi_text(&line.text)) @if line.omitted_bytes > 0 { span.dim { " … " (line.omitted_bytes) " more bytes are in the raw log" } } }
        }
    } }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page_of(phase: serde_json::Value, text: &str) -> String {
        let id: InstanceId = "shop.production.3.1".parse().unwrap();
        let mut status = json!({
            "id": "shop.production.3.1", "address": "127.0.0.1:4000", "pid": 7, "restarts": 2,
            "since": "2026-11-21T11:59:00Z", "usage": null,
        });
        for (key, value) in phase.as_object().unwrap() {
            status[key] = value.clone();
        }
        let page = InstanceLogPage {
            status: serde_json::from_value(status).unwrap(),
            crash_loop: None,
            lines: vec![LogLine {
                number: 41,
                at: None,
                text: text.to_owned(),
                omitted_bytes: 9,
            }],
            read_to: 500,
            next_line: 42,
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
            id,
        };
        page.to_html()
    }

    #[test]
    fn why_it_restarts_is_on_top_and_its_lines_are_harmless() {
        let evil = "\x1b]0;title\x07\x1b[2J<script>alert(1)</script>\x1b[31mred\x1b[0m\u{202e}";
        let phase = json!({ "phase": "backoff", "why": evil, "until": "2026-11-21T12:00:30Z" });
        let html = page_of(phase, evil);
        for part in [
            "starts again",
            "<dd>2: it has exited 2 times",
            "<span class=\"fg1\">red</span>",
            "<i class=\"code-point\">U+202E</i>",
            "… 9 more bytes are in the raw log",
            "data-follow=\"/instances/shop.production.3.1/log?offset=500&amp;line=42\"",
            "href=\"/services/shop/releases/3\"",
        ] {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
        assert!(!html.contains("<script>alert") && !html.contains('\u{1b}'));
    }
}
