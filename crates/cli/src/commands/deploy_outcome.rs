//! The outcome of a deploy, a rollback or a retry: shown in a line, and followed.

use shipway_api::{ApiClient, DeployOutcome};
use shipway_core::{rollout, service::WaitsFor};

use super::{
    id_args::rollout_id,
    watch::{self, ExpectedEnd, LOOK},
};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line},
};

/// Whether a command follows the rollout that it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Yes,
    No,
}

impl From<bool> for Watch {
    fn from(watch: bool) -> Self {
        if watch { Self::Yes } else { Self::No }
    }
}

/// Shows the outcome, and follows the rollout with `--watch`.
pub(super) fn show(
    server: &ServerConnection,
    outcome: &DeployOutcome,
    watch: Watch,
    output: Output,
) -> Result<(), Failure> {
    if let Some(why) = &outcome.dropped {
        return Err(Failure::Failed(format!("not deployed: {why}")));
    }
    if output.json && watch == Watch::No {
        return output.document(outcome);
    }
    if !output.json {
        for text in outcome_lines(outcome) {
            line(&text);
        }
    }
    let rollout = outcome.rollouts.first().or(outcome.making_way.as_ref());
    let Some(rollout) = rollout.filter(|_| watch == Watch::Yes) else {
        return Ok(());
    };
    if outcome.queued {
        watch::follow(server, rollout, ExpectedEnd::Over, output)?;
        return follow_queued(server, rollout, outcome, output);
    }
    let hope = if outcome.rollouts.is_empty() {
        ExpectedEnd::Back
    } else {
        ExpectedEnd::Promoted
    };
    watch::follow(server, rollout, hope, output)
}

fn outcome_lines(outcome: &DeployOutcome) -> Vec<String> {
    let what = request_text(outcome);
    let running = outcome.rollouts.first().or(outcome.making_way.as_ref());
    let mut lines = vec![match (running, outcome.queued) {
        (Some(rollout), false) if outcome.unchanged => {
            format!("{what}, already in progress: shipway watch {rollout}")
        }
        (Some(rollout), false) if outcome.rollouts.is_empty() => {
            format!("{what}: {rollout} is rolling back; follow it: shipway watch {rollout}")
        }
        (Some(rollout), false) => {
            format!("{what}: rollout {rollout} started; follow it: shipway watch {rollout}")
        }
        (_, true) => format!("{what}: {}", queue_text(outcome)),
        (None, false) => "nothing changes".to_owned(),
    }];
    let withdrawn = outcome.withdrawn.iter();
    lines.extend(withdrawn.map(|rollout| {
        format!("rollout {rollout} of the same release is rolling back too; follow it: shipway watch {rollout}")
    }));
    lines.extend(hold_line(outcome));
    lines
}

/// `rolling back shop in production from #4 to #3`.
fn request_text(outcome: &DeployOutcome) -> String {
    let or = |text: Option<String>, other: &str| text.unwrap_or_else(|| other.to_owned());
    let service = or(outcome.service.as_ref().map(ToString::to_string), "it");
    let environment = or(outcome.environment.as_ref().map(ToString::to_string), "–");
    let release = or(outcome.release.map(|it| it.to_string()), "its release");
    let replaced = outcome.replaces.map(|it| it.to_string());
    match (outcome.kind, replaced) {
        (Some(rollout::RolloutKind::Rollback), Some(from)) => {
            format!("rolling back {service} in {environment} from {from} to {release}")
        }
        (Some(rollout::RolloutKind::Rollback), None) => {
            format!("rolling back {service} in {environment} to {release}")
        }
        (kind, replaced) => {
            let verb = match kind {
                Some(rollout::RolloutKind::Retry) => "retrying",
                Some(rollout::RolloutKind::Deploy | rollout::RolloutKind::Rollback) | None => {
                    "deploying"
                }
            };
            let replaced = replaced.map(|it| format!(", replacing {it}"));
            let replaced = replaced.unwrap_or_default();
            format!("{verb} {service} {release} to {environment}{replaced}")
        }
    }
}

