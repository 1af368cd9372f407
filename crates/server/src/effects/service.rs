//! Carries out the effects of services: opens streams of runs and rollouts, and preempts rollouts.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use shipway_core::{
    aggregate::Actor,
    ids::{EnvironmentName, RolloutId, RunId, ServiceName},
    rollout::{self, AbortCause},
    run::{RunInput, RunRejection, RunSpec},
    secret::{SecretInput, SecretRejection, secret_stream},
    service::{Preemption, RunOrder, ServiceAggregate, ServiceEffect, ServiceInput, ServiceState},
    source_repository::SourceRepository,
};
use shipway_drivers::{
    git::GitRepositories,
    jobs::JobExecutor,
    reusable_workflows::{calls_unread_workflow, read_called_workflows},
};
use shipway_engine::{Driver, EngineError, Store, Work};

use super::{
    addresses, environment_health, notice_delivery::NoticeDelivery, removal, rollout_group,
    run::claim_run_folder,
};
use crate::{
    baseline_history::{BaselineHistory, with_stable_traffic},
    capabilities::{WorkflowSources, Workloads},
    delivery_engines::DeliveryEngines,
    secrets::SecretStore,
};

/// Carries out the effects of services.
pub(crate) struct ServiceDriver {
    pub(crate) engines: Weak<DeliveryEngines>,
    /// Claims the folders of runs.
    pub(crate) executor: Arc<dyn JobExecutor>,
    pub(crate) workflows: WorkflowSources,
    /// The repository of services whose configuration names none.
    pub(crate) repository: Option<SourceRepository>,
    pub(crate) repositories: Arc<GitRepositories>,
    /// The log.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) workloads: Workloads,
    pub(crate) baseline_history: Arc<BaselineHistory>,
    pub(crate) notices: NoticeDelivery,
    pub(crate) secrets: SecretStore,
}

#[async_trait]
impl Driver<ServiceAggregate> for ServiceDriver {
    async fn carry_out(&self, work: Work<ServiceAggregate>) -> ServiceInput {
        // The engines outlive their effects but for the moment in which both end.
        let Some(engines) = self.engines.upgrade() else {
            return ServiceInput::TimerFired;
        };
        let service = work.state.name.clone();
        match work.effect {
            ServiceEffect::OpenRun(order) => self.open_run(&engines, &work.stream, *order).await,
            ServiceEffect::OpenRollout(spec) => {
                let (targets, history) = (&self.workloads.targets, &self.baseline_history);
                let spec = Box::new(with_stable_traffic(targets, history, *spec).await);
                let number = spec.id.number;
                let shipway = || Actor::Shipway(spec.why.clone());
                let by = spec.by.clone().unwrap_or_else(shipway);
                match engines
                    .rollouts
                    .send(&spec.id.stream(), rollout::RolloutInput::Open(spec), by)
                    .await
                {
                    Ok(_) => ServiceInput::RolloutOpened(number),
                    Err(error) => {
                        tracing::error!(%error, rollout = %number, "the rollout could not be opened");
                        ServiceInput::TimerFired
                    }
                }
            }
            ServiceEffect::NotifyPeers { peers, groups } => match service {
                Some(leader) => {
                    rollout_group::notify_members(&engines, &leader, &peers, &groups).await
                }
                None => ServiceInput::TimerFired,
            },
            ServiceEffect::ReportAddresses(asked) => match service {
                Some(service) => addresses::report(&engines, &service, asked).await,
                None => ServiceInput::TimerFired,
            },
            ServiceEffect::NotifyHealth {
                notice,
                destination,
            } => match service {
                Some(service) => {
                    let notice = (&*notice, destination);
                    environment_health::notify(&self.notices, &engines, &service, notice).await
                }
                None => ServiceInput::TimerFired,
            },
            ServiceEffect::RemoveEnvironment(environment) => {
                self.remove_environment(&work.state, environment).await
            }
            ServiceEffect::RemoveService => self.remove_service(&engines, &work.state).await,
            ServiceEffect::SendPreemption { number, preemption } => {
                let Some(service) = service else {
                    return ServiceInput::TimerFired;
                };
                let id = RolloutId { service, number };
                let (input, by) = preemption_input(preemption);
                // A refusal means that it ends by itself.
                if let Err(error) = engines.rollouts.send(&id.stream(), input, by).await {
                    tracing::debug!(%error, rollout = %id, "requested the preemption");
                }
                ServiceInput::PreemptionDelivered(number)
            }
        }
    }
}

