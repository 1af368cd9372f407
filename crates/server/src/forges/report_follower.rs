//! Follows the log, and queues reports to forges: the states of runs and rollouts.
//!
//! # Failure modes
//!
//! - The server dies between an event and its report: the log is read again from the last checkpoint, and the stream of the connection
//!   knows up to which position it has reports.
//! - A run has changed again before its event is read: the report has the newer state, and the next one repeats it.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use shipway_core::{
    aggregate::{Actor, Event},
    forge::{ForgeInput, ForgeReport, forge_stream},
    ids::{RolloutId, RolloutNumber, RunId, ServiceName},
    rollout::RolloutOutcome,
    run::RunEvent,
    service::ServiceEvent,
};
use shipway_drivers::git::GitRepositories;
use shipway_engine::{
    EarlierRows, EngineError, ProjectionCheckpoint, ProjectionSave, Recorded, Store, StoreError,
};

use super::{
    ForgeConnections,
    report_texts::{ReportedRollout, RolloutStage, current_run, ordered_run},
};
use crate::{delivery_engines::DeliveryEngines, push::PushReceiver};

/// Between two attempts while the store fails.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Events that are taken at once.
const CHUNK: usize = 500;
/// Events between two checkpoints.
const CHECKPOINT_EVERY: u64 = 1_000;
/// The name of the checkpoint.
const CHECKPOINT: &str = "forge_reports";

/// Queues reports for forges.
#[derive(Clone)]
pub(crate) struct ReportFollower {
    store: Arc<dyn Store>,
    engines: Arc<DeliveryEngines>,
    connections: ForgeConnections,
    repositories: Arc<GitRepositories>,
    /// Where people reach the pages of this server.
    server_url: String,
}

impl ReportFollower {
    /// A follower of the log that pushes are recorded in.
    pub(crate) fn new(pushes: &PushReceiver, connections: &ForgeConnections) -> Self {
        Self {
            store: pushes.store.clone(),
            engines: pushes.engines.clone(),
            connections: connections.clone(),
            repositories: pushes.repositories.clone(),
            server_url: pushes.server.url.clone(),
        }
    }

    /// Follows the log for as long as the server runs.
    pub(crate) async fn run(self) {
        loop {
            match self.follow().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "reports to forges are behind the log");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn follow(&self) -> Result<(), StoreError> {
        let checkpoint = self.store.projection_checkpoint(CHECKPOINT).await?;
        let mut saved = match checkpoint {
            Some(checkpoint) => checkpoint.position,
            // Connections are younger than this server's first start with them.
            None => {
                let last = self.store.last_position().await?;
                self.save_checkpoint(last).await?;
                last
            }
        };
        let mut log = self.store.subscribe(saved).await?.ready_chunks(CHUNK);
        while let Some(batch) = log.next().await {
            let mut position = saved;
            for event in batch {
                let event = event?;
                self.report(&event).await?;
                position = event.position;
            }
            if position >= saved + CHECKPOINT_EVERY {
                self.save_checkpoint(position).await?;
                saved = position;
            }
        }
        Ok(())
    }

    async fn save_checkpoint(&self, position: u64) -> Result<(), StoreError> {
        let save = ProjectionSave {
            name: CHECKPOINT.to_owned(),
            checkpoint: ProjectionCheckpoint {
                version: 1,
                position,
                state: serde_json::Value::Null,
            },
            earlier: EarlierRows::Keep,
            rows: Vec::new(),
        };
        self.store.save_projection(save).await
    }

    /// Queues the reports of one event.
    async fn report(&self, recorded: &Recorded) -> Result<(), StoreError> {
        let mut parts = recorded.stream.split('/');
        let (kind, service) = (parts.next().unwrap_or_default(), parts.next());
        if !matches!(kind, "service" | "run") {
            return Ok(());
        }
        let Some(service) = service.and_then(|it| it.parse::<ServiceName>().ok()) else {
            return Ok(());
        };
        let repository = self.repository(&service).await?;
        let connection = self.connections.find(&repository);
        if connection.is_none_or(|it| it.token.is_none()) {
            return Ok(());
        }
        let source = ReportSource {
            follower: self,
            repository: &repository,
            service: &service,
        };
        let reports = match kind {
            "run" => source.run_reports(recorded).await?,
            _ => source.service_reports(recorded).await?,
        };
        if reports.is_empty() {
            return Ok(());
        }
        let input = ForgeInput::QueueReports {
            position: recorded.position,
            reports,
        };
        let by = Actor::Shipway("the log".to_owned());
        let stream = forge_stream(&repository);
        match self.engines.forges.send(&stream, input, by).await {
            Ok(_) | Err(EngineError::Rejected(_)) => Ok(()),
            Err(error) => Err(StoreError(error.to_string())),
        }
    }

    /// The repository of a service.
    async fn repository(&self, service: &ServiceName) -> Result<ServiceName, StoreError> {
        let state = self.engines.service(service).await?;
        let location = state.and_then(|state| state.location.clone());
        Ok(location.map_or_else(|| service.clone(), |location| location.repository))
    }
}

/// A service whose repository is connected.
struct ReportSource<'a> {
    follower: &'a ReportFollower,
    repository: &'a ServiceName,
    service: &'a ServiceName,
}

