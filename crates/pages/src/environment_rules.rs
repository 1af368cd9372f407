//! The rules of an environment in plain words: whether it is frozen, whose approval a rollout needs, and what else it waits for.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{
    config::EnvironmentConfig,
    duration_text::DurationText,
    gate::{ApprovalPolicy, ApprovalRule, ChangeRole, FreezeCalendar, GATE_EXPIRY, OWNERS_FILE},
};

use crate::{
    foreign_text::foreign_text,
    format::{relative_time, status_badge},
};

/// Freeze windows that are listed; more are counted.
const WINDOWS_SHOWN: usize = 20;

/// The rules for rollouts into an environment.
pub(crate) fn environment_rules(config: &EnvironmentConfig, now: Timestamp) -> Markup {
    let rules = &config.rules;
    html! {
        dl.facts id="rules" {
            dt { "Freeze windows" } dd { (freeze(&rules.freeze, now)) }
            dt { "Approvals" } dd { (approvals(config.approvals.as_ref())) }
            dt { "Wait timer" } dd { @match rules.wait {
                Some(wait) => { "A rollout starts " (DurationText(wait).to_string()) " after it was requested, at the earliest." },
                None => span.dim { "none" },
            } }
            dt { "Branches" } dd { @match rules.branches.is_empty() {
                true => "Releases of all branches may be rolled out here.",
                false => { "Only releases of branches that match " code { (foreign_text(&rules.branch_list())) } " may be rolled out here. The last pattern that matches decides." },
            } }
            @if !rules.break_glass.is_empty() {
                dt { "Emergency" } dd {
                    (entries(&rules.break_glass)) " may pass all of these rules at once, with a reason and a review afterwards: "
                    code { "shipway break-glass ROLLOUT --reason WHY" }
                }
            }
        }
    }
}

fn freeze(calendar: &FreezeCalendar, now: Timestamp) -> Markup {
    html! {
        @match (calendar.active(now), calendar.is_empty()) {
            (Some(active), _) => {
                p {
                    (status_badge("frozen"))
                    @match (&active.opens_locally, active.opens_at) {
                        (Some(local), Some(at)) => { " until " strong { time datetime=(at) { (local) } } ", " (relative_time(at, now)) },
                        _ => " without a known end",
                    }
                    @if let Some(reason) = &active.reason { ": " (foreign_text(reason)) }
                    ". Rollouts wait until then; a rollback is always allowed."
                }
            },
            (None, true) => span.dim { "none" },
            (None, false) => p { (status_badge("open")) " No window is in force now." },
        }
        @if !calendar.is_empty() {
            ul.plain {
                @for window in calendar.windows.iter().take(WINDOWS_SHOWN) { li { (foreign_text(&window.to_string())) } }
                @if calendar.windows.len() > WINDOWS_SHOWN { li { "and " (calendar.windows.len() - WINDOWS_SHOWN) " more" } }
            }
        }
    }
}

fn approvals(policy: Option<&ApprovalPolicy>) -> Markup {
    let Some(policy) = policy else {
        return html! { "None: a rollout starts without an approval." };
    };
    let default_expiry = Duration::try_from(GATE_EXPIRY).unwrap_or_default();
    let expiry = DurationText(policy.expires.unwrap_or(default_expiry)).to_string();
    html! {
        @if policy.rules.len() > 1 { p { "All of these rules must be met; an approval counts for one of them:" } }
        ul.plain { @for rule in &policy.rules { li { (approval_rule(rule)) } } }
        p.dim { "An approval that is still missing after " (expiry) " fails the rollout." }
    }
}

fn approval_rule(rule: &ApprovalRule) -> Markup {
    html! {
        @if rule.count == 1 { "One person must approve" } @else { (rule.count) " different people must approve" }
        @if rule.from.is_empty() { ": any person with the role approver" } @else { ": " (entries(&rule.from)) }
        "."
        @if !rule.not.is_empty() { " Approvals of " (roles(&rule.not)) " don't count." }
    }
}

/// `alice, a member of @platform or an owner of the changed paths`
fn entries(names: &[String]) -> Markup {
    html! {
        @for (index, name) in names.iter().enumerate() {
            @if index > 0 { @if index + 1 == names.len() { " or " } @else { ", " } }
            @if name == OWNERS_FILE { "an owner of the changed paths" }
            @else if name.starts_with('@') { "a member of " strong { (foreign_text(name)) } }
            @else { strong { (foreign_text(name)) } }
        }
    }
}

fn roles(roles: &[ChangeRole]) -> String {
    let roles: Vec<&str> = roles.iter().map(|role| role_text(*role)).collect();
    roles.join(" and of ")
}

const fn role_text(role: ChangeRole) -> &'static str {
    match role {
        ChangeRole::Author => "the author of the commit",
        ChangeRole::Committer => "the committer",
        ChangeRole::Triggerer => "the person who pushed it or requested the rollout",
    }
}
