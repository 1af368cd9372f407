//! The tests of a run, as a part of its page: totals, failures with the new ones first, flaky and quarantined tests, the
//! slowest, coverage.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::{FailingTest, RunTests};
use shipway_core::run::{in_short, percent};

use crate::{
    foreign_text::{foreign_text, visible_text},
    format::{duration_text, relative_time, status_badge},
};

pub(crate) fn failure_section(lines: &[String; 3]) -> Markup {
    html! { section.card.why id="why" aria-label="What matters" { pre { @for line in lines { (visible_text(line)) "\n" } } } }
}

pub(crate) fn test_section(tests: &RunTests, now: Timestamp) -> Markup {
    let summary = &tests.summary;
    let warnings = summary.latest().flat_map(|job| {
        let warnings = job.tests.summary.warnings.iter();
        warnings.map(move |warning| format!("{}: {warning}", job.job))
    });
    let excuses = summary
        .latest()
        .filter_map(|job| job.tests.excuse.why_not.as_ref());
    html! {
        section.card id="tests" {
            h2 { "Tests" }
            p { (in_short(&summary.totals, None)) @if summary.totals.took_ms > 0 { span.dim { " · " (duration_text(summary.totals.took_ms)) } } }
            (coverage_line(tests))
            @for why in excuses { p.trouble { "Quarantine does not apply here: " (why) } }
            @for warning in warnings { p.trouble { "A report could not be read whole. " (warning) } }
            @if !tests.failing.is_empty() {
                div.scroll tabindex="0" role="region" aria-label="Failing tests" { table {
                    thead { tr { th { "Failing" } th { "Why" } th { "Job" } } }
                    tbody { @for test in &tests.failing { (failing_row(test, now)) } }
                } }
            }
            @if !tests.flaky.is_empty() {
                details open { summary { "Flaky in this run" }
                    ul { @for it in &tests.flaky { li { code { (it.test) } span.dim { " " (it.evidence) } } } }
                }
            }
            @if !tests.compared.fixed.is_empty() { p.dim { (tests.compared.fixed.len()) " that failed in the last green run pass" } }
            @if !tests.slowest.is_empty() {
                details { summary { "Slowest" }
                    div.scroll tabindex="0" role="region" aria-label="Slowest tests" { table { tbody { @for case in &tests.slowest { tr { td { code { (case.id) } } td.dim.number { (duration_text(case.took_ms)) } } } } } }
                }
            }
            @if let Some(base) = &tests.base { p.dim { "Compared with " a href={ "/runs/" (base.service) "/" (base.number.0) } { (base.number) } ", the last green run." } }
        }
    }
}

fn failing_row(test: &FailingTest, now: Timestamp) -> Markup {
    html! { tr {
        td {
            code { (visible_text(&test.test.to_string())) } " "
            @if test.is_new { (status_badge("new")) " " }
            @if test.flaky_commits > 0 { span.badge.ask title={ "passed and failed on " (test.flaky_commits) " commits" } { "flaky" } " " }
            @if let Some(entry) = &test.quarantine {
                span.badge.ask { "quarantine" }
                span.dim { " " (entry.owner) ", ends " (relative_time(entry.until, now)) ": " (entry.reason) }
            }
        }
        td { (foreign_text(test.message.as_deref().unwrap_or_default())) }
        td.tight { (test.job) }
    } }
}

fn coverage_line(tests: &RunTests) -> Markup {
    let covered = tests
        .summary
        .coverage
        .and_then(|it| it.lines.basis_points());
    let change = tests.compared.coverage_change.filter(|change| *change != 0);
    let change = change.map(|change| {
        let sign = if change > 0 { "+" } else { "−" };
        let points = u32::try_from(change.unsigned_abs()).unwrap_or(u32::MAX);
        format!("{sign}{} since the last green run", percent(points))
    });
    html! { @if let Some(covered) = covered {
        p {
            (percent(covered)) " of the lines covered"
            @if let Some(change) = change { span.dim { " · " (change) } }
            @if let Some(minimum) = tests.summary.coverage_min {
                @if covered < minimum { span.trouble { " · less than the " (percent(minimum)) " asked for" } }
                @else { span.dim { " · at least " (percent(minimum)) " are asked for" } }
            }
        }
    } }
}