fn queue_text(outcome: &DeployOutcome) -> String {
    let behind = match &outcome.waits_for {
        Some(WaitsFor::Rollout {
            number,
            kind,
            release,
        }) => format!("queued behind {kind} {number} of {release}"),
        Some(WaitsFor::Hold(hold)) => format!("waits, the environment is {hold}"),
        None => "queued".to_owned(),
    };
    match &outcome.making_way {
        Some(rollout) => format!("{behind}; {rollout} is being ended to make room"),
        None => behind,
    }
}

/// A hold stays when a person deploys: it stops only automatic rollouts.
fn hold_line(outcome: &DeployOutcome) -> Option<String> {
    let (hold, service) = (outcome.hold.as_ref()?, outcome.service.as_ref()?);
    let environment = outcome.environment.as_ref()?;
    let sentence = hold.describe(service, environment);
    Some(format!("newer releases are queued: {sentence}"))
}

/// Follows the rollout that waited for `before` to end.
fn follow_queued(
    server: &ServerConnection,
    before: &str,
    outcome: &DeployOutcome,
    output: Output,
) -> Result<(), Failure> {
    let before = server.rollout(&rollout_id(server, before)?)?;
    let service = &before.id.service;
    loop {
        let all = server.rollouts(service.as_str(), 100)?;
        let ours = |view: &&rollout::RolloutView| {
            view.id.number > before.id.number
                && view.environment == before.environment
                && Some(view.release) == outcome.release
        };
        if let Some(view) = all.iter().find(ours) {
            return watch::follow(server, &view.id.to_string(), ExpectedEnd::Promoted, output);
        }
        let now = server.service(service.as_str())?;
        let waits = now.environments.iter().any(|place| {
            // A rollout that has just been ordered is not among the rollouts yet.
            let is_next = place.coming == outcome.release
                || place.queue.iter().any(|it| Some(*it) == outcome.release);
            place.name == before.environment && is_next
        });
        if !waits {
            return Err(Failure::Failed(
                "a newer one replaced it in the queue".to_owned(),
            ));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use shipway_core::{ids::ReleaseNumber, service::EnvironmentHold};

    use super::*;

    fn rollback() -> DeployOutcome {
        DeployOutcome {
            service: "shop".parse().ok(),
            environment: "production".parse().ok(),
            kind: Some(rollout::RolloutKind::Rollback),
            release: Some(ReleaseNumber(3)),
            replaces: Some(ReleaseNumber(4)),
            rollouts: vec!["shop/ro6".to_owned()],
            queued: false,
            waits_for: None,
            making_way: None,
            withdrawn: Vec::new(),
            hold: None,
            unchanged: false,
            dropped: None,
        }
    }

    #[test]
    fn a_rollback_says_which_release_replaces_which_and_who_holds_the_environment() {
        let mut outcome = rollback();
        outcome.withdrawn = vec!["shop/ro7".to_owned()];
        outcome.hold = Some(EnvironmentHold {
            since: "2026-11-21T09:00:00Z".parse().unwrap(),
            by: "ann".to_owned(),
            reason: "customers call".to_owned(),
        });
        assert_eq!(
            outcome_lines(&outcome),
            [
                "rolling back shop in production from #4 to #3: rollout shop/ro6 started; follow it: shipway watch shop/ro6",
                "rollout shop/ro7 of the same release is rolling back too; follow it: shipway watch shop/ro7",
                "newer releases are queued: production is held by ann since 2026-11-21 09:00:00 UTC: customers call; resume: shipway resume shop --env production",
            ]
        );
    }

    #[test]
    fn what_is_queued_says_behind_what_and_what_was_asked_twice_says_so() {
        let queued = DeployOutcome {
            kind: Some(rollout::RolloutKind::Deploy),
            release: Some(ReleaseNumber(5)),
            queued: true,
            rollouts: Vec::new(),
            waits_for: Some(WaitsFor::Rollout {
                number: "ro6".parse().unwrap(),
                kind: rollout::RolloutKind::Rollback,
                release: ReleaseNumber(3),
            }),
            ..rollback()
        };
        assert_eq!(
            outcome_lines(&queued),
            ["deploying shop #5 to production, replacing #4: queued behind rollback ro6 of #3"]
        );
        let twice = DeployOutcome {
            unchanged: true,
            ..rollback()
        };
        assert_eq!(
            outcome_lines(&twice),
            [
                "rolling back shop in production from #4 to #3, already in progress: shipway watch shop/ro6"
            ]
        );
    }
}
