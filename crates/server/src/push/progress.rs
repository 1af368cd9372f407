//! Prints the progress of a push to the pusher's terminal until the push has ended, waits for a person, or would take minutes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use shipway_core::{
    aggregate::Event,
    config::ServiceConfig,
    duration_text::DurationText,
    ids::{
        EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber, RunId, RunNumber, ServiceName,
    },
    release::Release,
    rollout::{
        self, PlanDirection, RolloutOutcome, RolloutPause, RolloutSpec,
        plan::{HoldReason, PlanAction, RolloutPlan},
    },
    run,
    service::{self, EnvironmentHold, RunOrder, RunPurpose, WaitsFor},
};
use shipway_engine::Recorded;
use shipway_workflow::job::Conclusion;

use super::{FollowedPushes, PushReceiver, PushTerminal};
use crate::{capabilities::ServerAddresses, failure_summary};

/// The push does not wait for a longer hold, which would block the pusher's terminal for minutes.
const HOLD_WAIT_MAX: Duration = Duration::from_secs(60);

/// Prints the events that the followed pushes cause, from the log's `position` on.
pub(super) async fn print_until_done(
    receiver: &PushReceiver,
    followed: &FollowedPushes,
    position: u64,
    terminal: &PushTerminal,
) {
    let mut all: Vec<(PushProgress, &PushTerminal)> = followed
        .iter()
        .map(|(service, pushes)| {
            let progress = PushProgress::new(&receiver.server, service, &pushes.numbers);
            (progress, &pushes.terminal)
        })
        .collect();
    let mut log = match receiver.store.subscribe(position).await {
        Ok(log) => log,
        Err(error) => return terminal.line(format!("progress can't be shown here ({error}); the rollouts continue: shipway status --all")).await,
    };
    while !all.is_empty() {
        let recorded = tokio::select! {
            () = terminal.gone() => return,
            recorded = log.next() => recorded,
        };
        let Some(Ok(recorded)) = recorded else { return };
        for (progress, terminal) in &mut all {
            progress.print_event(receiver, &recorded, terminal).await;
        }
        all.retain(|(progress, _)| !progress.is_complete());
    }
}

/// The state of the pushes, folded from the log's events.
struct PushProgress {
    service: ServiceName,
    prefix: [String; 3],
    url: String,
    proxy_address: SocketAddr,
    pushes: BTreeSet<u64>,
    runs: BTreeSet<RunNumber>,
    releases: BTreeMap<ReleaseNumber, ServiceConfig>,
    rollouts: BTreeMap<RolloutNumber, RolloutPlan>,
    /// Releases of these pushes that were requested for an environment and have not started.
    queued: BTreeSet<(EnvironmentName, ReleaseNumber)>,
    /// A release is stable in the last environment. A run may still be running: a step of it may have deployed the release.
    arrived: bool,
    /// Nothing more is worth waiting for: the push ended, waits for a person, or holds for long.
    is_reported: bool,
    /// A run whose failure is still to be explained.
    failed_run: Option<RunId>,
}

impl PushProgress {
    fn new(server: &ServerAddresses, service: &ServiceName, pushes: &[u64]) -> Self {
        Self {
            service: service.clone(),
            prefix: ["service", "run", "rollout"].map(|kind| format!("{kind}/{service}")),
            url: server.url.clone(),
            proxy_address: server.proxy_address,
            pushes: pushes.iter().copied().collect(),
            runs: BTreeSet::new(),
            releases: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            queued: BTreeSet::new(),
            arrived: false,
            is_reported: false,
            failed_run: None,
        }
    }

    /// Prints what an event of the log means for these pushes.
    async fn print_event(
        &mut self,
        receiver: &PushReceiver,
        recorded: &Recorded,
        terminal: &PushTerminal,
    ) {
        let lines = self.handle_event(recorded);
        if let Some(id) = self.failed_run.take() {
            let summary = failure_summary::read_summary(&*receiver.store, &*receiver.jobs, &id);
            for line in summary.await.into_iter().flatten() {
                terminal.line(format!("  {line}")).await;
            }
        }
        for line in lines {
            terminal.line(line).await;
        }
    }