/// The input that preempts a rollout, and its actor.
fn preemption_input(preemption: Preemption) -> (rollout::RolloutInput, Actor) {
    match preemption {
        Preemption::Supersede { by } => {
            automatic_abort(AbortCause::Superseded, format!("superseded by {by}"))
        }
        Preemption::RollBack { by, reason } => {
            let cause = AbortCause::Person;
            (rollout::RolloutInput::Abort { cause, reason }, by)
        }
        Preemption::Withdraw {
            release,
            environment,
        } => {
            let reason = format!("{release} was rolled back in {environment}");
            automatic_abort(AbortCause::Withdrawn, reason)
        }
        Preemption::Finish { next } => {
            let reason = rollout::describe_warm_set_end(next);
            (
                rollout::RolloutInput::EndKeep { next },
                Actor::Shipway(reason),
            )
        }
    }
}

fn automatic_abort(cause: AbortCause, reason: String) -> (rollout::RolloutInput, Actor) {
    let by = Actor::Shipway(reason.clone());
    (rollout::RolloutInput::Abort { cause, reason }, by)
}

impl ServiceDriver {
    async fn remove_environment(
        &self,
        state: &ServiceState,
        environment: EnvironmentName,
    ) -> ServiceInput {
        match state.name.clone() {
            Some(service) => {
                removal::remove_environment(&self.workloads, state, service, environment).await
            }
            None => ServiceInput::TimerFired,
        }
    }

    async fn remove_service(
        &self,
        engines: &DeliveryEngines,
        state: &ServiceState,
    ) -> ServiceInput {
        match state.name.clone() {
            Some(service) => {
                if let Err(error) = self.remove_secrets(engines, &service).await {
                    tracing::warn!(%error, %service, "the secrets of a service can't be removed yet");
                    return ServiceInput::TimerFired;
                }
                let location = state.location.as_ref();
                let repositories = self.repositories.clone();
                removal::remove_service(&*self.store, repositories, service, location).await
            }
            None => ServiceInput::TimerFired,
        }
    }

    async fn remove_secrets(
        &self,
        engines: &DeliveryEngines,
        service: &ServiceName,
    ) -> Result<(), EngineError<SecretRejection>> {
        let stream = secret_stream(Some(service));
        if engines.secrets.state(&stream).await?.is_some() {
            let by = Actor::Shipway("the service was deleted".to_owned());
            let input = SecretInput::RemoveAll;
            let outcome = engines.secrets.send(&stream, input, by).await?;
            self.secrets.refresh(&stream, outcome.state);
        }
        Ok(())
    }

    async fn open_run(
        &self,
        engines: &DeliveryEngines,
        stream: &str,
        mut order: RunOrder,
    ) -> ServiceInput {
        let number = order.number;
        let Some(service) = stream
            .strip_prefix("service/")
            .and_then(|name| name.parse().ok())
        else {
            return ServiceInput::TimerFired;
        };
        let id = RunId { service, number };
        // Opened before a crash, it has all that it needs.
        let known = engines.runs.state(&id.stream()).await.ok().flatten();
        if known.is_none_or(|state| state.0.is_none()) && calls_unread_workflow(&order.workflow) {
            let WorkflowSources { actions, scratch } = &self.workflows;
            for note in read_called_workflows(&mut order.workflow, actions, scratch).await {
                tracing::warn!(run = %id, "{note}");
            }
        }
        match self.open_run_stream(engines, &id, order).await {
            Ok(()) => ServiceInput::RunOpened(number),
            Err(error) => {
                tracing::error!(%error, run = %id, "the run could not be opened");
                ServiceInput::TimerFired
            }
        }
    }

    /// Opens the stream of a run that was ordered.
    async fn open_run_stream(
        &self,
        engines: &DeliveryEngines,
        id: &RunId,
        order: RunOrder,
    ) -> Result<(), EngineError<RunRejection>> {
        let shipway = || Actor::Shipway(format!("{} of {}", order.event, order.reference));
        let by = order.by.clone().unwrap_or_else(shipway);
        // A run that is already open keeps its uid.
        let uid = uuid::Uuid::now_v7().to_string();
        let uid = uid.parse().expect("a UUID is a valid uid");
        let mut spec = RunSpec::from_order(id.clone(), uid, order);
        spec.repository = spec.repository.or_else(|| self.repository.clone());
        spec.vars = self.secrets.variables(&id.service, None);
        let input = RunInput::Open(Box::new(spec));
        let opened = engines.runs.send(&id.stream(), input, by).await?;
        if let Some(run) = opened.state.0.as_deref()
            && let Err(error) = claim_run_folder(&*self.executor, &run.spec).await
        {
            // Claimed again before its first job; that fails with the reason.
            tracing::warn!(%error, run = %id, "the folder of a run can't be prepared");
        }
        Ok(())
    }
}
