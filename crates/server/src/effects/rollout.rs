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
    rollout::{
        NoticeTone, Rollout, RolloutAggregate, RolloutEffect, RolloutInput, RolloutNotice,
        RolloutSpec, plan::PlanAction,
    },
    service::{self, ServiceRejection},
    target::ServiceEnvironment,
};
use shipway_drivers::notify::{Notification, NotificationSeverity, NotifyError, RetryPolicy};
use shipway_engine::{Driver, EngineError, Work};
use shipway_targets::{
    action_executor::{ActionExecutor, ActionReport, ExecutionError},
    target_registry::TargetMissing,
};

use super::{
    addresses::{self, AddressError},
    measure::{self, MeasuredSides},
    readiness,
    rollout_group::{self, BarrierError},
};
use crate::{
    app::{App, DestinationError, service_stream},
    read_models::analysis_series_until,
};

/// Moments of each side that a notification draws: both fit into a line of e-mail, and nearly into one of a telephone.
const PLOT_COLUMNS: usize = 20;

/// Carries out the effects of rollouts.
pub struct RolloutDriver(pub Weak<App>);

/// Why an action of a plan failed.
#[derive(Debug, thiserror::Error)]
enum PlanActionError {
    #[error(transparent)]
    Action(#[from] ExecutionError),
    #[error(transparent)]
    NoTarget(#[from] TargetMissing),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    #[error(transparent)]
    Service(#[from] EngineError<ServiceRejection>),
}

impl PlanActionError {
    /// The results of smoke tests that failed.
    fn into_smoke_report(self) -> Option<SmokeReport> {
        match self {
            Self::Action(error) => error.into_smoke_report(),
            Self::NoTarget(_) | Self::Address(_) | Self::Barrier(_) | Self::Service(_) => None,
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
            return RolloutInput::TimerFired;
        };
        let Some(rollout) = work.state.0.as_deref() else {
            return RolloutInput::TimerFired;
        };
        match &work.effect {
            RolloutEffect::ExecuteAction {
                plan,
                index,
                action,
            } => carry_out_action(&app, &work, rollout, (*plan, *index), action).await,
            RolloutEffect::Measure {
                exposure,
                candidate,
                stable,
            } => {
                let sides = MeasuredSides {
                    exposure: *exposure,
                    candidate: *candidate,
                    stable: *stable,
                };
                let sources = app.measurement_sources();
                measure::run(sources, &app.engines.rollouts, &work, rollout, sides).await;
                RolloutInput::TimerFired
            }
            RolloutEffect::WatchPeers { with } => {
                rollout_group::watch(&app, &work, rollout, with).await
            }
            RolloutEffect::WatchInstances { release, stable } => {
                let releases: Vec<_> = std::iter::once(*release).chain(*stable).collect();
                let Ok(target) = app
                    .workloads
                    .targets
                    .target(rollout.spec.environment.target)
                else {
                    return RolloutInput::TimerFired;
                };
                let place = rollout_environment(&rollout.spec);
                readiness::watch(&**target, &work, &place, &releases).await
            }
            RolloutEffect::NotifyService { end, observed } => {
                app.observations.live_evidence.forget(&rollout.spec.id);
                send_to_service(&app, rollout, end, observed).await
            }
            RolloutEffect::Notify {
                index,
                destination,
                notice,
            } => RolloutInput::NotificationFinished {
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
}

impl ActionRun<'_> {
    async fn carry_out(&self, action: &PlanAction) -> Result<ActionReport, PlanActionError> {
        let (app, spec) = (self.app, self.spec);
        let note = match action {
            PlanAction::ClaimAddresses { addresses } => {
                addresses::claim(app, self.work, spec, addresses).await?;
                None
            }
            PlanAction::Promote { release } => {
                self.execute(action).await?;
                self.promote_release(*release).await?;
                None
            }
            PlanAction::Barrier { with } => {
                rollout_group::await_group(app, self.work, self.rollout, with).await?;
                Some("all are there".to_owned())
            }
            PlanAction::Start { .. }
            | PlanAction::Await { .. }
            | PlanAction::Smoke { .. }
            | PlanAction::Shift { .. }
            | PlanAction::Drain { .. }
            | PlanAction::Stop { .. }
            | PlanAction::Hold { .. }
            | PlanAction::Ask { .. } => return self.execute(action).await,
        };
        Ok(ActionReport { note, smoke: None })
    }

    /// The part of an action that the target and the router carry out.
    async fn execute(&self, action: &PlanAction) -> Result<ActionReport, PlanActionError> {
        let executor = ActionExecutor {
            target: &**self
                .app
                .workloads
                .targets
                .target(self.spec.environment.target)?,
            traffic: &self.app.workloads.traffic,
            rollout: self.rollout,
            cancelled: &self.work.cancelled,
        };
        let addresses = served_addresses(self.app, self.spec).await;
        Ok(executor.carry_out(action, &addresses).await?)
    }

    /// Declares a release stable once its addresses are its own; from then on it is reached there.
    async fn promote_release(&self, release: ReleaseNumber) -> Result<(), PlanActionError> {
        let (app, spec) = (self.app, self.spec);
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

/// Where the environment of a rollout is reached now; at a first deployment, where the new release asks to be reached.
async fn served_addresses(app: &App, spec: &RolloutSpec) -> EnvironmentAddresses {
    let state = app
        .engines
        .services
        .state(&service_stream(&spec.id.service))
        .await;
    let state = state.ok().flatten();
    let served = state.and_then(|state| state.served_addresses(&spec.environment.name));
    served
        .unwrap_or_else(|| EnvironmentAddresses::new(&rollout_environment(spec), &spec.environment))
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
        .engines
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
            RolloutInput::ServiceNotified
        }
        Err(error) => {
            tracing::error!(%error, rollout = %id, "the service could not be told");
            RolloutInput::TimerFired
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
            app.server_addresses.url, spec.id.service, spec.id.number.0
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
