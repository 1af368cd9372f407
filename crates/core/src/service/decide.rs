//! What may happen next to a service: which push becomes a release, which release goes where, and who must wait for whom.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use shipway_workflow::job::Conclusion;

use super::{
    ServiceDecider,
    event::{
        AutoPromotion, Override, ReleaseOrigin, RolloutRequest, RolloutTrigger, RunArtifact,
        RunOrder, RunPurpose, ServiceEvent, ServiceInput,
    },
    push::Push,
    rejection::ServiceRejection,
    release_check::{release_of, require_environment},
    schedules::ScheduledWorkflow,
    state::ServiceState,
};
use crate::{
    aggregate::{Actor, Event},
    config::WhenBusy,
    ids::{EnvironmentName, ReleaseNumber, RolloutNumber, RunNumber},
    release::{Commit, Release, WorkflowFile},
    rollout::{
        RollbackCause, RolloutEnd, RolloutKind, RolloutOutcome, RolloutPace, RolloutSpec,
        strategy::ObservedState,
    },
};

/// Facts that follow from an input.
pub(super) fn decide(
    state: &ServiceState,
    input: ServiceInput,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<ServiceEvent>>, ServiceRejection> {
    let mut decider = ServiceDecider::new(state, by, now);
    decider.handle_input(input)?;
    decider.advance();
    Ok(decider.decided())
}

impl ServiceDecider {
    fn handle_input(&mut self, input: ServiceInput) -> Result<(), ServiceRejection> {
        self.refuse_while_deleted(&input)?;
        match input {
            push @ (ServiceInput::Pushed { .. } | ServiceInput::ReferenceMoved { .. }) => {
                self.handle_push(push)?;
            }
            ServiceInput::Deleted { reference } => {
                self.clear_timetable(&reference);
                if self.state.references.contains_key(&reference) {
                    self.emit(ServiceEvent::ReferenceDeleted { reference });
                }
            }
            ServiceInput::Dispatch {
                workflow,
                commit,
                reference,
                inputs,
            } => self.dispatch(workflow, commit, reference, inputs),
            ServiceInput::PullRequest(runs) => self.start_pull_request(*runs),
            ServiceInput::RunOpened(number) => {
                let run = self.state.open_runs.get(&number);
                if run.is_some_and(|run| !run.opened) {
                    self.emit(ServiceEvent::RunOpened { number });
                }
            }
            ServiceInput::RunEnded {
                number,
                conclusion,
                artifacts,
            } => {
                let order = self.state.open_runs.get(&number);
                let order = order.map(|run| run.order.clone());
                self.run_ended(number, conclusion, artifacts);
                if let Some(order) = order {
                    self.follow_run(&order, conclusion);
                }
            }
            ServiceInput::RolloutOpened(number) => {
                let rollout = self.state.active(number);
                if rollout.is_some_and(|(_, active)| !active.opened) {
                    self.emit(ServiceEvent::RolloutOpened { number });
                }
            }
            ServiceInput::PreemptionDelivered(number) => {
                let rollout = self.state.active(number);
                if rollout.is_some_and(|(_, active)| !active.preemption_delivered) {
                    self.emit(ServiceEvent::PreemptionDelivered { number });
                }
            }
            ServiceInput::Promoted { rollout, release } => self.promoted(rollout, release),
            ServiceInput::RolloutEnded {
                number,
                end,
                observed,
            } => self.rollout_ended(number, end, observed),
            ServiceInput::TimerFired => {}
            request => self.handle_request(request)?,
        }
        Ok(())
    }

    /// One request of a person or a job about releases, environments or tests.
    fn handle_request(&mut self, request: ServiceInput) -> Result<(), ServiceRejection> {
        match request {
            ServiceInput::TestsSeen(seen) => {
                if self.state.open_runs.contains_key(&seen.run)
                    && let Some(fact) = self.state.testing.record_results(*seen)
                {
                    self.emit(ServiceEvent::Tests(Box::new(fact)));
                }
            }
            ServiceInput::Quarantine(request) => {
                let fact = self.state.testing.quarantine(*request, self.now)?;
                self.emit(ServiceEvent::Tests(Box::new(fact)));
            }
            ServiceInput::ReleaseTest(test) => {
                let fact = self.state.testing.release(test, &self.by.to_string())?;
                self.emit(ServiceEvent::Tests(Box::new(fact)));
            }
            ServiceInput::DeployStep {
                run,
                artifact,
                environment,
            } => self.deploy_step(&run, artifact, &environment)?,
            ServiceInput::Deploy {
                release,
                environment,
                force,
                why,
            } => self.deploy(release, environment, force, why)?,
            ServiceInput::Rollback {
                environment,
                to,
                force,
                why,
            } => self.roll_back(&environment, to, force, why)?,
            ServiceInput::Retry(request) => self.retry(*request)?,
            ServiceInput::RejectRelease { release, reason } => {
                self.reject_release(&release, reason)?;
            }
            ServiceInput::UndoReleaseRejection { release, reason } => {
                self.undo_release_rejection(release, reason);
            }
            ServiceInput::ResumeEnvironment {
                environment,
                reason,
            } => self.resume(environment, reason)?,
            ServiceInput::Delete { scope, reason } => self.request_deletion(scope, reason)?,
            report => self.handle_report(report),
        }
        Ok(())
    }

    /// One report about the world: it is recorded where it is new.
    fn handle_report(&mut self, report: ServiceInput) {
        match report {
            ServiceInput::EnvironmentRemoved(environment) => self.environment_removed(environment),
            ServiceInput::ServiceRemoved(repository) => self.service_removed(repository),
            ServiceInput::HealthReported(report) => self.report_health(report),
            ServiceInput::HealthNotificationFinished {
                number,
                destination,
                failed,
            } => self.finish_health_notice(number, destination, failed),
            ServiceInput::PromotionGroupChanged { leader, groups } => {
                let known = self
                    .state
                    .promotion_groups
                    .get(&leader)
                    .cloned()
                    .unwrap_or_default();
                if known != groups {
                    self.emit(ServiceEvent::PromotionGroupChanged { leader, groups });
                }
            }
            ServiceInput::PeersNotified(groups) if self.state.notified_groups != groups => {
                self.emit(ServiceEvent::PeersNotified { groups });
            }
            ServiceInput::AddressesReported(asked) if self.state.reported_addresses != asked => {
                self.emit(ServiceEvent::AddressesReported { asked });
            }
            _ => {}
        }
    }

    fn dispatch(
        &mut self,
        workflow: WorkflowFile,
        commit: Commit,
        reference: String,
        inputs: BTreeMap<String, String>,
    ) {
        let config = self.state.config.as_ref();
        let order = RunOrder {
            number: self.state.last_run.next(),
            purpose: RunPurpose::Dispatch,
            workflow,
            commit,
            reference,
            before: None,
            event: "workflow_dispatch".to_owned(),
            by: Some(self.by.clone()),
            inputs,
            reports: config
                .map(|config| config.reports.clone())
                .unwrap_or_default(),
            environments: self.rules(None),
            event_payload: None,
            repository: config.and_then(|config| config.repository.clone()),
            default_branch: config.map(|config| config.branch.clone()),
            location: self.state.location.clone(),
            chain: 0,
        };
        self.emit(ServiceEvent::RunOrdered {
            order: Box::new(order),
        });
    }

    pub(super) fn pushed(
        &mut self,
        push: Box<Push>,
        workflows: Vec<WorkflowFile>,
        standing: Option<Vec<ScheduledWorkflow>>,
    ) {
        // Told twice: by git's hook, and by a server that found what its predecessor missed.
        if self.state.references.get(&push.reference) == Some(&push.commit.id) {
            return;
        }
        let sequence = self.state.pushes + 1;
        self.emit(ServiceEvent::Pushed {
            sequence,
            push: push.clone(),
        });
        if let Some(workflows) = standing {
            self.set_timetable(&push.reference, &push.commit, workflows);
        }
        for workflow in workflows {
            let order = RunOrder {
                number: self.state.last_run.next(),
                purpose: RunPurpose::Push { sequence },
                workflow,
                commit: push.commit.clone(),
                reference: push.reference.clone(),
                before: push.before.clone(),
                event: "push".to_owned(),
                by: Some(self.by.clone()),
                inputs: BTreeMap::new(),
                reports: push
                    .config
                    .as_ref()
                    .map(|config| config.reports.clone())
                    .unwrap_or_default(),
                environments: self.rules(push.config.as_deref()),
                event_payload: None,
                repository: (push.config.as_ref()).and_then(|config| config.repository.clone()),
                default_branch: push.config.as_ref().map(|config| config.branch.clone()),
                location: push.location.clone(),
                chain: 0,
            };
            self.emit(ServiceEvent::RunOrdered {
                order: Box::new(order),
            });
        }
    }

    fn run_ended(
        &mut self,
        number: RunNumber,
        conclusion: Conclusion,
        artifacts: Vec<RunArtifact>,
    ) {
        if !self.state.open_runs.contains_key(&number) {
            return self.run_again_ended(number, conclusion, artifacts);
        }
        let tested = self.state.in_tests.get(&number).cloned();
        self.emit(ServiceEvent::RunEnded {
            number,
            conclusion,
            artifacts,
        });
        if let Some((environment, release)) = tested {
            let place = self.state.environments.get(&environment);
            let is_retained = place.is_some_and(|place| place.retains(release.number));
            if conclusion == Conclusion::Success && is_retained {
                self.pass(&environment, &release);
            } else {
                let why = if conclusion == Conclusion::Success {
                    format!("{} was rolled back in {environment}", release.number)
                } else {
                    format!("the tests of {environment} failed (run {number})")
                };
                self.emit(ServiceEvent::PromotionBlocked {
                    environment,
                    release: release.number,
                    why,
                });
            }
        }
    }

    /// A run that was red was run again. Green at last, it is as if it had been green at once.
    fn run_again_ended(
        &mut self,
        number: RunNumber,
        conclusion: Conclusion,
        artifacts: Vec<RunArtifact>,
    ) {
        let tested = self.state.red_tests.get(&number).cloned();
        let is_known = tested.is_some() || self.state.red_push(number).is_some();
        if conclusion != Conclusion::Success || !is_known {
            return;
        }
        self.emit(ServiceEvent::RunEnded {
            number,
            conclusion,
            artifacts,
        });
        if let Some((environment, release)) = tested {
            let place = self.state.environments.get(&environment);
            if place.is_some_and(|place| place.retains(release.number)) {
                self.pass(&environment, &release);
            }
        }
    }

    /// Promotes the release to the next environment, if there is one.
    fn pass(&mut self, environment: &EnvironmentName, release: &Arc<Release>) {
        self.emit(ServiceEvent::TestsPassed {
            environment: environment.clone(),
            release: release.number,
        });
        if let Some(next) = release
            .environment_after(environment)
            .map(|next| next.name.clone())
        {
            let why = format!("promoted in {environment}");
            self.request_by_itself(RolloutRequest {
                kind: RolloutKind::Deploy,
                pace: RolloutPace::ByStrategy,
                trigger: RolloutTrigger::Automation,
                retry_of: None,
                by: self.requester(release),
                release: release.clone(),
                environment: next,
                auto_promotion: AutoPromotion::Next,
                why,
            });
        }
    }

    /// The person behind a request: the requester, or for automatic promotions the pusher of the release.
    pub(super) fn requester(&self, release: &Release) -> Option<Actor> {
        match &self.by {
            Actor::Person { .. } | Actor::Push { .. } => Some(self.by.clone()),
            Actor::Shipway(_) | Actor::Workload { .. } => release.by.clone(),
        }
    }

    /// Whether the caller is a person.
    pub(super) fn trigger(&self) -> RolloutTrigger {
        match &self.by {
            Actor::Person { .. } => RolloutTrigger::Person,
            Actor::Push { .. } | Actor::Shipway(_) | Actor::Workload { .. } => {
                RolloutTrigger::Automation
            }
        }
    }

    /// Refuses a release that was taken out of this environment before, unless the caller forces it.
    pub(super) fn refuse_bad(
        &self,
        environment: &EnvironmentName,
        release: &Release,
        force: Override,
    ) -> Result<(), ServiceRejection> {
        let place = self.state.environments.get(environment);
        let outcome = place.and_then(|place| place.blocked_releases.get(&release.number));
        match (outcome, force) {
            (None, _) | (Some(_), Override::Yes) => Ok(()),
            (Some(outcome), Override::No) => Err(ServiceRejection::MarkedBad {
                release: release.number,
                outcome: *outcome,
                environment: environment.clone(),
            }),
        }
    }

    /// Refuses while another rollout runs, where the file says `when_busy: refuse`.
    pub(super) fn refuse_busy(
        &self,
        environment: &EnvironmentName,
        release: &Release,
    ) -> Result<(), ServiceRejection> {
        let place = self.state.environments.get(environment);
        let running = place
            .and_then(|place| place.active.as_ref())
            .filter(|active| !active.promoted);
        let when_busy = release.environment(environment).map(|it| it.when_busy);
        match (running, when_busy) {
            (Some(active), Some(WhenBusy::Refuse)) => Err(ServiceRejection::Busy {
                environment: environment.clone(),
                running: active.spec.id.number,
            }),
            _ => Ok(()),
        }
    }

    fn deploy(
        &mut self,
        release: Arc<Release>,
        environment: Option<EnvironmentName>,
        force: Override,
        why: String,
    ) -> Result<(), ServiceRejection> {
        let (environment, auto_promotion) = match environment {
            Some(environment) => (environment, AutoPromotion::Stay),
            None => (
                release
                    .config
                    .environments
                    .first()
                    .map(|first| first.name.clone())
                    .ok_or(ServiceRejection::NoService)?,
                AutoPromotion::Next,
            ),
        };
        require_environment(&release, &environment)?;
        self.refuse_rejected(&release)?;
        self.refuse_branch(&environment, &release)?;
        self.refuse_bad(&environment, &release, force)?;
        self.refuse_busy(&environment, &release)?;
        self.request(RolloutRequest {
            kind: RolloutKind::Deploy,
            pace: RolloutPace::ByStrategy,
            trigger: self.trigger(),
            retry_of: None,
            by: self.requester(&release),
            release,
            environment,
            auto_promotion,
            why,
        });
        Ok(())
    }

    fn promoted(&mut self, rollout: RolloutNumber, number: ReleaseNumber) {
        let Some((environment, active)) = self.state.active(rollout) else {
            return;
        };
        let (environment, spec, auto_promotion) = (
            environment.clone(),
            active.spec.clone(),
            active.auto_promotion,
        );
        let (forward, already) = (spec.release().number == number, active.promoted);
        let release = match spec.stable() {
            _ if forward => spec.release().clone(),
            Some(stable) if stable.release.number == number => stable.release.clone(),
            _ => return,
        };
        if forward && already {
            return;
        }
        self.emit(ServiceEvent::Promoted {
            environment: environment.clone(),
            rollout,
            release: release.clone(),
        });
        if !forward {
            self.withdraw_rolled_back(&spec);
            return;
        }
        self.end_warm_set_for_next(&environment);
        if auto_promotion == AutoPromotion::Next {
            self.go_on(&environment, &release, &spec);
        }
    }

    /// After a promotion: the environment's tests first, where it has any.
    fn go_on(&mut self, environment: &EnvironmentName, release: &Arc<Release>, spec: &RolloutSpec) {
        let tests = spec
            .environment
            .tests
            .as_ref()
            .and_then(|path| release.tests.iter().find(|file| file.path == *path));
        match tests {
            Some(workflow) => {
                let order = RunOrder {
                    number: self.state.last_run.next(),
                    purpose: RunPurpose::Tests {
                        environment: environment.clone(),
                        release: release.number,
                    },
                    workflow: workflow.clone(),
                    commit: release.commit.clone(),
                    reference: format!("refs/heads/{}", release.config.branch),
                    before: None,
                    event: "deployment".to_owned(),
                    by: release.by.clone(),
                    inputs: BTreeMap::new(),
                    reports: release.config.reports.clone(),
                    environments: self.rules(Some(&release.config)),
                    event_payload: None,
                    repository: release.config.repository.clone(),
                    default_branch: Some(release.config.branch.clone()),
                    location: self.state.location.clone(),
                    chain: 0,
                };
                self.emit(ServiceEvent::RunOrdered {
                    order: Box::new(order),
                });
            }
            None => self.pass(environment, release),
        }
    }

    fn rollout_ended(&mut self, number: RolloutNumber, end: RolloutEnd, observed: ObservedState) {
        let Some((environment, active)) = self.state.active(number) else {
            return;
        };
        let (environment, active) = (environment.clone(), active.clone());
        let release = active.spec.release().number;
        let was_superseded = end.cause == Some(RollbackCause::Superseded);
        self.emit(ServiceEvent::RolloutEnded {
            number,
            environment: environment.clone(),
            release,
            outcome: end.outcome,
            cause: end.cause,
            why: end.why,
            observed,
        });
        match (end.outcome, end.cause) {
            (RolloutOutcome::Promoted, _) => self.roll_back_after_all(&environment, &active),
            // The rollback held the environment when it was requested; since then a person may have resumed it.
            (_, Some(RollbackCause::Person)) if !active.is_rolling_back_for_a_person() => {
                self.hold(&environment, &end.by, &end.reason);
            }
            // Where a person has stopped the retries of a rollback.
            (RolloutOutcome::Failed, _) => self.hold(&environment, &end.by, &end.reason),
            (
                RolloutOutcome::RolledBack
                | RolloutOutcome::Aborted
                | RolloutOutcome::Rejected
                | RolloutOutcome::Superseded,
                _,
            ) => {}
        }
        if end.outcome != RolloutOutcome::Promoted && !was_superseded {
            self.withdraw_rolled_back(&active.spec);
        }
    }

    /// Everything that follows from the state alone.
    fn advance(&mut self) {
        for fact in self.state.testing.leaving(self.now) {
            self.emit(ServiceEvent::Tests(Box::new(fact)));
        }
        self.fire_schedules();
        let settled: Vec<u64> = self
            .state
            .open_pushes
            .iter()
            .filter(|(_, push)| push.waiting.is_empty())
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in settled {
            self.finish_push(sequence);
        }
        let free: Vec<EnvironmentName> = (self.state.environments.iter())
            .filter(|(_, place)| place.active.is_none() && place.next_request().is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for environment in free {
            self.order_rollout(&environment);
        }
    }

    fn finish_push(&mut self, sequence: u64) {
        let Some(push) = self.state.open_pushes.get(&sequence).cloned() else {
            return;
        };
        match release_of(&push) {
            Ok((artifact, run)) => {
                let config = push
                    .push
                    .config
                    .as_deref()
                    .expect("a releasable push has a configuration")
                    .clone();
                let first = config.environments.first().map(|first| first.name.clone());
                let branch = push.push.branch().map(str::to_owned);
                let Push { commit, tests, .. } = push.push;
                let release = Arc::new(Release {
                    service: config.service.clone(),
                    number: self.state.last_release.next(),
                    sequence,
                    commit,
                    branch,
                    artifact,
                    run,
                    config,
                    tests,
                    by: push.by,
                    created_at: self.now,
                });
                self.emit(ServiceEvent::ReleaseCreated {
                    release: release.clone(),
                    origin: ReleaseOrigin::Push,
                });
                if let Some(environment) = first {
                    let why = run.map_or_else(
                        || "triggered by push".to_owned(),
                        |run| format!("run {run} succeeded"),
                    );
                    self.request_by_itself(RolloutRequest {
                        kind: RolloutKind::Deploy,
                        pace: RolloutPace::ByStrategy,
                        trigger: RolloutTrigger::Automation,
                        retry_of: None,
                        by: self.requester(&release),
                        release,
                        environment,
                        auto_promotion: AutoPromotion::Next,
                        why,
                    });
                }
            }
            Err(why) => self.emit(ServiceEvent::PushNotReleased {
                sequence,
                why: why.to_string(),
            }),
        }
    }
}
