//! What a run has pointed out and made: annotations, artifacts, summaries, and the release with the environments it went to.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::RunDetails;
use shipway_core::{
    release::Release,
    rollout::RolloutView,
    run::{RunStatus, RunView},
};

use crate::{
    foreign_text::foreign_text,
    format::{enum_text, relative_time, status_badge},
    markdown::markdown,
    rollout::kind_prefix,
};

/// Annotations of one job that are listed.
const ANNOTATIONS_MAX: usize = 50;

pub(super) fn annotation_section(run: &RunView) -> Markup {
    let jobs = || run.jobs.iter().filter(|job| !job.annotations.is_empty());
    html! { @if jobs().next().is_some() {
        section.card id="annotations" {
            h2 { "Annotations" }
            @for job in jobs() {
                h3 { (foreign_text(&job.name)) }
                ul { @for annotation in job.annotations.iter().take(ANNOTATIONS_MAX) {
                    li { (status_badge(&enum_text(&annotation.level))) " " (foreign_text(&annotation.in_one_line())) }
                } }
                @if job.annotations.len() > ANNOTATIONS_MAX { p.dim { (job.annotations.len() - ANNOTATIONS_MAX) " more are in its log" } }
            }
        }
    } }
}

pub(super) fn artifact_section(run: &RunView) -> Markup {
    let address = format!(
        "/api/v1/runs/{}/{}/artifacts/",
        run.id.service, run.id.number.0
    );
    html! {
        section.card id="artifacts" {
            h2 { "Artifacts" }
            @if run.artifacts.is_empty() {
                p.dim { "None. A step stores one with " code { "uses: actions/upload-artifact@v4" } "; a release is made of it." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="Artifacts" { table {
                    thead { tr { th { "Name" } th.number { "Size" } th { "Digest" } } }
                    tbody { @for artifact in &run.artifacts { tr {
                        td { a href={ (address) (path_segment(&artifact.name)) } download={ (artifact.name) ".tar" } { (foreign_text(&artifact.name)) } }
                        td.number { (size_text(artifact.size)) }
                        td.dim { code { (short_digest(&artifact.digest.to_string())) } }
                    } } }
                } }
            }
        }
    }
}

pub(super) fn release_section(
    run: &RunView,
    releases: &[(Release, Vec<RolloutView>)],
    now: Timestamp,
) -> Markup {
    let is_over = run.finished_at.is_some();
    html! {
        section.card id="release" {
            h2 { "Release" }
            @if releases.is_empty() {
                p.dim {
                    @if !is_over { "None yet: a successful run on the released branch makes one." }
                    @else if run.status == RunStatus::Success { "None. A successful run on the released branch makes a release of the artifact that it stored." }
                    @else { "None: only a successful run makes one." }
                }
            }
            @for (release, rollouts) in releases {
                p { strong { (release.number) } " made " (relative_time(release.created_at, now)) }
                @if rollouts.is_empty() { p.dim { "It has not been rolled out: " code { "shipway deploy " (release.service) " " (release.number.0) } } }
                ul { @for rollout in rollouts { li {
                    a href={ "/rollouts/" (rollout.id.service) "/" (rollout.id.number.0) } { (kind_prefix(rollout)) (release.number) " → " (rollout.environment) }
                    " " (status_badge(&enum_text(&rollout.status))) span.dim { " " (relative_time(rollout.opened_at, now)) }
                } } }
            }
        }
    }
}

pub(super) fn summary_section(run: &RunDetails) -> Markup {
    html! { @for job in &run.run.jobs { @if let Some(summary) = run.summaries.get(&job.key) {
        section.card { details id={ "summary-" (job.key) } open { summary { "Summary of " (foreign_text(&job.name)) } (markdown(summary)) } }
    } } }
}

/// `sha256:1f2e3d4c5b6a`.
fn short_digest(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// `4.2 MiB`.
fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{size:.1} {}", UNITS[unit]),
    }
}

/// A name as one segment of an address.
fn path_segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_addresses_are_written_as_they_are_read() {
        assert_eq!(size_text(17), "17 B");
        assert_eq!(size_text(4_404_019), "4.2 MiB");
        assert_eq!(path_segment("a/b ü?"), "a%2Fb%20%C3%BC%3F");
    }
}