    /// Whether nothing more happens automatically, or not soon.
    fn is_complete(&self) -> bool {
        self.is_reported || self.pushes.is_empty() || (self.arrived && self.runs.is_empty())
    }

    /// The lines to print for an event.
    fn handle_event(&mut self, recorded: &Recorded) -> Vec<String> {
        let [service, run, rollout] = &self.prefix;
        if recorded.stream == *service {
            return read(recorded)
                .map(|event| self.service_event(&event))
                .unwrap_or_default();
        }
        let numbered = |prefix: &String| {
            recorded
                .stream
                .strip_prefix(prefix.as_str())?
                .strip_prefix('/')?
                .parse::<u32>()
                .ok()
        };
        if let Some(number) = numbered(run)
            .map(RunNumber)
            .filter(|number| self.runs.contains(number))
        {
            let event = read::<run::RunEvent>(recorded);
            // Print manual approvals and return; don't block the push on them.
            if let Some(run::RunEvent::Gate(fact)) = event.as_ref().map(|event| &event.body)
                && matches!(**fact, run::GateFact::ApprovalRequested { .. })
            {
                self.is_reported = true;
            }
            let lines = event
                .map(|event| run::story_lines(&event.body))
                .unwrap_or_default();
            return lines
                .into_iter()
                .map(|line| format!("{number}   {line}"))
                .collect();
        }
        if let Some(number) = numbered(rollout)
            .map(RolloutNumber)
            .filter(|number| self.rollouts.contains_key(number))
        {
            return read(recorded)
                .map(|event| self.rollout_event(number, &event))
                .unwrap_or_default();
        }
        Vec::new()
    }

    fn service_event(&mut self, event: &Event<service::ServiceEvent>) -> Vec<String> {
        use service::ServiceEvent;
        match &event.body {
            ServiceEvent::RunOrdered { order } => self.run_ordered(order),
            ServiceEvent::RunEnded {
                number, conclusion, ..
            } if self.runs.remove(number) => self.run_ended(*number, *conclusion),
            ServiceEvent::PushNotReleased { sequence, why } if self.pushes.remove(sequence) => {
                vec![format!("not released: {why}")]
            }
            ServiceEvent::ReleaseCreated { release, .. }
                if self.pushes.contains(&release.sequence) =>
            {
                self.release_created(release)
            }
            ServiceEvent::RequestDropped {
                release,
                replaced_by,
                ..
            } if Some(*release) == *replaced_by => Vec::new(),
            ServiceEvent::RequestDropped {
                release,
                environment,
                why,
                ..
            } if self.releases.contains_key(release) => {
                self.is_reported = true;
                vec![format!("{release} is not deployed to {environment}: {why}")]
            }
            ServiceEvent::RolloutRequested { request, waits_for }
                if self.releases.contains_key(&request.release.number) =>
            {
                let release = request.release.number;
                self.rollout_requested(&request.environment, release, waits_for.as_ref())
            }
            ServiceEvent::EnvironmentHeld {
                environment,
                reason,
            } => {
                let hold = EnvironmentHold {
                    since: event.at,
                    by: event.by.to_string(),
                    reason: reason.clone(),
                };
                let mut queued = self.queued.iter();
                let release = queued.find(|(name, _)| name == environment);
                match release.map(|(_, release)| *release) {
                    Some(release) => self.held(environment, release, &hold),
                    None => Vec::new(),
                }
            }
            event => self.rollout_of_service_event(event),
        }
    }

    fn run_ended(&mut self, number: RunNumber, conclusion: Conclusion) -> Vec<String> {
        if conclusion == Conclusion::Success {
            return vec![format!("✓ run {number} succeeded")];
        }
        let service = self.service.clone();
        self.failed_run = Some(RunId { service, number });
        vec![format!("✗ run {number} failed")]
    }

