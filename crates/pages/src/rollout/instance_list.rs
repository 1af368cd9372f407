//! The instances of both releases in the environment of a rollout, with their logs.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{
    rollout::RolloutView,
    target::{InstancePhase, InstanceStatus},
};

use crate::{
    foreign_text::foreign_text,
    format::{relative_time, status_badge},
};

pub(super) fn instance_section(
    view: &RolloutView,
    instances: &[InstanceStatus],
    now: Timestamp,
) -> Markup {
    html! {
        section.card id="instances" {
            h2 { "Instances" }
            @if instances.is_empty() { p.dim { "None runs in " (view.environment) " now." } }
            @else { div.scroll tabindex="0" role="region" aria-label="Instances" { table {
                thead { tr { th { "Instance" } th { "Release" } th { "State" } th.number { "Restarts" } th { "Since" } th { "Log" } } }
                tbody { @for instance in instances { (instance_row(view, instance, now)) } }
            } } }
        }
    }
}

/// `ready`, `starting`, …
const fn phase_name(phase: &InstancePhase) -> &'static str {
    match phase {
        InstancePhase::Starting { .. } => "starting",
        InstancePhase::Ready => "ready",
        InstancePhase::Unready { .. } => "unready",
        InstancePhase::Backoff { .. } => "backoff",
        InstancePhase::Stopping => "stopping",
    }
}

fn phase_reason(phase: &InstancePhase) -> Option<&str> {
    match phase {
        InstancePhase::Starting { why }
        | InstancePhase::Unready { why }
        | InstancePhase::Backoff { why, .. } => Some(why),
        InstancePhase::Ready | InstancePhase::Stopping => None,
    }
}

fn instance_row(view: &RolloutView, instance: &InstanceStatus, now: Timestamp) -> Markup {
    let id = instance.id.to_string();
    let release = instance.id.set.release;
    html! { tr data-key=(id) {
        td { code { (id) } }
        td.tight { (release) @if release == view.release { span.dim { " new" } } }
        td { (status_badge(phase_name(&instance.phase))) @if let Some(reason) = phase_reason(&instance.phase) { " " (foreign_text(reason)) } }
        td.number { (instance.restarts) }
        td.dim.tight { (relative_time(instance.since, now)) }
        td { a href={ "/instances/" (id) } aria-label={ "log of " (id) } { "log" } }
    } }
}
