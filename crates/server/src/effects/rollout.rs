//! What a rollout asks for: instances, probes, shares of traffic, measurements, news.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use shipway_analysis::plot::{deciding_series, sparkline};
use shipway_core::{
    address::EnvironmentAddresses,
    aggregate::Actor,
    check::SmokeReport,
    config::NotificationTarget,
    ids::ReleaseNumber,
    release::Release,
    rollout::{
        NoticeTone, Rollout, RolloutAggregate, RolloutEffect, RolloutInput, RolloutNotice,
        RolloutSpec,
        plan::{PlanAction, TrafficSplit},
    },
    service::{self, ServiceRejection},
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_drivers::notify::{Notification, NotificationSeverity, NotifyError, RetryPolicy};
use shipway_engine::{Driver, EngineError, Work};
use shipway_targets::{
    checks::smoke,
    target::{CommandPlace, ReadinessError, TargetError, await_ready, written_files_note},
};

use super::{
    addresses::{self, AddressError},
    measure, readiness,
    rollout_group::{self, BarrierError},
};
use crate::{
    app::{App, DestinationError, service_stream},
    read_models::analysis_series_until,
    traffic::TrafficError,
};

/// Moments of each side that a notification draws: both fit into a line of e-mail, and nearly into one of a telephone.
const PLOT_COLUMNS: usize = 20;

/// Carries out the effects of rollouts.
pub struct RolloutDriver(pub Weak<App>);

/// What an action of a plan achieved.
#[derive(Default)]
struct ActionReport {
    /// Shown with the action.
    note: Option<String>,
    smoke: Option<SmokeReport>,
}

/// Why an action of a plan failed.
#[derive(Debug, thiserror::Error)]
enum PlanActionError {
    #[error("{0} is not of this rollout")]
    UnknownRelease(ReleaseNumber),
    #[error("no instance is ready to be tested")]
    NothingToTest,
    #[error("smoke tests: {}", .0.summary())]
    SmokeTests(Box<SmokeReport>),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Readiness(#[from] ReadinessError),
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    #[error(transparent)]
    Service(#[from] EngineError<ServiceRejection>),
}

impl PlanActionError {
    /// The results of smoke tests that failed.
    fn into_smoke_report(self) -> Option<SmokeReport> {
        match self {
            Self::SmokeTests(report) => Some(*report),
            _ => None,
        }
    }
}

/// Why a notification was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    /// The configuration has fewer destinations.
    #[error("`notify` has no entry {0}")]
    NoEntry(usize),
    /// The destination's address can't be used.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The last of several attempts failed.
    #[error(transparent)]
    Send(#[from] NotifyError),
}

#[async_trait]
impl Driver<RolloutAggregate> for RolloutDriver {
    async fn carry_out(&self, work: Work<RolloutAggregate>) -> RolloutInput {
        let Some(app) = self.0.upgrade() else {
            return RolloutInput::Woken;
        };
        let Some(rollout) = work.state.0.as_deref() else {
            return RolloutInput::Woken;
        };
        match &work.effect {
            RolloutEffect::Carry {
                plan,
                index,
                action,
            } => carry_out_action(&app, &work, rollout, (*plan, *index), action).await,
            RolloutEffect::Measure {
                exposure,
                candidate,
                stable,
            } => {
                measure::run(&app, &work, rollout, *exposure, *candidate, *stable).await;
                RolloutInput::Woken
            }
            RolloutEffect::Fellows { with } => {
                rollout_group::watch(&app, &work, rollout, with).await
            }
            RolloutEffect::Guard { release, stable } => {
                let releases: Vec<_> = std::iter::once(*release).chain(*stable).collect();
                readiness::watch(&app, &work, &rollout_environment(&rollout.spec), &releases).await
            }
            RolloutEffect::TellService { end, observed } => {
                app.live.forget(&rollout.spec.id);
                send_to_service(&app, rollout, end, observed).await
            }
            RolloutEffect::Notify {
                index,
                destination,
                notice,
            } => RolloutInput::Noticed {
                index: *index,
                destination: *destination,
                failed: notify(&app, rollout, (*index, notice), *destination)
                    .await
                    .err()
                    .map(|error| error.to_string()),
            },
        }
    }
}

fn rollout_environment(spec: &RolloutSpec) -> ServiceEnvironment {
    spec.release.service_environment(&spec.environment.name)
}

/// Carries out the action `index` of the plan with the number `plan`.
async fn carry_out_action(
    app: &Arc<App>,
    work: &Work<RolloutAggregate>,
    rollout: &Rollout,
    (plan, index): (u32, usize),
    action: &PlanAction,
) -> RolloutInput {
    let run = ActionRun {
        app,
        work,
        rollout,
        spec: &rollout.spec,
        place: rollout_environment(&rollout.spec),
    };
    match run.carry_out(action).await {
        Ok(ActionReport { note, smoke }) => RolloutInput::Done {
            plan,
            index,
            note,
            smoke,
        },
        Err(error) => RolloutInput::Failed {
            plan,
            index,
            why: error.to_string(),
            smoke: error.into_smoke_report(),
        },
    }
}

/// An action of a rollout's plan while it is carried out.
struct ActionRun<'a> {
    app: &'a Arc<App>,
    work: &'a Work<RolloutAggregate>,
    rollout: &'a Rollout,
    spec: &'a RolloutSpec,
    place: ServiceEnvironment,
}

impl ActionRun<'_> {
    async fn carry_out(&self, action: &PlanAction) -> Result<ActionReport, PlanActionError> {
        let note = match action {
            PlanAction::ClaimAddresses { addresses } => {
                addresses::claim(self.app, self.work, self.spec, addresses).await?;
                None
            }
            PlanAction::Start { release, count } => self.start_instances(*release, *count).await?,
            PlanAction::Await { release, count } => {
                self.await_instances(*release, *count).await?;
                None
            }
            PlanAction::Smoke { release } => {
                return smoke_test(self.app, self.spec, &self.set(*release)).await;
            }
            PlanAction::Shift { split } => {
                self.shift_traffic(split).await?;
                None
            }
            PlanAction::Drain {
                release,
                keep,
                grace,
            } => {
                let open = self.app.traffic.drain(&self.place, *release, *keep, *grace);
                open_requests_note(open.await?)
            }
            PlanAction::Stop { release, keep } => self.stop_instances(*release, *keep).await?,
            PlanAction::Promote { release } => {
                self.promote_release(*release).await?;
                None
            }
            PlanAction::Meet { with } => {
                rollout_group::await_group(self.app, self.work, self.rollout, with).await?;
                Some("all are there".to_owned())
            }
            // The engine's timers end a hold, and people answer a gate: no effect is carried out.
            PlanAction::Hold { .. } | PlanAction::Ask { .. } => None,
        };
        Ok(ActionReport { note, smoke: None })
    }

    async fn await_instances(
        &self,
        release: ReleaseNumber,
        count: u32,
    ) -> Result<(), PlanActionError> {
        let deadline = self.spec.environment.progress_deadline;
        let (target, cancelled) = (&*self.app.target, &self.work.cancelled);
        let set = self.set(release);
        let ready = await_ready(target, &set, count, deadline, cancelled);
        Ok(ready.await?)
    }

    fn set(&self, release: ReleaseNumber) -> ReplicaSetKey {
        ReplicaSetKey {
            place: self.place.clone(),
            release,
        }
    }

    /// Starts instances of a release; returns a note about files of stable's instances, with the first ones.
    async fn start_instances(
        &self,
        number: ReleaseNumber,
        count: u32,
    ) -> Result<Option<String>, PlanActionError> {
        let set = self.set(number);
        let (release, environment) = release_and_environment(self.spec, number.released())
            .ok_or(PlanActionError::UnknownRelease(number))?;
        self.app.traffic.undrain(&self.place, number);
        let is_first_batch = !(self.app.target.instances().iter()).any(|it| it.id.set == set);
        let workload = release.workload(environment);
        self.app.target.ensure(&set, &workload, count).await?;
        Ok(match is_first_batch {
            true => note_of_stable_files(self.app, self.spec, &set).await,
            false => None,
        })
    }

    async fn stop_instances(
        &self,
        release: ReleaseNumber,
        keep: u32,
    ) -> Result<Option<String>, PlanActionError> {
        let stopped = self.app.target.stop(&self.set(release), keep).await;
        self.app.traffic.undrain(&self.place, release);
        Ok(stopped?.note())
    }

    async fn shift_traffic(&self, split: &TrafficSplit) -> Result<(), PlanActionError> {
        let target = &*self.app.target;
        readiness::await_capacity(target, self.work, self.rollout, &self.place, split).await?;
        let salt = self.spec.id.to_string();
        let addresses = served_addresses(self.app, self.spec).await;
        let environment = &self.spec.environment;
        let traffic = &self.app.traffic;
        let shifted = traffic.shift(&self.place, environment, &addresses, split, &salt);
        Ok(shifted.await?)
    }

    /// Declares a release stable once its instances are ready and its addresses are its own; from then on it is reached there.
    async fn promote_release(&self, release: ReleaseNumber) -> Result<(), PlanActionError> {
        let (app, spec) = (self.app, self.spec);
        let set = self.set(release);
        readiness::await_promotable(&*app.target, self.work, self.rollout, &set).await?;
        addresses::verify(app, spec, release).await?;
        let input = service::ServiceInput::Promoted {
            rollout: spec.id.number,
            release,
        };
        let by = Actor::Shipway(format!("rollout {}", spec.id.number));
        app.send_to_service(&spec.id.service, input, by).await?;
        Ok(app.move_addresses(&spec.id.service).await?)
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

/// Reports files that stable's instances wrote into their code folder, while they can still be saved.
async fn note_of_stable_files(
    app: &App,
    spec: &RolloutSpec,
    started: &ReplicaSetKey,
) -> Option<String> {
    let stable = ReplicaSetKey {
        place: started.place.clone(),
        release: spec.stable.as_ref()?.release.number,
    };
    if stable.release == started.release {
        return None;
    }
    let files = app.target.written_files(&stable).await;
    written_files_note(&files).map(|note| format!("{}: {note}", stable.release))
}

/// Where the environment of a rollout is reached now; at a first deployment, where the new release asks to be reached.
async fn served_addresses(app: &App, spec: &RolloutSpec) -> EnvironmentAddresses {
    let state = app.services.state(&service_stream(&spec.id.service)).await;
    let state = state.ok().flatten();
    let served = state.and_then(|state| state.served_addresses(&spec.environment.name));
    served
        .unwrap_or_else(|| EnvironmentAddresses::new(&rollout_environment(spec), &spec.environment))
}

/// The release with this number and its own configuration of the rollout's environment.
fn release_and_environment(
    spec: &RolloutSpec,
    number: ReleaseNumber,
) -> Option<(&Release, &shipway_core::config::EnvironmentConfig)> {
    if spec.release.number == number {
        return Some((&spec.release, &spec.environment));
    }
    let stable = spec
        .stable
        .as_ref()
        .filter(|stable| stable.release.number == number)?;
    Some((
        &stable.release,
        stable.release.environment(&spec.environment.name)?,
    ))
}

async fn smoke_test(
    app: &Arc<App>,
    spec: &RolloutSpec,
    set: &ReplicaSetKey,
) -> Result<ActionReport, PlanActionError> {
    let mut instances = Vec::new();
    for status in app.target.instances() {
        if status.id.set == *set && status.is_ready() {
            instances.push((status.id.to_string(), status.address));
        }
    }
    if instances.is_empty() {
        return Err(PlanActionError::NothingToTest);
    }
    let report = smoke::run_suite(
        &spec.environment.smoke,
        &instances,
        spec.environment.request_host(),
        CommandPlace {
            runner: &*app.target,
            set,
        },
    )
    .await;
    if report.failed() > 0 {
        return Err(PlanActionError::SmokeTests(Box::new(report)));
    }
    Ok(ActionReport {
        note: Some(report.summary()),
        smoke: Some(report),
    })
}

async fn send_to_service(
    app: &Arc<App>,
    rollout: &Rollout,
    end: &shipway_core::rollout::RolloutEnd,
    observed: &shipway_core::rollout::strategy::ObservedState,
) -> RolloutInput {
    let id = &rollout.spec.id;
    let input = service::ServiceInput::RolloutEnded {
        number: id.number,
        end: end.clone(),
        observed: observed.clone(),
    };
    match app
        .services
        .send(
            &format!("service/{}", id.service),
            input,
            Actor::Shipway(format!("rollout {}", id.number)),
        )
        .await
    {
        Ok(_) => {
            if let Err(error) = app.move_addresses(&id.service).await {
                // The next start of the server restores them from the log.
                tracing::warn!(%error, rollout = %id, "the routes of its service can't follow its addresses");
            }
            RolloutInput::Told
        }
        Err(error) => {
            tracing::error!(%error, rollout = %id, "the service could not be told");
            RolloutInput::Woken
        }
    }
}

/// Delivers a notice to one destination, with retries. A destination that is down delays only its own notices.
async fn notify(
    app: &Arc<App>,
    rollout: &Rollout,
    (index, notice): (usize, &RolloutNotice),
    destination: usize,
) -> Result<(), DeliveryError> {
    let spec = &rollout.spec;
    let notification = Notification {
        id: format!("{}-notice-{index}", spec.id),
        title: notice.title.clone(),
        text: notice.text.clone(),
        severity: match notice.tone {
            NoticeTone::Good => NotificationSeverity::Good,
            NoticeTone::Asking | NoticeTone::Neutral => NotificationSeverity::Info,
            NoticeTone::Bad => NotificationSeverity::Bad,
        },
        service: Some(spec.id.service.clone()),
        environment: Some(spec.environment.name.clone()),
        release: Some(spec.release.number),
        rollout: Some(spec.id.number),
        url: Some(format!(
            "{}/rollouts/{}/{}",
            app.url, spec.id.service, spec.id.number.0
        )),
        at: notice.at,
        plot: plot(app, rollout, notice).await,
        facts: vec![(
            "commit".to_owned(),
            format!(
                "{} {}",
                spec.release.commit.id.short(),
                spec.release.commit.subject
            ),
        )],
    };
    let to = spec.environment.notify.get(destination);
    deliver(app, to, destination, &notification).await
}

/// A one-line plot of the deciding metric until the notice. The notification is sent without it when the analysis can't be read.
async fn plot(app: &Arc<App>, rollout: &Rollout, notice: &RolloutNotice) -> Option<String> {
    let all = analysis_series_until(app, &rollout.spec.id, notice.at)
        .await
        .unwrap_or_default();
    let metric = rollout.evidence.judgement().and_then(|it| it.metric);
    let line = sparkline(deciding_series(&all, metric)?, PLOT_COLUMNS);
    (!line.is_empty()).then_some(line)
}

/// Delivers a notification to the destination `to`, the entry `index` of `notify`; retries while the receiver may recover.
pub(super) async fn deliver(
    app: &Arc<App>,
    to: Option<&NotificationTarget>,
    index: usize,
    notification: &Notification,
) -> Result<(), DeliveryError> {
    let to = app.destination(to.ok_or(DeliveryError::NoEntry(index + 1))?)?;
    let policy = RetryPolicy::default();
    let mut failed = 0;
    loop {
        let Err(error) = app.notifier.send(&to, notification).await else {
            return Ok(());
        };
        failed += 1;
        let wait = policy.wait(failed, error.retry_after());
        let Some(wait) = wait.filter(|_| error.is_retryable()) else {
            return Err(error.into());
        };
        tracing::warn!(%error, "a notification is tried again");
        tokio::time::sleep(wait).await;
    }
}
