//! The settings of retention: the rule, what its last removal kept and removed, and a removal at once, after a look at what it takes.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::{PruneReport, PrunedFiles};
use shipway_core::{duration_text::DurationText, retention::RetentionPolicy};

use super::SettingsFrame;
use crate::{delivery_lists::release_link, format::relative_time, release_contents::size_text};

/// Runs and releases that are named; more are counted.
const NAMED_MAX: usize = 20;

/// The page of `/settings/retention`.
#[derive(Clone, Debug)]
pub struct RetentionSettingsPage {
    pub frame: SettingsFrame,
    pub policy: RetentionPolicy,
    pub stored: StoredFiles,
    /// The last removal since the server was started; none while the first one is in progress.
    pub last: Option<FinishedRemoval>,
    /// What the form before it has left to be shown.
    pub result: Option<RetentionResult>,
    pub now: Timestamp,
}

/// The use of the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoredFiles {
    /// Artifacts and reports of tests.
    pub blobs: PrunedFiles,
    /// Bytes of the log of events with its read models.
    pub log_bytes: u64,
    /// Bytes that are free on the disk of the data directory; none if that can't be read.
    pub free_bytes: Option<u64>,
}

/// A removal of old files.
#[derive(Clone, Debug)]
pub struct FinishedRemoval {
    pub at: Timestamp,
    pub removed: PruneReport,
    /// Artifacts and reports that the rule covered.
    pub kept: PrunedFiles,
}

/// What a form shows once.
#[derive(Clone, Debug)]
pub enum RetentionResult {
    /// What a removal would remove.
    Preview(PruneReport),
    Removed(PruneReport),
}

impl RetentionSettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let content = html! {
            @match &self.result {
                Some(RetentionResult::Preview(report)) => (self.preview(report)),
                Some(RetentionResult::Removed(report)) => section.card role="status" { h2 { "Removed" } (report_list(report)) },
                None => {},
            }
            section.card { h2 { "The rule" } (self.rule()) }
            section.card {
                h2 { "On the disk" }
                dl.facts {
                    dt { "Artifacts and test reports" } dd { (files_text(self.stored.blobs)) }
                    dt { "Log of events" } dd { (size_text(self.stored.log_bytes)) }
                    dt { "Free" } dd { @match self.stored.free_bytes { Some(bytes) => (size_text(bytes)), None => span.dim { "unknown" } } }
                }
            }
            section.card { h2 { "Last removal" } (self.last_removal()) }
            @if !matches!(self.result, Some(RetentionResult::Preview(_))) {
                section.card {
                    h2 { "Remove old files now" }
                    p { "The server does this by itself every 6 h. See what would be removed first; nothing is changed by that." }
                    (self.frame.form("preview", &html! { button.primary type="submit" { "Show what would be removed" } }))
                    p.dim { code { "shipway prune --dry-run" } " · " code { "shipway prune" } }
                }
            }
        };
        self.frame.to_html(&content)
    }

    fn rule(&self) -> Markup {
        let days = |period| {
            let period = Duration::try_from(period).unwrap_or_default();
            DurationText(period).to_string()
        };
        html! {
            dl.facts {
                dt { "Runs, with logs" } dd { (days(self.policy.period)) " after their end" }
                dt { "Artifacts of releases" } dd { (days(self.policy.period)) " after the release was made, and of the newest " (self.policy.releases_min) " releases of each service however old they are" }
                dt { "Workspaces of failed jobs" } dd { (days(self.policy.workspaces)) " after the end of their run; of the newest " (self.policy.failed_runs_min) " failed runs as long as runs" }
                dt { "Never removed" } dd { "what serves, waits, is being rolled out or can be rolled back to" }
                dt { "Changed by" } dd { code { "shipway server --keep-for 90d --keep-releases 20" } }
            }
        }
    }

    fn last_removal(&self) -> Markup {
        html! { @match &self.last {
            None => p.dim { "The first one since the server was started has not ended yet." },
            Some(last) => {
                p { (relative_time(last.at, self.now)) ", " (files_text(last.kept)) " of artifacts and reports were kept. Removed were:" }
                (report_list(&last.removed))
            },
        } }
    }

    fn preview(&self, report: &PruneReport) -> Markup {
        html! {
            section.card role="status" {
                h2 { "What would be removed" }
                (report_list(report))
                p.dim { "Git objects that nothing refers to are removed too; their size is unknown before. A removal can't be undone." }
                div.actions {
                    (self.frame.form("prune", &html! { button.danger type="submit" { "Remove these files" } }))
                    a href=(self.frame.current.address) { "Leave everything as it is" }
                }
            }
        }
    }
}

/// `12 files, 3.4 MiB`
fn files_text(files: PrunedFiles) -> String {
    let noun = if files.count == 1 { "file" } else { "files" };
    format!("{} {noun}, {}", files.count, size_text(files.bytes))
}

fn report_list(report: &PruneReport) -> Markup {
    let lost = &report.releases;
    html! {
        dl.facts {
            dt { "Artifacts and test reports" } dd { (files_text(report.blobs)) }
            dt { "Runs with logs and workspaces" } dd {
                (report.runs.count) ", " (size_text(report.runs.bytes))
                @if !report.run_ids.is_empty() { span.dim { ": " (first_of(&report.run_ids)) } }
            }
            @if let Some(repositories) = report.repositories { dt { "Git repositories made smaller" } dd { (repositories.count) ", " (size_text(repositories.bytes)) } }
            @if !lost.is_empty() {
                dt { "Releases that can't be deployed again" } dd {
                    @for (index, release) in lost.iter().take(NAMED_MAX).enumerate() { @if index > 0 { ", " } (release.service) " " (release_link(&release.service, release.number.0)) }
                    @if lost.len() > NAMED_MAX { " and " (lost.len() - NAMED_MAX) " more" }
                }
            }
        }
    }
}

fn first_of(ids: &[String]) -> String {
    let named = ids.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    match ids.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
