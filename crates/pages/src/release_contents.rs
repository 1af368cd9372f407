//! The commits and configuration changes between two releases.

use maud::{Markup, html};
use shipway_core::{configuration_changes::ConfigurationChange, release::Commit};

use crate::{
    delivery_lists::person_cell,
    foreign_text::{cut_text, foreign_text},
};

/// Keys of the configuration that are shown; more are counted.
const CHANGES_SHOWN: usize = 200;

/// Commits of one release that another one doesn't have.
#[derive(Clone, Debug, Default)]
pub struct ReleasedCommits {
    /// The newest first.
    pub commits: Vec<Commit>,
    /// Whether there are more.
    pub is_cut: bool,
    /// Why they can't be read.
    pub problem: Option<String>,
}

pub(crate) fn commit_list(released: &ReleasedCommits) -> Markup {
    html! {
        @if let Some(problem) = &released.problem { p.dim { "The commits can't be read: " (foreign_text(problem)) } }
        @else if released.commits.is_empty() { p.dim { "No further commits." } }
        @else {
            table.cards { tbody { @for commit in &released.commits { tr {
                th.tight scope="row" { code title=(commit.id) { (commit.id.short()) } }
                td { (foreign_text(&cut_text(&commit.subject, 200))) }
                td.tight { (person_cell(&commit.author)) }
                td.dim.tight { time datetime=(commit.at) { (commit.at.strftime("%Y-%m-%d %H:%M")) } }
            } } } }
            @if released.is_cut { p.dim { "Older commits are not shown." } }
        }
    }
}

pub(crate) fn configuration_table(changes: &[ConfigurationChange]) -> Markup {
    html! {
        @if changes.is_empty() { p.dim { "The configuration is the same." } }
        @else {
            table.cards {
                thead { tr { th scope="col" { "Key" } th scope="col" { "Before" } th scope="col" { "After" } } }
                tbody { @for change in changes.iter().take(CHANGES_SHOWN) { tr {
                    th scope="row" { code { (foreign_text(&change.path)) } }
                    td data-label="Before" { (configuration_value(change.before.as_deref())) }
                    td data-label="After" { (configuration_value(change.after.as_deref())) }
                } } }
            }
            @if changes.len() > CHANGES_SHOWN { p.dim { "and " (changes.len() - CHANGES_SHOWN) " more keys" } }
        }
    }
}

fn configuration_value(value: Option<&str>) -> Markup {
    html! { @match value {
        Some(value) => code { (foreign_text(value)) },
        None => span.dim { "absent" },
    } }
}

/// `1.2 MiB`
pub(crate) fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} bytes");
    }
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1_024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "1677721.5 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