    /// Events of a service about rollouts that have been ordered.
    fn rollout_of_service_event(&mut self, event: &service::ServiceEvent) -> Vec<String> {
        use service::ServiceEvent;
        match event {
            ServiceEvent::RolloutOrdered { spec, .. }
                if self.releases.contains_key(&spec.release().number) =>
            {
                self.rollout_ordered(spec)
            }
            ServiceEvent::Promoted {
                environment,
                rollout,
                release,
            } if self.rollouts.contains_key(rollout) => self.promoted(environment, release),
            ServiceEvent::PromotionBlocked { release, why, .. }
                if self.releases.contains_key(release) =>
            {
                self.is_reported = true;
                vec![format!("✗ {release} is not deployed further: {why}")]
            }
            ServiceEvent::RolloutEnded {
                number,
                outcome,
                why,
                ..
            } if self.rollouts.contains_key(number) => match outcome {
                RolloutOutcome::Promoted => Vec::new(),
                RolloutOutcome::RolledBack
                | RolloutOutcome::Aborted
                | RolloutOutcome::Rejected
                | RolloutOutcome::Superseded
                | RolloutOutcome::Failed => {
                    self.is_reported = true;
                    vec![format!("✗ rollout {number} {outcome}: {why}")]
                }
            },
            _ => Vec::new(),
        }
    }

    fn run_ordered(&mut self, order: &RunOrder) -> Vec<String> {
        let is_followed = match &order.purpose {
            RunPurpose::Push { sequence } => self.pushes.contains(sequence),
            RunPurpose::Tests { release, .. } => self.releases.contains_key(release),
            RunPurpose::Dispatch | RunPurpose::ByItself | RunPurpose::PullRequest { .. } => false,
        };
        if !is_followed {
            return Vec::new();
        }
        self.runs.insert(order.number);
        let RunPurpose::Tests { environment, .. } = &order.purpose else {
            return Vec::new();
        };
        let address = format!("{}/runs/{}/{}", self.url, self.service, order.number.0);
        vec![format!(
            "run {} · tests of {environment} · {} · {address}",
            order.number, order.workflow.path
        )]
    }

    fn release_created(&mut self, release: &Release) -> Vec<String> {
        let environments = release.config.environments.iter();
        let order: Vec<_> = environments
            .map(|it| format!("{} ({})", it.name, it.strategy.keyword()))
            .collect();
        self.releases.insert(release.number, release.config.clone());
        vec![format!(
            "release {} → {}",
            release.number,
            order.join(" → ")
        )]
    }

    fn rollout_requested(
        &mut self,
        environment: &EnvironmentName,
        release: ReleaseNumber,
        waits_for: Option<&WaitsFor>,
    ) -> Vec<String> {
        self.queued.insert((environment.clone(), release));
        match waits_for {
            Some(WaitsFor::Hold(hold)) => self.held(environment, release, hold),
            Some(WaitsFor::Rollout {
                number,
                kind,
                release: other,
            }) => vec![format!(
                "{release} is queued for {environment}, behind {kind} {number} of {other}"
            )],
            None => Vec::new(),
        }
    }

    fn rollout_ordered(&mut self, spec: &RolloutSpec) -> Vec<String> {
        let (number, environment) = (spec.id.number, &spec.environment.name);
        let release = spec.release().number;
        self.queued.remove(&(environment.clone(), release));
        self.rollouts.insert(number, RolloutPlan::default());
        let address = format!("{}/rollouts/{}/{}", self.url, self.service, number.0);
        vec![format!(
            "rollout {number} · {release} → {environment} · {address}"
        )]
    }

    /// A person holds the environment: the release waits until it is resumed.
    fn held(
        &mut self,
        environment: &EnvironmentName,
        release: ReleaseNumber,
        hold: &EnvironmentHold,
    ) -> Vec<String> {
        self.is_reported = true;
        vec![
            format!("{release} is queued, it is not deployed to {environment} now"),
            hold.describe(&self.service, environment),
        ]
    }

