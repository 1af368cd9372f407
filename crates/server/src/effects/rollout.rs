//! What a rollout asks for: instances, probes, shares of traffic, measurements, news.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use shipway_analysis::plot::{deciding_series, sparkline};
use shipway_core::{
    address::EnvironmentAddresses,
    aggregate::Actor,
    check::SmokeReport,
    ids::ReleaseNumber,
    rollout::{
        NoticeTone, Rollout, RolloutAggregate, RolloutEffect, RolloutEnd, RolloutInput,
        RolloutNotice, RolloutSpec, RolloutVariant, plan::PlanAction, strategy::ObservedState,
    },
    service::{self, ServiceRejection},
    target::ServiceEnvironment,
};
use shipway_drivers::notify::{Notification, NotificationSeverity};
use shipway_engine::{Driver, EngineError, Store, Work};
use shipway_targets::{
    action_executor::{ActionExecutor, ActionReport, ExecutionError},
    target::ReadinessError,
};

use super::{
    addresses::RolloutAddresses,
    measure::{self, MeasuredSides},
    notice_delivery::NoticeDelivery,
    readiness,
    rollout_group::{self, BarrierError},
};
use crate::{
    address_book::{AddressError, move_addresses},
    capabilities::{
        MeasurementSources, MetricProviders, ReleaseObservations, ServerAddresses, Workloads,
    },
    delivery_engines::DeliveryEngines,
    read_models::analysis_series_until,
};

/// Moments of each side that a notification draws: both fit into a line of e-mail, and nearly into one of a telephone.
const PLOT_COLUMNS: usize = 20;

/// Carries out the effects of rollouts.
pub(crate) struct RolloutDriver {
    pub(crate) engines: Weak<DeliveryEngines>,
    /// The log, which has the measurements that notices draw.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) workloads: Workloads,
    pub(crate) observations: ReleaseObservations,
    pub(crate) providers: MetricProviders,
    pub(crate) server: ServerAddresses,
    pub(crate) notices: NoticeDelivery,
}

/// Why an action of a plan failed.
#[derive(Debug, thiserror::Error)]
enum PlanActionError {
    #[error(transparent)]
    Action(#[from] ExecutionError),
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
            Self::Address(_) | Self::Barrier(_) | Self::Service(_) => None,
        }
    }
}

#[async_trait]
impl Driver<RolloutAggregate> for RolloutDriver {
    async fn carry_out(&self, work: Work<RolloutAggregate>) -> RolloutInput {
        // The engines outlive their effects but for the moment in which both end.
        let Some(engines) = self.engines.upgrade() else {
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
            } => {
                let run = ActionRun {
                    driver: self,
                    engines: &engines,
                    work: &work,
                    rollout,
                    spec: &rollout.spec,
                };
                carry_out_action(&run, (*plan, *index), action).await
            }
            RolloutEffect::Measure {
                exposure,
                candidate,
                stable,
            } => {
                let sides = MeasuredSides {
                    exposure: *exposure,
                    candidate: candidate.release(),
                    stable: stable.map(RolloutVariant::release),
                };
                let sources = self.measurement_sources();
                measure::run(sources, &engines.rollouts, &work, rollout, sides).await;
                RolloutInput::TimerFired
            }
            RolloutEffect::WatchPeers { with } => {
                rollout_group::watch(&engines, &work, rollout, with).await
            }
            RolloutEffect::WatchInstances { release, stable } => {
                let releases: Vec<_> = std::iter::once(*release).chain(*stable).collect();
                self.watch_instances(&work, &rollout.spec, &releases).await
            }
            RolloutEffect::NotifyService { end, observed } => {
                self.observations.live_evidence.forget(&rollout.spec.id);
                self.notify_service(&engines, rollout, end, observed).await
            }
            RolloutEffect::Notify {
                index,
                destination,
                notice,
            } => {
                let notice = (*index, notice);
                self.notify(&engines, rollout, notice, *destination).await
            }
        }
    }
}

fn rollout_environment(spec: &RolloutSpec) -> ServiceEnvironment {
    spec.release().service_environment(&spec.environment.name)
}

/// Carries out the action `index` of the plan with the number `plan`.
async fn carry_out_action(
    run: &ActionRun<'_>,
    (plan, index): (u32, usize),
    action: &PlanAction,
) -> RolloutInput {
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
    driver: &'a RolloutDriver,
    engines: &'a DeliveryEngines,
    work: &'a Work<RolloutAggregate>,
    rollout: &'a Rollout,
    spec: &'a RolloutSpec,
}

