//! The progress of a push as it happens, for the pusher's terminal: until it is settled, waits for people, or would take long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use shipway_core::{
    address::EnvironmentAddresses,
    aggregate::Event,
    config::ServiceConfig,
    ids::{
        EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber, RunId, RunNumber, ServiceName,
    },
    rollout::{
        self, PlanDirection, RolloutOutcome, RolloutPause,
        plan::{HoldReason, PlanAction, RolloutPlan, Span},
    },
    run,
    service::{self, EnvironmentHold, RunPurpose, WaitsFor},
};
use shipway_engine::Recorded;
use shipway_workflow::job::Conclusion;

use super::PushTerminal;
use crate::{app::App, failure_summary};

/// A hold longer than this is not waited for: nobody wants their terminal blocked for minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows what follows from the pushes with these numbers, from the log's `position` on.
pub(super) async fn print_until_done(
    app: &Arc<App>,
    service: &ServiceName,
    pushes: &[u64],
    position: u64,
    terminal: &PushTerminal,
) {
    let mut progress = PushProgress::new(app, service, pushes);
    let mut log = match app.store.subscribe(position).await {
        Ok(log) => log,
        Err(error) => return terminal.line(format!("the progress can't be told ({error}); it goes on all the same: shipway status {service}")).await,
    };
    loop {
        let recorded = tokio::select! {
            () = terminal.gone() => return,
            recorded = log.next() => recorded,
        };
        let Some(Ok(recorded)) = recorded else { return };
        let lines = progress.handle_event(&recorded);
        if let Some(id) = progress.red.take() {
            for line in failure_summary::read_summary(app, &id)
                .await
                .into_iter()
                .flatten()
            {
                terminal.line(format!("  {line}")).await;
            }
        }
        for line in lines {
            terminal.line(line).await;
        }
        if progress.is_complete() {
            return;
        }
    }
}

/// What is known of the pushes so far.
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
    /// In the last environment; where a step of a run did that, the run goes on.
    arrived: bool,
    told: bool,
    /// A run that was just heard to have failed.
    red: Option<RunId>,
}

impl PushProgress {
    fn new(app: &App, service: &ServiceName, pushes: &[u64]) -> Self {
        Self {
            service: service.clone(),
            prefix: ["service", "run", "rollout"].map(|kind| format!("{kind}/{service}")),
            url: app.url.clone(),
            proxy_address: app.proxy_address,
            pushes: pushes.iter().copied().collect(),
            runs: BTreeSet::new(),
            releases: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            queued: BTreeSet::new(),
            arrived: false,
            told: false,
            red: None,
        }
    }

    /// Nothing more will happen by itself, or not soon.
    fn is_complete(&self) -> bool {
        self.told || self.pushes.is_empty() || (self.arrived && self.runs.is_empty())
    }

