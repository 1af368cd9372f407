//! The actions that apply to a rollout, each with a description of its effect.

use serde_json::{Value, json};
use shipway_core::rollout::{RolloutKind, RolloutStatus, RolloutView};

use crate::action_button::{ActionButton, ButtonTone, ReasonField};

/// The actions that apply to a rollout now.
pub(super) fn rollout_actions(
    view: &RolloutView,
    successor: RolloutSuccessor,
) -> Vec<ActionButton> {
    match view.status {
        RolloutStatus::Waiting => vec![approve(view), reject(view), abort(view)],
        RolloutStatus::Paused => vec![resume(view), promote(view), abort(view)],
        RolloutStatus::Moving | RolloutStatus::Holding | RolloutStatus::WaitingForPeers => {
            vec![pause(view), promote(view), abort(view)]
        }
        RolloutStatus::KeptWarm => vec![abort(view)],
        RolloutStatus::Promoted if view.ended.is_none() => vec![abort(view)],
        RolloutStatus::RollingBack if view.rollback_retry.is_some() => vec![stop_retrying(view)],
        RolloutStatus::RollingBack => Vec::new(),
        RolloutStatus::Promoted => rollback(view, successor).into_iter().collect(),
        RolloutStatus::RolledBack
        | RolloutStatus::Aborted
        | RolloutStatus::Rejected
        | RolloutStatus::Superseded
        | RolloutStatus::Failed => vec![retry(view)],
    }
}

/// Whether a later rollout of the same environment has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RolloutSuccessor {
    None,
    Begun,
}

fn act(view: &RolloutView, label: &'static str, verb: &str, effect: String) -> ActionButton {
    let id = &view.id;
    ActionButton {
        label,
        address: format!("/api/v1/rollouts/{}/{}/{verb}", id.service, id.number.0),
        body: json!({}),
        effect,
        command: format!("shipway {verb} {id}"),
        reason: ReasonField::Optional,
        tone: ButtonTone::Plain,
    }
}

fn approve(view: &RolloutView) -> ActionButton {
    let body = match view.gate.as_ref().and_then(|gate| gate.subject.as_ref()) {
        Some(plan) => json!({ "plan": plan }),
        None => Value::Object(serde_json::Map::new()),
    };
    let effect = format!(
        "Your approval lets the rollout of {} into {} continue by itself, with the plan that is shown here. If the plan has changed meanwhile, the approval is refused.",
        view.release, view.environment
    );
    ActionButton {
        body,
        tone: ButtonTone::Strong,
        ..act(view, "Approve", "approve", effect)
    }
}

fn reject(view: &RolloutView) -> ActionButton {
    let effect = format!(
        "The rollout ends as rejected: {} does not go into {}, and {}.",
        view.release,
        view.environment,
        describe_remaining(view)
    );
    act(view, "Reject", "reject", effect)
}

fn pause(view: &RolloutView) -> ActionButton {
    let effect = format!(
        "The traffic stays as it is ({}) until a person resumes. A failed analysis still rolls back.",
        split_text(view)
    );
    act(view, "Pause", "pause", effect)
}

fn resume(view: &RolloutView) -> ActionButton {
    let effect =
        "The rollout continues where it was paused, with the step that is marked in the plan.";
    ActionButton {
        reason: ReasonField::Absent,
        tone: ButtonTone::Strong,
        ..act(view, "Resume", "resume", effect.to_owned())
    }
}

fn promote(view: &RolloutView) -> ActionButton {
    let effect = format!(
        "The remaining holds are skipped: {} gets all traffic of {} as soon as its instances are ready, without waiting for more evidence.",
        view.release, view.environment
    );
    act(view, "Promote", "promote", effect)
}

fn abort(view: &RolloutView) -> ActionButton {
    let effect = match view.stable {
        Some(stable) => format!(
            "All traffic of {} returns to {stable} immediately, and {} is stopped. The environment is then held: releases wait until a person resumes it.",
            view.environment, view.release
        ),
        None => format!(
            "{} is removed again: {} has no earlier release, so it then serves nothing.",
            view.release, view.environment
        ),
    };
    let label = match view.stable {
        Some(_) => "Abort and roll back",
        None => "Abort",
    };
    ActionButton {
        tone: ButtonTone::Strong,
        ..act(view, label, "abort", effect)
    }
}

fn stop_retrying(view: &RolloutView) -> ActionButton {
    let effect = format!(
        "The rollback is not retried any more: traffic stays where it is ({}), and the rollout ends as failed.",
        split_text(view)
    );
    act(view, "Stop retrying", "abort", effect)
}

fn retry(view: &RolloutView) -> ActionButton {
    let what = match view.kind {
        RolloutKind::Rollback => "the rollback to",
        RolloutKind::Deploy | RolloutKind::Retry => "the rollout of",
    };
    let effect = format!(
        "A new rollout begins: {what} {} into {}, with all steps of its plan and new evidence. It is marked as a retry of {}.",
        view.release, view.environment, view.id
    );
    act(view, "Retry", "retry", effect)
}

/// Back to the release before a promoted one, as long as no later rollout has replaced that.
fn rollback(view: &RolloutView, successor: RolloutSuccessor) -> Option<ActionButton> {
    let stable = view
        .stable
        .filter(|_| successor == RolloutSuccessor::None)?;
    let (service, environment) = (&view.id.service, &view.environment);
    Some(ActionButton {
        label: "Roll back",
        address: format!("/api/v1/services/{service}/rollbacks"),
        body: json!({ "environment": environment, "release": stable.0 }),
        effect: format!(
            "A new rollout begins: {environment} is rolled back from {} to {stable}, without steps and analysis if that was stable recently. It is marked as a rollback, and the environment is held until a person resumes it.",
            view.release
        ),
        command: format!(
            "shipway rollback {service} --env {environment} --release {}",
            stable.0
        ),
        reason: ReasonField::Optional,
        tone: ButtonTone::Strong,
    })
}

fn describe_remaining(view: &RolloutView) -> String {
    match view.stable {
        Some(stable) => format!("{stable} stays"),
        None => "it stays empty".to_owned(),
    }
}

/// `10% to #5, 90% to #4`.
fn split_text(view: &RolloutView) -> String {
    let shares = view
        .split
        .releases()
        .filter(|(_, weight)| !weight.is_zero());
    let shares: Vec<String> = shares
        .map(|(release, weight)| format!("{weight} to {release}"))
        .collect();
    match shares.is_empty() {
        true => "none".to_owned(),
        false => shares.join(", "),
    }
}
