//! The rows and instances that the overview is made of.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use shipway_api::{
    EnvironmentCell, MatrixHealth, MatrixRelease, MatrixResult, MatrixRollout, MatrixRun,
    MatrixService, MatrixState,
};
use shipway_core::{
    ids::{ReleaseNumber, RolloutId, ServiceName},
    rollout::{RolloutOutcome, RolloutStatus, RolloutView},
    run::{RunStatus, RunView, newest_run_of_each_workflow},
    service::{EndedRollout, EnvironmentRow, EnvironmentView},
    target::{InstanceStatus, ServiceEnvironment},
    weight::Weight,
};
use shipway_engine::{Recorded, RowQuery, Store, StoreError};

/// Runs of a service that are read to find the newest of each workflow.
const RUNS_READ: u32 = 6;

/// Everything that the overview shows, by service.
#[derive(Debug, Default)]
pub(super) struct MatrixModel {
    services: BTreeMap<ServiceName, ServiceRecord>,
    /// The instances of each release.
    instances: BTreeMap<ServiceEnvironment, BTreeMap<ReleaseNumber, ReadyInstances>>,
}

#[derive(Debug, Default)]
struct ServiceRecord {
    environments: Vec<EnvironmentRow>,
    /// Those in progress.
    rollouts: BTreeMap<RolloutId, RolloutView>,
    last_run: Option<MatrixRun>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReadyInstances {
    ready: u32,
    all: u32,
}

impl MatrixModel {
    /// Reads all rows.
    pub(super) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut model = Self::default();
        for row in store.all_rows(EnvironmentRow::KIND).await? {
            if let Ok(row) = serde_json::from_value::<EnvironmentRow>(row.doc) {
                let record = model.services.entry(row.service.clone()).or_default();
                record.environments.push(row);
            }
        }
        for (name, record) in &mut model.services {
            record.environments.sort_by_key(|row| row.position);
            record.read_rollouts(store).await?;
            record.read_last_run(store, name).await?;
        }
        Ok(model)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Reads the rows that these events have changed; returns their services.
    pub(super) async fn read_changes(
        &mut self,
        store: &dyn Store,
        events: &[Recorded],
    ) -> Result<BTreeSet<ServiceName>, StoreError> {
        let (mut services, mut rollouts, mut runs) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for event in events {
            let mut parts = event.stream.split('/');
            let kind = parts.next();
            let Some(Ok(name)) = parts.next().map(str::parse::<ServiceName>) else {
                continue;
            };
            match kind {
                Some("service") => services.insert(name),
                Some("rollout") => rollouts.insert(name),
                Some("run") => runs.insert(name),
                _ => false,
            };
        }
        for name in &services {
            self.read_service(store, name).await?;
        }
        for name in services.iter().chain(&rollouts).collect::<BTreeSet<_>>() {
            if let Some(record) = self.services.get_mut(name) {
                record.read_rollouts(store).await?;
            }
        }
        for name in &runs {
            if let Some(record) = self.services.get_mut(name) {
                record.read_last_run(store, name).await?;
            }
        }
        services.extend(rollouts);
        services.extend(runs);
        Ok(services)
    }

    async fn read_service(
        &mut self,
        store: &dyn Store,
        name: &ServiceName,
    ) -> Result<(), StoreError> {
        let query = RowQuery {
            service: Some(name.as_str()),
            ..RowQuery::new(EnvironmentRow::KIND)
        };
        let mut environments: Vec<EnvironmentRow> = read_documents(store, query).await?;
        environments.sort_by_key(|row| row.position);
        if environments.is_empty() {
            self.services.remove(name);
            return Ok(());
        }
        let is_new = !self.services.contains_key(name);
        let record = self.services.entry(name.clone()).or_default();
        record.environments = environments;
        match is_new {
            true => record.read_last_run(store, name).await,
            false => Ok(()),
        }
    }

    /// Counts the instances anew; returns the services where something has changed.
    pub(super) fn count_instances(
        &mut self,
        instances: &[InstanceStatus],
    ) -> BTreeSet<ServiceName> {
        let mut counted: BTreeMap<ServiceEnvironment, BTreeMap<ReleaseNumber, ReadyInstances>> =
            BTreeMap::new();
        for status in instances {
            let releases = counted.entry(status.id.set.place.clone()).or_default();
            let count = releases.entry(status.id.set.release).or_default();
            count.all += 1;
            count.ready += u32::from(status.is_ready());
        }
        let places = counted.keys().chain(self.instances.keys());
        let changed = places
            .filter(|place| counted.get(place) != self.instances.get(place))
            .map(|place| place.service.clone())
            .collect();
        self.instances = counted;
        changed
    }

    /// A service as the overview shows it; none if it has no environments.
    pub(super) fn service(&self, name: &ServiceName) -> Option<MatrixService> {
        let record = self.services.get(name)?;
        let environments = record.environments.iter();
        Some(MatrixService {
            service: name.clone(),
            last_run: record.last_run.clone(),
            environments: environments.map(|row| self.cell(record, row)).collect(),
        })
    }