    /// The lines that a fact is worth.
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
            // What takes people is announced and not waited for.
            if let Some(run::RunEvent::Gate(fact)) = event.as_ref().map(|event| &event.body)
                && matches!(**fact, run::GateFact::ApprovalAsked { .. })
            {
                self.told = true;
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
            ServiceEvent::RunOrdered { order } => {
                let ours = match &order.purpose {
                    RunPurpose::Push { sequence } => self.pushes.contains(sequence),
                    RunPurpose::Tests { release, .. } => self.releases.contains_key(release),
                    RunPurpose::Dispatch | RunPurpose::ByItself => false,
                };
                if ours {
                    self.runs.insert(order.number);
                }
                if let (true, RunPurpose::Tests { environment, .. }) = (ours, &order.purpose) {
                    let address = format!("{}/runs/{}/{}", self.url, self.service, order.number.0);
                    return vec![format!(
                        "run {} · tests of {environment} · {} · {address}",
                        order.number, order.workflow.path
                    )];
                }
                Vec::new()
            }
            ServiceEvent::RunEnded {
                number, conclusion, ..
            } if self.runs.remove(number) => {
                let is_green = *conclusion == Conclusion::Success;
                self.red = (!is_green).then(|| RunId {
                    service: self.service.clone(),
                    number: *number,
                });
                vec![format!(
                    "{} run {number} is {}",
                    mark(is_green),
                    if is_green { "green" } else { "red" }
                )]
            }
            ServiceEvent::PushSettled { sequence, why } if self.pushes.remove(sequence) => {
                vec![format!("nothing is released: {why}")]
            }
            ServiceEvent::ReleaseMade { release, .. }
                if self.pushes.contains(&release.sequence) =>
            {
                let order: Vec<_> = release
                    .config
                    .environments
                    .iter()
                    .map(|it| format!("{} ({})", it.name, it.strategy.keyword()))
                    .collect();
                self.releases.insert(release.number, release.config.clone());
                vec![format!(
                    "release {} → {}",
                    release.number,
                    order.join(" → ")
                )]
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
                self.told = true;
                vec![format!("{release} does not go to {environment}: {why}")]
            }
            ServiceEvent::RolloutRequested { request, waits_for }
                if self.releases.contains_key(&request.release.number) =>
            {
                let (environment, release) = (&request.environment, request.release.number);
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
            ServiceEvent::EnvironmentHeld {
                environment,
                reason,
            } => {
                let mut queued = self.queued.iter();
                let ours = queued.find(|(name, _)| name == environment);
                let hold = EnvironmentHold {
                    since: event.at,
                    by: event.by.to_string(),
                    reason: reason.clone(),
                };
                match ours.map(|(_, release)| *release) {
                    Some(release) => self.held(environment, release, &hold),
                    None => Vec::new(),
                }
            }
            ServiceEvent::RolloutOrdered { spec, .. }
                if self.releases.contains_key(&spec.release.number) =>
            {
                self.queued
                    .remove(&(spec.environment.name.clone(), spec.release.number));
                self.rollouts.insert(spec.id.number, RolloutPlan::default());
                let address = format!(
                    "{}/rollouts/{}/{}",
                    self.url, self.service, spec.id.number.0
                );
                vec![format!(
                    "rollout {} · {} → {} · {address}",
                    spec.id.number, spec.release.number, spec.environment.name
                )]
            }
            ServiceEvent::Promoted {
                environment,
                rollout,
                release,
            } if self.rollouts.contains_key(rollout) => self.promoted(environment, release),
            ServiceEvent::Held { release, why, .. } if self.releases.contains_key(release) => {
                self.told = true;
                vec![format!("✗ {release} stays where it is: {why}")]
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
                    self.told = true;
                    vec![format!("✗ rollout {number} {outcome}: {why}")]
                }
            },
            _ => Vec::new(),
        }
    }

    /// A person holds the environment: the release waits for as long as that takes.
    fn held(
        &mut self,
        environment: &EnvironmentName,
        release: ReleaseNumber,
        hold: &EnvironmentHold,
    ) -> Vec<String> {
        self.told = true;
        vec![
            format!("{release} waits, it does not go to {environment} now"),
            hold.describe(&self.service, environment),
        ]
    }

    fn promoted(
        &mut self,
        environment: &EnvironmentName,
        release: &shipway_core::release::Release,
    ) -> Vec<String> {
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
            let addresses = EnvironmentAddresses::new(&place, configured);
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
                    lines.push(format!("{number}  ↩ going back: {why}"));
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
            RolloutEvent::Paused { reason } => {
                self.told = true;
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

    /// What takes people or minutes is announced and not waited for.
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
                self.told = true;
                lines.push(format!(
                    "{number}  waits for {gate}: shipway approve {}",
                    self.rollout_id(number)
                ));
            }
            // What is kept warm holds nothing up: the release has been promoted, and goes on to the next environment.
            Some(PlanAction::Hold {
                duration,
                why: HoldReason::Evidence | HoldReason::Time,
            }) if *duration > PATIENCE => {
                self.told = true;
                lines.push(format!(
                    "{number}  holding for {}, continues automatically: shipway watch {}",
                    Span(*duration),
                    self.rollout_id(number)
                ));
            }
            _ => {}
        }
        lines
    }
}

const fn mark(good: bool) -> &'static str {
    if good { "✓" } else { "✗" }
}

fn read<B: DeserializeOwned>(recorded: &Recorded) -> Option<Event<B>> {
    serde_json::from_str(&recorded.event).ok()
}
