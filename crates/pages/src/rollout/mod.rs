//! A rollout: its plan as a ladder, traffic over time, the rules with their verdicts, instances, actions and history.

mod evidence;
mod instance_list;
mod ladder;
mod notices;
mod odds_plot;
mod rollout_actions;
mod rule_tiles;
mod traffic_plot;

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_analysis::plot::MetricSeries;
use shipway_core::{
    ids::RolloutId,
    rollout::{RolloutHistory, RolloutKind, RolloutStatus, RolloutView},
    target::InstanceStatus,
};

use self::{
    evidence::{evidence_section, metrics_table, smoke_section, verdict_text},
    instance_list::instance_section,
    ladder::plan_section,
    notices::{gate_notice, guard_notices, hold_notice},
    rollout_actions::{RolloutSuccessor, rollout_actions},
    rule_tiles::rule_section,
    traffic_plot::traffic_plot,
};
use crate::{
    action_button::action_bar,
    foreign_text::foreign_text,
    format::{clock_time, enum_text, person_name, relative_time, status_badge, traffic_shares},
    layout::{NavigationSection, PageFrame, page},
};

/// The page of `/rollouts/{service}/{number}`.
#[derive(Clone, Debug)]
pub struct RolloutPage {
    pub rollout: RolloutView,
    /// Its plans, the traffic and the rules over time.
    pub history: RolloutHistory,
    /// The analysis over time, one series for each metric.
    pub series: Vec<MetricSeries>,
    /// Instances in its environment.
    pub instances: Vec<InstanceStatus>,
    /// The newest later rollout of the same environment.
    pub successor: Option<RolloutId>,
    pub now: Timestamp,
}

impl RolloutPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let (view, now) = (&self.rollout, self.now);
        let successor = match self.successor {
            Some(_) => RolloutSuccessor::Begun,
            None => RolloutSuccessor::None,
        };
        let content = html! {
            p.dim { a href={ "/services/" (view.id.service) } { (view.id.service) } " / " (view.id.number) }
            h1 { (kind_prefix(view)) (view.release) " → " (view.environment) " " (status_badge(&enum_text(&view.status))) (kind_mark(view)) }
            (about_rollout(view, now))
            @if let Some(end) = &view.ended { p class={ "lead" @if view.status != RolloutStatus::Promoted { " bad" } } { (foreign_text(&end.why)) } }
            @if let Some(turn) = view.rollback_start.as_ref().filter(|_| view.ended.is_none()) { p.lead.bad { "Rolling back: " (foreign_text(&turn.why)) } }
            @if let Some(pause) = &view.paused { p.lead { "Paused by " (foreign_text(&pause.by)) ": " (foreign_text(&pause.reason)) } }
            (guard_notices(view, now))
            (hold_notice(view.hold_until.filter(|_| view.guarded_until.is_none()), view.hold_deadline.zip(view.on_inconclusive), now))
            @if let Some(later) = &self.successor { p { "A later rollout of " (view.environment) ": " a href={ "/rollouts/" (later.service) "/" (later.number.0) } { (later.number) } } }
            (action_bar(&rollout_actions(view, successor)))
            (gate_notice(view, now))
            div.rollout-columns id="columns" {
                (plan_section(view, &self.history, now))
                (self.traffic_section())
            }
            (rule_section(&self.history, &self.series))
            (instance_section(view, &self.instances, now))
            (evidence_section(view, &self.series, now))
            (smoke_section(view))
            (timeline_section(view, now))
        };
        let title = format!("{} of {}", view.id.number, view.id.service);
        let frame = PageFrame {
            title: &title,
            section: Some(NavigationSection::Rollouts),
            events: &format!("stream={}", view.id.stream()),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    fn traffic_section(&self) -> Markup {
        let view = &self.rollout;
        let newcomer = Some(view.release).filter(|_| view.status != RolloutStatus::Promoted);
        html! {
            section.card id="traffic" {
                h2 { "Traffic" }
                @if view.split.shares.is_empty() { p.dim { "no traffic" } }
                (traffic_shares(&view.split, newcomer))
                @if let Some(reach) = &view.reach { p { (foreign_text(reach.to_string().trim_start_matches("; "))) } }
                @if let Some(judgement) = &view.judgement { p { (verdict_text(&judgement.verdict)) } }
                (traffic_plot(view, &self.history, self.now))
                (metrics_table(view))
            }
        }
    }
}

fn about_rollout(view: &RolloutView, now: Timestamp) -> Markup {
    html! {
        p {
            code { (view.commit) } " " (foreign_text(&view.subject))
            span.dim { " · " (view.strategy) " · " (foreign_text(&view.why)) " · by " (foreign_text(person_name(&view.by))) " · " (relative_time(view.opened_at, now)) }
        }
    }
}

/// The mark of a rollback and of a retry, each its own.
fn kind_mark(view: &RolloutView) -> Markup {
    html! { @match view.kind {
        RolloutKind::Deploy => {},
        RolloutKind::Rollback => { " " span.badge.ask { "↩ rollback" } },
        RolloutKind::Retry => { " " span.badge.calm { "↻ retry" @if let Some(first) = view.retry_of { " of " (first) } } },
    } }
}

fn timeline_section(view: &RolloutView, now: Timestamp) -> Markup {
    html! {
        section.card id="timeline" {
            h2 { "Timeline" }
            p.dim { "Times in UTC, newest first." }
            div.scroll tabindex="0" role="region" aria-label="Timeline" { table {
                thead { tr { th { "Time" } th { "What happened" } th { "By" } } }
                tbody { @for note in view.notes.iter().rev() { tr { td.dim.tight { (clock_time(note.at, now)) } td { (foreign_text(&note.text)) } td.dim { (foreign_text(person_name(&note.by))) } } } }
            } }
        }
    }
}

/// `Rollback to `, `Retry of `; nothing for a deploy.
pub(crate) const fn kind_prefix(view: &RolloutView) -> &'static str {
    match view.kind {
        RolloutKind::Deploy => "",
        RolloutKind::Rollback => "Rollback to ",
        RolloutKind::Retry => "Retry of ",
    }
}