impl ReportSource<'_> {
    /// A run that ended, or runs again.
    async fn run_reports(&self, recorded: &Recorded) -> Result<Vec<ForgeReport>, StoreError> {
        let Some(event) = parse::<RunEvent>(recorded) else {
            return Ok(Vec::new());
        };
        if !matches!(
            event,
            RunEvent::Ended { .. } | RunEvent::RerunStarted { .. }
        ) {
            return Ok(Vec::new());
        }
        let state = self.follower.engines.runs.read(&recorded.stream).await?;
        let run = state.as_ref().and_then(|state| state.0.as_deref());
        let status = run.map(|run| current_run(&self.follower.server_url, run));
        Ok(status.map(ForgeReport::Status).into_iter().collect())
    }

    async fn service_reports(&self, recorded: &Recorded) -> Result<Vec<ForgeReport>, StoreError> {
        let Some(event) = parse::<ServiceEvent>(recorded) else {
            return Ok(Vec::new());
        };
        let url = &self.follower.server_url;
        let report = match event {
            ServiceEvent::RunOrdered { order } => {
                let run = RunId {
                    service: self.service.clone(),
                    number: order.number,
                };
                ForgeReport::Status(ordered_run(url, &run, &order))
            }
            ServiceEvent::RolloutOrdered { spec, .. } => {
                let rollout = ReportedRollout::from_spec(&spec);
                self.rollout_report(&rollout, RolloutStage::Started).await?
            }
            ServiceEvent::Promoted {
                environment,
                rollout,
                release,
            } => {
                let rollout = ReportedRollout {
                    id: self.rollout_id(rollout),
                    release: &release,
                    environment,
                };
                self.rollout_report(&rollout, RolloutStage::Promoted)
                    .await?
            }
            ServiceEvent::RolloutEnded {
                number,
                outcome,
                why,
                ..
            } if outcome != RolloutOutcome::Promoted => {
                let id = self.rollout_id(number);
                let state = self.follower.engines.rollouts.read(&id.stream()).await?;
                let rollout = state.as_ref().and_then(|state| state.0.as_deref());
                let Some(rollout) = rollout else {
                    return Ok(Vec::new());
                };
                let rollout = ReportedRollout::from_spec(&rollout.spec);
                let stage = RolloutStage::Ended { outcome, why: &why };
                self.rollout_report(&rollout, stage).await?
            }
            _ => return Ok(Vec::new()),
        };
        Ok(vec![report])
    }

    async fn rollout_report(
        &self,
        rollout: &ReportedRollout<'_>,
        stage: RolloutStage<'_>,
    ) -> Result<ForgeReport, StoreError> {
        let merged = self.merged_pull_requests(rollout).await?;
        let url = &self.follower.server_url;
        Ok(ForgeReport::Deployment(rollout.report(url, stage, merged)))
    }

    /// The merged pull requests whose commits a release has.
    async fn merged_pull_requests(
        &self,
        rollout: &ReportedRollout<'_>,
    ) -> Result<Vec<u64>, StoreError> {
        let stream = forge_stream(self.repository);
        let state = self.follower.engines.forges.state(&stream).await?;
        let (Some(state), Some(repo)) = (state, self.follower.repositories.get(self.repository))
        else {
            return Ok(Vec::new());
        };
        let mut merged = Vec::new();
        for (number, record) in &state.pull_requests {
            let Some(commit) = &record.merged_as else {
                continue;
            };
            // A commit that was not fetched is in no release.
            let is_in = repo.is_ancestor(commit, &rollout.release.commit.id).await;
            if is_in.unwrap_or(false) {
                merged.push(*number);
            }
        }
        Ok(merged)
    }

    fn rollout_id(&self, number: RolloutNumber) -> RolloutId {
        RolloutId {
            service: self.service.clone(),
            number,
        }
    }
}

/// The event of another version that can't be read is nothing to report.
fn parse<B: DeserializeOwned>(recorded: &Recorded) -> Option<B> {
    let event = serde_json::from_str::<Event<B>>(&recorded.event);
    event.ok().map(|event| event.body)
}
