//! Carries out the actions of a rollout's plan: instances by its target, shares of traffic by its router.
//!
//! # Invariants
//!
//! - A weight rises only while the instances that it needs are ready.
//! - An action can be carried out again without harm: a server that was killed repeats it.
//! - The plan decides the order; the executor decides nothing.
//! - Instances of a release run on the target that its own configuration names, also when another release of the rollout names another.

use std::{net::SocketAddr, time::Duration};

use shipway_core::{
    address::EnvironmentAddresses,
    check::SmokeReport,
    config::EnvironmentConfig,
    ids::ReleaseNumber,
    release::Release,
    rollout::{
        PlanDirection, Rollout, RolloutSpec, RolloutVariant,
        plan::{PlanAction, TrafficSplit},
    },
    target::{ReplicaSetKey, ServiceEnvironment, TargetMissing, Workload},
};
use tokio_util::sync::CancellationToken;

use crate::{
    checks::smoke,
    target::{CommandPlace, ReadinessError, Target, TargetError, await_ready, written_files_note},
    target_registry::TargetRegistry,
    traffic_control::TrafficError,
    traffic_registry::TrafficRegistry,
};

/// A rollout, and the targets and routers that its releases can name.
#[derive(Clone, Copy)]
pub struct ActionExecutor<'a> {
    /// Run its instances.
    pub targets: &'a TargetRegistry,
    /// Has its routes.
    pub traffic: &'a TrafficRegistry,
    /// The rollout, as it was when the action became due.
    pub rollout: &'a Rollout,
    /// Where the proxy listens, for the URL in the environment of instances.
    pub proxy_address: SocketAddr,
    /// Ends waiting for instances.
    pub cancelled: &'a CancellationToken,
}