impl ActionRun<'_> {
    fn addresses(&self) -> RolloutAddresses<'_> {
        RolloutAddresses {
            engines: self.engines,
            workloads: &self.driver.workloads,
            server: &self.driver.server,
            spec: self.spec,
        }
    }

    async fn carry_out(&self, action: &PlanAction) -> Result<ActionReport, PlanActionError> {
        let note = match action {
            PlanAction::ClaimAddresses { addresses } => {
                self.addresses().claim(self.work, addresses).await?;
                None
            }
            PlanAction::Promote {
                variant: RolloutVariant::Release(release),
            } => {
                self.execute(action).await?;
                self.promote_release(*release).await?;
                None
            }
            PlanAction::Barrier { with } => {
                rollout_group::await_group(self.engines, self.work, self.rollout, with).await?;
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
        let Workloads { targets, traffic } = &self.driver.workloads;
        let executor = ActionExecutor {
            targets,
            traffic,
            rollout: self.rollout,
            proxy_address: self.driver.server.proxy_address,
            cancelled: &self.work.cancelled,
        };
        let addresses = served_addresses(self.engines, self.spec).await;
        Ok(executor.carry_out(action, &addresses).await?)
    }

    /// Declares a release stable once its addresses are its own; from then on it is reached there.
    async fn promote_release(&self, release: ReleaseNumber) -> Result<(), PlanActionError> {
        let (engines, spec) = (self.engines, self.spec);
        self.addresses().verify(release).await?;
        let input = service::ServiceInput::Promoted {
            rollout: spec.id.number,
            release,
        };
        let by = Actor::Shipway(format!("rollout {}", spec.id.number));
        let service = &spec.id.service;
        // A rollback that has begun meanwhile makes the old release stable: this must not come after it.
        if self.work.cancelled.is_cancelled() {
            return Err(ExecutionError::from(ReadinessError::Cancelled).into());
        }
        engines.send_to_service(service, input, by).await?;
        let traffic = &self.driver.workloads.traffic;
        Ok(move_addresses(engines, traffic, service).await?)
    }
}

/// Where the environment of a rollout is reached now; at a first deployment, where the new release asks to be reached.
async fn served_addresses(engines: &DeliveryEngines, spec: &RolloutSpec) -> EnvironmentAddresses {
    let state = engines.service(&spec.id.service).await.ok().flatten();
    let served = state.and_then(|state| state.served_addresses(&spec.environment.name));
    served.unwrap_or_else(|| spec.environment.addresses(&rollout_environment(spec)))
}

impl RolloutDriver {
    const fn measurement_sources(&self) -> MeasurementSources<'_> {
        MeasurementSources {
            workloads: &self.workloads,
            observations: &self.observations,
            providers: &self.providers,
        }
    }

    async fn watch_instances(
        &self,
        work: &Work<RolloutAggregate>,
        spec: &RolloutSpec,
        releases: &[ReleaseNumber],
    ) -> RolloutInput {
        let targets = &self.workloads.targets;
        readiness::watch(targets, work, &rollout_environment(spec), releases).await
    }

    /// Notifies the service that its rollout has ended.
    async fn notify_service(
        &self,
        engines: &DeliveryEngines,
        rollout: &Rollout,
        end: &RolloutEnd,
        observed: &ObservedState,
    ) -> RolloutInput {
        let id = &rollout.spec.id;
        let input = service::ServiceInput::RolloutEnded {
            number: id.number,
            end: end.clone(),
            observed: observed.clone(),
        };
        let by = Actor::Shipway(format!("rollout {}", id.number));
        if let Err(error) = engines.send_to_service(&id.service, input, by).await {
            tracing::error!(%error, rollout = %id, "the service could not be notified");
            return RolloutInput::TimerFired;
        }
        let traffic = &self.workloads.traffic;
        if let Err(error) = move_addresses(engines, traffic, &id.service).await {
            // The next start of the server restores them from the log.
            tracing::warn!(%error, rollout = %id, "the routes of its service can't follow its addresses");
        }
        RolloutInput::ServiceNotified
    }

    /// Queues a notice for one destination.
    async fn notify(
        &self,
        engines: &DeliveryEngines,
        rollout: &Rollout,
        (index, notice): (usize, &RolloutNotice),
        destination: usize,
    ) -> RolloutInput {
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
            release: Some(spec.release().number),
            rollout: Some(spec.id.number),
            url: Some(format!(
                "{}/rollouts/{}/{}",
                self.notices.pages_url, spec.id.service, spec.id.number.0
            )),
            at: notice.at,
            plot: plot(&*self.store, rollout, notice).await,
            facts: vec![(
                "commit".to_owned(),
                format!(
                    "{} {}",
                    spec.release().commit.id.short(),
                    spec.release().commit.subject
                ),
            )],
        };
        let to = spec.environment.notify.get(destination);
        let notices = &self.notices;
        let queued = notices.enqueue(engines, to, destination, &notification);
        match queued.await {
            Err(error) if error.is_temporary() => {
                tracing::warn!(%error, "a notification can't be queued; retrying");
                RolloutInput::TimerFired
            }
            queued => RolloutInput::NotificationFinished {
                index,
                destination,
                failed: queued.err().map(|error| error.to_string()),
            },
        }
    }
}

/// A one-line plot of the deciding metric until the notice. The notification is sent without it when the analysis can't be read.
async fn plot(log: &dyn Store, rollout: &Rollout, notice: &RolloutNotice) -> Option<String> {
    let all = analysis_series_until(log, &rollout.spec.id, notice.at)
        .await
        .unwrap_or_default();
    let metric = rollout.evidence.judgement().and_then(|it| it.metric);
    let series = deciding_series(&all, metric)?;
    // A release that is promoted at once has been observed, and nothing of it measured.
    let is_measured = series.points.iter().any(|point| point.canary.is_some());
    let line = is_measured.then(|| sparkline(series, PLOT_COLUMNS));
    line.filter(|line| !line.is_empty())
}