    fn promoted(&mut self, environment: &EnvironmentName, release: &Release) -> Vec<String> {
        let Some(config) = self.releases.get(&release.number) else {
            return Vec::new();
        };
        self.arrived = release.environment_after(environment).is_none();
        let place = release.service_environment(environment);
        let configured = config
            .environments
            .iter()
            .find(|it| it.name == *environment);
        let address = configured.map_or_else(String::new, |configured| {
            let addresses = configured.addresses(&place);
            let url = addresses.url(self.proxy_address);
            let local = addresses.local_url(self.proxy_address);
            match local.filter(|local| *local != url) {
                Some(local) => format!("{url} (also {local})"),
                None => url,
            }
        });
        vec![format!(
            "✓ {} serves {environment}: {address}",
            release.number
        )]
    }

    fn rollout_event(
        &mut self,
        number: RolloutNumber,
        event: &Event<rollout::RolloutEvent>,
    ) -> Vec<String> {
        use rollout::RolloutEvent;
        let Some(plan) = self.rollouts.get_mut(&number) else {
            return Vec::new();
        };
        let text = |plan: &RolloutPlan, index: usize| {
            plan.actions
                .get(index)
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        match &event.body {
            RolloutEvent::Planned {
                direction,
                plan: new,
                cause: _,
                why,
            } => {
                *plan = new.clone();
                let mut lines = Vec::new();
                if *direction == PlanDirection::Back {
                    lines.push(format!("{number}  ↩ rolling back: {why}"));
                }
                lines.extend(new.notes.iter().map(|note| format!("{number}  {note}")));
                self.wait_at(number, 0, lines)
            }
            RolloutEvent::ActionDone { index, note, .. } => {
                let note = note
                    .as_ref()
                    .map(|note| format!(" ({note})"))
                    .unwrap_or_default();
                let lines = vec![format!("{number}  ✓ {}{note}", text(plan, *index))];
                self.wait_at(number, index + 1, lines)
            }
            RolloutEvent::ActionFailed { index, why, .. } => {
                vec![format!("{number}  ✗ {}: {why}", text(plan, *index))]
            }
            RolloutEvent::Paused { reason, .. } => {
                self.is_reported = true;
                let id = self.rollout_id(number);
                vec![
                    format!("{number}  paused: {reason}"),
                    format!("{number}    {}", RolloutPause::commands(&id)),
                ]
            }
            _ => Vec::new(),
        }
    }

    fn rollout_id(&self, number: RolloutNumber) -> RolloutId {
        RolloutId {
            service: self.service.clone(),
            number,
        }
    }

    /// Ends the wait at an action that takes a person or minutes; the line says how to continue.
    fn wait_at(
        &mut self,
        number: RolloutNumber,
        index: usize,
        mut lines: Vec<String>,
    ) -> Vec<String> {
        match self
            .rollouts
            .get(&number)
            .and_then(|plan| plan.actions.get(index))
        {
            Some(PlanAction::Ask { gate }) => {
                self.is_reported = true;
                lines.push(format!(
                    "{number}  waiting for {gate}: shipway approve {}",
                    self.rollout_id(number)
                ));
            }
            // A hold that keeps the old release warm blocks nothing: the new one is already promoted.
            Some(PlanAction::Hold {
                duration,
                why: HoldReason::Evidence | HoldReason::Time,
            }) if *duration > HOLD_WAIT_MAX => {
                self.is_reported = true;
                lines.push(format!(
                    "{number}  holding for {}, continues automatically: shipway watch {}",
                    DurationText(*duration),
                    self.rollout_id(number)
                ));
            }
            _ => {}
        }
        lines
    }
}

fn read<B: DeserializeOwned>(recorded: &Recorded) -> Option<Event<B>> {
    serde_json::from_str(&recorded.event).ok()
}