    fn cell(&self, record: &ServiceRecord, row: &EnvironmentRow) -> EnvironmentCell {
        let view = &row.environment;
        let rollout = view.rollout.as_ref().and_then(|id| record.rollouts.get(id));
        let (health, problem) = self.health(row);
        let last_rollout = view.last_rollout.as_ref().filter(|_| {
            // The promoted rollout that is watched is newer.
            rollout.is_none_or(|rollout| rollout.status != RolloutStatus::Promoted)
        });
        EnvironmentCell {
            environment: view.name.clone(),
            states: cell_states(view, health, rollout, last_rollout),
            release: view.stable.as_ref().map(|stable| MatrixRelease {
                number: stable.number,
                commit: stable.commit.id.clone(),
                subject: stable.commit.subject.clone(),
            }),
            serves_since: view.since,
            health,
            problem,
            rollout: rollout.map(matrix_rollout),
            last_rollout: last_rollout.map(|ended| MatrixResult {
                number: ended.number,
                release: ended.release,
                outcome: ended.outcome,
                why: ended.why.clone(),
                at: ended.at,
            }),
            hold: view.hold.clone(),
            queue: view.queue.clone(),
            deletion: view.deletion.clone(),
        }
    }

    /// The health, and the problem unless it is healthy.
    fn health(&self, row: &EnvironmentRow) -> (MatrixHealth, Option<String>) {
        let Some(stable) = &row.environment.stable else {
            return (MatrixHealth::Empty, None);
        };
        if let Some(degradation) = &row.environment.degradation {
            return (MatrixHealth::Degraded, Some(degradation.to_string()));
        }
        let place = ServiceEnvironment {
            service: row.service.clone(),
            environment: row.environment.name.clone(),
        };
        let count = self.instances.get(&place);
        let count = count.and_then(|releases| releases.get(&stable.number));
        let count = count.copied().unwrap_or_default();
        match count {
            ReadyInstances { all: 0, .. } => (MatrixHealth::Unknown, None),
            ReadyInstances { ready, all } if ready == all => (MatrixHealth::Healthy, None),
            ReadyInstances { ready, all } => {
                let problem = format!("{ready} of {all} instances of {} ready", stable.number);
                (MatrixHealth::Degraded, Some(problem))
            }
        }
    }
}

impl ServiceRecord {
    /// Reads the rollouts in progress of the environments.
    async fn read_rollouts(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        self.rollouts.clear();
        for row in &self.environments {
            let Some(id) = &row.environment.rollout else {
                continue;
            };
            let key = format!("{}/{}", id.service, id.number.0);
            let found = store.row("rollout", &key).await?;
            if let Some(view) = found.and_then(|row| serde_json::from_value(row.doc).ok()) {
                self.rollouts.insert(id.clone(), view);
            }
        }
        Ok(())
    }

    async fn read_last_run(
        &mut self,
        store: &dyn Store,
        name: &ServiceName,
    ) -> Result<(), StoreError> {
        let query = RowQuery {
            service: Some(name.as_str()),
            limit: RUNS_READ,
            ..RowQuery::new("run")
        };
        let runs = read_documents::<RunView>(store, query).await?;
        let runs = newest_run_of_each_workflow(runs);
        let chosen = runs.iter().min_by_key(|run| attention_rank(run.status));
        self.last_run = chosen.map(|run| MatrixRun {
            id: run.id.clone(),
            status: run.status,
            workflow: run.workflow.clone(),
            at: run.finished_at.unwrap_or(run.created_at),
        });
        Ok(())
    }
}

/// The documents of one page of rows; unreadable ones are skipped.
async fn read_documents<T: DeserializeOwned>(
    store: &dyn Store,
    query: RowQuery<'_>,
) -> Result<Vec<T>, StoreError> {
    let rows = store.rows(query).await?.rows.into_iter();
    Ok(rows
        .filter_map(|row| serde_json::from_value(row.doc).ok())
        .collect())
}

/// Failures come first, then runs that wait, then runs in progress.
const fn attention_rank(status: RunStatus) -> u8 {
    match status {
        RunStatus::Failure | RunStatus::Incomplete => 0,
        RunStatus::Waiting => 1,
        RunStatus::Running | RunStatus::Queued => 2,
        RunStatus::Cancelled => 3,
        RunStatus::Success | RunStatus::Skipped => 4,
    }
}

fn matrix_rollout(view: &RolloutView) -> MatrixRollout {
    let mut shares = view.split.releases();
    let weight = shares.find(|(release, _)| *release == view.release);
    MatrixRollout {
        id: view.id.clone(),
        kind: view.kind,
        status: view.status,
        release: view.release,
        weight: weight.map_or(Weight::ZERO, |(_, weight)| weight),
        by: view.by.clone(),
        paused: view.paused.clone(),
    }
}

fn cell_states(
    view: &EnvironmentView,
    health: MatrixHealth,
    rollout: Option<&RolloutView>,
    last_rollout: Option<&EndedRollout>,
) -> Vec<MatrixState> {
    let failed = last_rollout.is_some_and(|ended| match ended.outcome {
        RolloutOutcome::RolledBack
        | RolloutOutcome::Aborted
        | RolloutOutcome::Rejected
        | RolloutOutcome::Failed => true,
        RolloutOutcome::Promoted | RolloutOutcome::Superseded => false,
    });
    let is_red = failed || health == MatrixHealth::Degraded;
    let status = rollout.map(|rollout| rollout.status);
    let waits = matches!(
        status,
        Some(RolloutStatus::Waiting | RolloutStatus::WaitingForPeers | RolloutStatus::Paused)
    );
    let moves = status.is_some_and(|status| status != RolloutStatus::Promoted);
    let applies = |state: &MatrixState| match state {
        MatrixState::Red => is_red,
        MatrixState::Held => view.hold.is_some(),
        MatrixState::Waiting => waits,
        MatrixState::Moving => moves,
        MatrixState::Healthy => health == MatrixHealth::Healthy && !failed,
        MatrixState::Empty => view.stable.is_none(),
    };
    MatrixState::ALL.into_iter().filter(applies).collect()
}
