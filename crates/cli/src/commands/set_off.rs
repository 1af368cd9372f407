//! What a deploy, a rollback or a retry set off: said in a line, and followed.

use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::{EnvironmentName, ReleaseNumber, ServiceName},
    rollout::{self, RolloutView},
    service::{EnvironmentHold, ServiceView, WaitsFor},
};

use super::{
    ids::{Kind, Page, path_of},
    watch::{self, Hope, LOOK},
};
use crate::{
    client::Server,
    exit::Failure,
    print::{Output, line},
};

/// What a deploy, a rollback or a retry set off.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SetOff {
    service: Option<ServiceName>,
    environment: Option<EnvironmentName>,
    kind: Option<rollout::RolloutKind>,
    release: Option<ReleaseNumber>,
    replaces: Option<ReleaseNumber>,
    rollouts: Vec<String>,
    queued: bool,
    waits_for: Option<WaitsFor>,
    making_way: Option<String>,
    hold: Option<EnvironmentHold>,
    unchanged: bool,
    dropped: Option<String>,
}

/// Says what follows, and follows it.
pub(super) fn show(
    server: &Server,
    answer: &SetOff,
    follow: bool,
    output: Output,
) -> Result<(), Failure> {
    if let Some(why) = &answer.dropped {
        return Err(Failure::Failed(format!("nothing is rolled out: {why}")));
    }
    if output.json && !follow {
        return output.document(answer);
    }
    if !output.json {
        for text in answer.lines() {
            line(&text);
        }
    }
    match answer.rollouts.first().or(answer.making_way.as_ref()) {
        Some(rollout) if follow && answer.queued => {
            watch::follow(server, rollout, Hope::Over, output)?;
            follow_queued(server, rollout, answer, output)
        }
        Some(rollout) if follow && answer.rollouts.is_empty() => {
            watch::follow(server, rollout, Hope::Back, output)
        }
        Some(rollout) if follow => watch::follow(server, rollout, Hope::Promoted, output),
        _ => Ok(()),
    }
}

impl SetOff {
    fn lines(&self) -> Vec<String> {
        let what = self.what();
        let running = self.rollouts.first().or(self.making_way.as_ref());
        let mut lines = vec![match (running, self.queued) {
            (Some(rollout), false) if self.unchanged => {
                format!("{what} already: shipway watch {rollout}")
            }
            (Some(rollout), false) if self.rollouts.is_empty() => {
                format!("{what}: {rollout} goes back; shipway watch {rollout}")
            }
            (Some(rollout), false) => {
                format!("{what}: rollout {rollout} has begun; shipway watch {rollout}")
            }
            (_, true) => format!("{what}: {}", self.queued_behind()),
            (None, false) => "nothing changes".to_owned(),
        }];
        lines.extend(self.hold_line());
        lines
    }

    /// `rolling back shop in production from #4 to #3`.
    fn what(&self) -> String {
        let or = |text: Option<String>, other: &str| text.unwrap_or_else(|| other.to_owned());
        let service = or(self.service.as_ref().map(ToString::to_string), "it");
        let environment = or(self.environment.as_ref().map(ToString::to_string), "–");
        let release = or(self.release.map(|it| it.to_string()), "its release");
        let replaced = self.replaces.map(|it| it.to_string());
        match (self.kind, replaced) {
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

    fn queued_behind(&self) -> String {
        let behind = match &self.waits_for {
            Some(WaitsFor::Rollout {
                number,
                kind,
                release,
            }) => format!("queued behind {kind} {number} of {release}"),
            Some(WaitsFor::Hold(hold)) => format!("waits, the environment is {hold}"),
            None => "queued".to_owned(),
        };
        match &self.making_way {
            Some(rollout) => format!("{behind}; {rollout} makes way"),
            None => behind,
        }
    }

    /// A hold stays whatever a person deploys: it stops what goes in by itself.
    fn hold_line(&self) -> Option<String> {
        let (hold, service) = (self.hold.as_ref()?, self.service.as_ref()?);
        let environment = self.environment.as_ref()?;
        let sentence = hold.sentence(service, environment);
        Some(format!("newer releases wait: {sentence}"))
    }
}

/// Follows the rollout that waited for `before` to end.
fn follow_queued(
    server: &Server,
    before: &str,
    answer: &SetOff,
    output: Output,
) -> Result<(), Failure> {
    let path = path_of(server, before, Kind::Rollout)?;
    let before: RolloutView = server.get(&format!("/api/v1/rollouts/{path}"))?;
    let service = &before.id.service;
    loop {
        let all: Page<RolloutView> =
            server.get(&format!("/api/v1/rollouts?service={service}&limit=100"))?;
        let ours = |view: &&RolloutView| {
            view.id.number > before.id.number
                && view.environment == before.environment
                && Some(view.release) == answer.release
        };
        if let Some(view) = all.items.iter().find(ours) {
            return watch::follow(server, &view.id.to_string(), Hope::Promoted, output);
        }
        let now: ServiceView = server.get(&format!("/api/v1/services/{service}"))?;
        let waits = now.environments.iter().any(|place| {
            // A rollout that has just been ordered is not among the rollouts yet.
            let is_next = place.coming == answer.release
                || place.queue.iter().any(|it| Some(*it) == answer.release);
            place.name == before.environment && is_next
        });
        if !waits {
            return Err(Failure::Failed(
                "it lost its place in the queue to a newer one".to_owned(),
            ));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_off() -> SetOff {
        SetOff {
            service: "shop".parse().ok(),
            environment: "production".parse().ok(),
            kind: Some(rollout::RolloutKind::Rollback),
            release: Some(ReleaseNumber(3)),
            replaces: Some(ReleaseNumber(4)),
            rollouts: vec!["shop/ro6".to_owned()],
            queued: false,
            waits_for: None,
            making_way: None,
            hold: None,
            unchanged: false,
            dropped: None,
        }
    }

    #[test]
    fn a_rollback_says_which_release_replaces_which_and_who_holds_the_environment() {
        let mut answer = set_off();
        answer.hold = Some(EnvironmentHold {
            since: "2026-11-21T09:00:00Z".parse().unwrap(),
            by: "ann".to_owned(),
            reason: "customers call".to_owned(),
        });
        assert_eq!(
            answer.lines(),
            [
                "rolling back shop in production from #4 to #3: rollout shop/ro6 has begun; shipway watch shop/ro6",
                "newer releases wait: production is held by ann since 2026-11-21 09:00:00 UTC, because: customers call; resume: shipway resume shop --env production",
            ]
        );
    }

    #[test]
    fn what_is_queued_says_behind_what_and_what_was_asked_twice_says_so() {
        let queued = SetOff {
            kind: Some(rollout::RolloutKind::Deploy),
            release: Some(ReleaseNumber(5)),
            queued: true,
            rollouts: Vec::new(),
            waits_for: Some(WaitsFor::Rollout {
                number: "ro6".parse().unwrap(),
                kind: rollout::RolloutKind::Rollback,
                release: ReleaseNumber(3),
            }),
            ..set_off()
        };
        assert_eq!(
            queued.lines(),
            ["deploying shop #5 to production, replacing #4: queued behind rollback ro6 of #3"]
        );
        let twice = SetOff {
            unchanged: true,
            ..set_off()
        };
        assert_eq!(
            twice.lines(),
            ["rolling back shop in production from #4 to #3 already: shipway watch shop/ro6"]
        );
    }
}