/// What an action achieved.
#[derive(Clone, Debug, Default)]
pub struct ActionReport {
    /// Shown with the action.
    pub note: Option<String>,
    /// The results of smoke tests.
    pub smoke: Option<SmokeReport>,
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// The rollout has neither as its release nor as its stable one.
    #[error("{0} does not belong to this rollout")]
    UnknownRelease(ReleaseNumber),
    /// Smoke tests need a ready instance.
    #[error("no instance is ready to be tested")]
    NothingToTest,
    /// Smoke tests failed.
    #[error("smoke tests: {}", .0.summary())]
    SmokeTests(Box<SmokeReport>),
    /// The server does not have the target that a release names.
    #[error(transparent)]
    NoTarget(#[from] TargetMissing),
    /// The target can't start or stop instances.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Instances don't become ready.
    #[error(transparent)]
    Readiness(#[from] ReadinessError),
    /// The router refuses the shares.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
}

impl ExecutionError {
    /// The results of smoke tests that failed.
    #[must_use]
    pub fn into_smoke_report(self) -> Option<SmokeReport> {
        match self {
            Self::SmokeTests(report) => Some(*report),
            Self::UnknownRelease(_)
            | Self::NothingToTest
            | Self::NoTarget(_)
            | Self::Target(_)
            | Self::Readiness(_)
            | Self::Traffic(_) => None,
        }
    }
}

impl ActionExecutor<'_> {
    /// Carries out what an action asks of the target and the router; `addresses` are those that the environment is reached at. The other
    /// part of an action (addresses to claim, a service to notify, rollouts to wait for) is the caller's.
    ///
    /// # Errors
    /// [`ExecutionError`]: the action failed.
    pub async fn carry_out(
        &self,
        action: &PlanAction,
        addresses: &EnvironmentAddresses,
    ) -> Result<ActionReport, ExecutionError> {
        let note = match action {
            PlanAction::Start { release, count } => self.start_instances(*release, *count).await?,
            PlanAction::Await { release, count } => {
                self.await_instances(*release, *count).await?;
                None
            }
            PlanAction::Smoke { release } => return self.test_release(*release).await,
            PlanAction::Shift { split } => {
                self.shift_traffic(split, addresses).await?;
                None
            }
            PlanAction::Drain {
                release,
                keep,
                grace,
            } => self.drain_instances(*release, *keep, *grace).await?,
            PlanAction::Stop { release, keep } => self.stop_instances(*release, *keep).await?,
            PlanAction::Promote {
                variant: RolloutVariant::Release(release),
            } => {
                self.await_promotable(*release).await?;
                None
            }
            // The engine's timers end a hold, people answer a gate; neither target nor router takes part.
            PlanAction::ClaimAddresses { .. }
            | PlanAction::Barrier { .. }
            | PlanAction::Hold { .. }
            | PlanAction::Ask { .. } => None,
        };
        Ok(ActionReport { note, smoke: None })
    }

    fn spec(&self) -> &RolloutSpec {
        &self.rollout.spec
    }

    fn service_environment(&self) -> ServiceEnvironment {
        let spec = self.spec();
        spec.release().service_environment(&spec.environment.name)
    }

    fn set(&self, release: ReleaseNumber) -> ReplicaSetKey {
        ReplicaSetKey {
            place: self.service_environment(),
            release,
        }
    }

    /// The target of a release: what its configuration names. A release that this rollout does not know is where its instances are.
    fn target(&self, release: ReleaseNumber) -> Result<&dyn Target, TargetMissing> {
        let spec = self.spec();
        let named = match release_and_environment(spec, release.released()) {
            Some((_, environment)) => environment.target,
            None => match self.targets.target_of_set(&self.set(release)) {
                Some(target) => return Ok(&**target),
                None => spec.environment.target,
            },
        };
        Ok(&**self.targets.target(named)?)
    }

    /// Starts instances of a release; returns a note about files of stable's instances, with the first ones.
    async fn start_instances(
        &self,
        number: ReleaseNumber,
        count: u32,
    ) -> Result<Option<String>, ExecutionError> {
        let set = self.set(number);
        let (release, environment) = release_and_environment(self.spec(), number.released())
            .ok_or(ExecutionError::UnknownRelease(number))?;
        let target = self.target(number)?;
        self.traffic.undrain(&set.place, number);
        let is_first_batch = !target.instances().iter().any(|it| it.id.set == set);
        let addresses = environment.addresses(&set.place);
        let workload = Workload {
            url: Some(addresses.url(self.proxy_address)),
            ..release.workload(environment)
        };
        match count {
            0 => {
                target
                    .prepare(&set, &workload, environment.instances)
                    .await?
            }
            _ => target.ensure(&set, &workload, count).await?,
        }
        Ok(match is_first_batch {
            true => self.stable_files_note(&set).await,
            false => None,
        })
    }

    /// Reports files that stable's instances wrote into their code folder, while they can still be saved.
    async fn stable_files_note(&self, started: &ReplicaSetKey) -> Option<String> {
        let stable = ReplicaSetKey {
            place: started.place.clone(),
            release: self.spec().stable()?.release.number,
        };
        if stable.release == started.release {
            return None;
        }
        let target = self.target(stable.release).ok()?;
        let files = target.written_files(&stable).await;
        written_files_note(&files).map(|note| format!("{}: {note}", stable.release))
    }

    async fn await_instances(
        &self,
        release: ReleaseNumber,
        count: u32,
    ) -> Result<(), ExecutionError> {
        let deadline = self.spec().environment.progress_deadline;
        self.await_ready(release, count, deadline).await
    }

    async fn await_ready(
        &self,
        release: ReleaseNumber,
        count: u32,
        within: Duration,
    ) -> Result<(), ExecutionError> {
        let (target, set) = (self.target(release)?, self.set(release));
        Ok(await_ready(target, &set, count, within, self.cancelled).await?)
    }

    async fn test_release(&self, release: ReleaseNumber) -> Result<ActionReport, ExecutionError> {
        let (target, set) = (self.target(release)?, self.set(release));
        let mut instances = Vec::new();
        for status in target.instances() {
            if status.id.set == set && status.is_ready() {
                instances.push((status.id.to_string(), status.address));
            }
        }
        if instances.is_empty() {
            return Err(ExecutionError::NothingToTest);
        }
        let environment = &self.spec().environment;
        let place = CommandPlace {
            runner: target,
            set: &set,
        };
        let host = environment.request_host();
        let report = smoke::run_suite(&environment.smoke, &instances, host, place).await;
        if report.failed() > 0 {
            return Err(ExecutionError::SmokeTests(Box::new(report)));
        }
        Ok(ActionReport {
            note: Some(report.summary()),
            smoke: Some(report),
        })
    }

    async fn shift_traffic(
        &self,
        split: &TrafficSplit,
        addresses: &EnvironmentAddresses,
    ) -> Result<(), ExecutionError> {
        self.await_capacity(split).await?;
        let spec = self.spec();
        let (environment, salt) = (&spec.environment, spec.id.to_string());
        let place = self.service_environment();
        let router = self.rollout.router();
        let traffic = self.traffic;
        let shifted = traffic.shift(router, &place, environment, addresses, split, &salt);
        Ok(shifted.await?)
    }

    /// Waits until each release whose weight rises with `split` has the ready instances that it needs then. A rollback needs one:
    /// traffic goes first, the other instances follow.
    async fn await_capacity(&self, split: &TrafficSplit) -> Result<(), ExecutionError> {
        let rollout = self.rollout;
        for (release, needed) in rollout.instances_needed_to_grow(split) {
            let (needed, within) = match rollout.direction {
                PlanDirection::Forward => (needed, rollout.unready_grace(1)),
                PlanDirection::Back => (1, rollout.spec.environment.progress_deadline),
            };
            self.await_ready(release, needed, within).await?;
        }
        Ok(())
    }

    /// Waits until the release that is to be promoted has the ready instances that its traffic needs.
    async fn await_promotable(&self, release: ReleaseNumber) -> Result<(), ExecutionError> {
        let rollout = self.rollout;
        if rollout.direction == PlanDirection::Back {
            return Ok(());
        }
        let needed = rollout.instances_needed(&rollout.observed.split, release);
        let within = rollout.unready_grace(1);
        self.await_ready(release, needed, within).await
    }

    async fn drain_instances(
        &self,
        release: ReleaseNumber,
        keep: u32,
        grace: Duration,
    ) -> Result<Option<String>, TrafficError> {
        let place = self.service_environment();
        let control = self.traffic.control_of(&place, self.rollout.router())?;
        let open = control.drain(&place, release, keep, grace).await?;
        Ok(open_requests_note(open))
    }

    async fn stop_instances(
        &self,
        release: ReleaseNumber,
        keep: u32,
    ) -> Result<Option<String>, ExecutionError> {
        let set = self.set(release);
        let stopped = self.target(release)?.stop(&set, keep).await;
        self.traffic.undrain(&set.place, release);
        Ok(stopped?.note())
    }
}

/// Requests that the end of the grace period cut off, for the rollout's story.
fn open_requests_note(open: u64) -> Option<String> {
    match open {
        0 => None,
        1 => Some("1 request was still open after the grace period".to_owned()),
        _ => Some(format!(
            "{open} requests were still open after the grace period"
        )),
    }
}

/// The release with this number and its own configuration of the rollout's environment.
fn release_and_environment(
    spec: &RolloutSpec,
    number: ReleaseNumber,
) -> Option<(&Release, &EnvironmentConfig)> {
    if spec.release().number == number {
        return Some((spec.release(), &spec.environment));
    }
    let stable = spec
        .stable()
        .filter(|stable| stable.release.number == number)?;
    Some((
        &stable.release,
        stable.release.environment(&spec.environment.name)?,
    ))
}
