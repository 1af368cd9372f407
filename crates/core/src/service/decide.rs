//! What may happen next to a service: which push becomes a release, which release goes where, and who must wait for whom.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{
    Services,
    event::{Artifact, Body, Force, Input, Onward, Purpose, Push, Request, RunOrder, Trigger},
    rejection::Rejection,
    releasable::{known_environment, release_of},
    standing::Standing,
    state::State,
};
use crate::{
    aggregate::{self, Actor, Event},
    config::WhenBusy,
    ids::{EnvironmentName, ReleaseNumber, RolloutNumber, RunNumber},
    release::{Release, WorkflowFile},
    rollout::{Cause, End, Kind, Outcome, Pace, Spec, strategy::Observed},
};

pub(super) type Decider = aggregate::Decider<Services>;

/// Facts that follow from an input.
pub(super) fn decide(
    state: &State,
    input: Input,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<Body>>, Rejection> {
    let mut decider = Decider::new(state, by, now);
    decider.hear(input)?;
    decider.settle();
    Ok(decider.decided())
}

impl Decider {
    fn hear(&mut self, input: Input) -> Result<(), Rejection> {
        match input {
            Input::Pushed {
                service: _,
                push,
                workflows,
                standing,
            } => self.pushed(push, workflows, standing),
            Input::Deleted { reference } => {
                self.clear_timetable(&reference);
                if self.state.references.contains_key(&reference) {
                    self.emit(Body::ReferenceDeleted { reference });
                }
            }
            Input::Dispatch {
                workflow,
                commit,
                reference,
                inputs,
            } => {
                let order = RunOrder {
                    number: self.state.last_run.next(),
                    purpose: Purpose::Dispatch,
                    workflow,
                    commit,
                    reference,
                    before: None,
                    event: "workflow_dispatch".to_owned(),
                    by: Some(self.by.clone()),
                    inputs,
                    reports: self
                        .state
                        .config
                        .as_ref()
                        .map(|config| config.reports.clone())
                        .unwrap_or_default(),
                    environments: self.rules(None),
                    about: None,
                    chain: 0,
                };
                self.emit(Body::RunOrdered {
                    order: Box::new(order),
                });
            }
            Input::TestsSeen(seen) => {
                if self.state.open_runs.contains_key(&seen.run)
                    && let Some(fact) = self.state.testing.hear(*seen)
                {
                    self.emit(Body::Tests(Box::new(fact)));
                }
            }
            Input::Quarantine(request) => {
                let fact = self.state.testing.quarantine(*request, self.now)?;
                self.emit(Body::Tests(Box::new(fact)));
            }
            Input::ReleaseTest(test) => {
                let fact = self.state.testing.release(test, &self.by.to_string())?;
                self.emit(Body::Tests(Box::new(fact)));
            }
            Input::RunOpened(number) => {
                if self
                    .state
                    .open_runs
                    .get(&number)
                    .is_some_and(|run| !run.opened)
                {
                    self.emit(Body::RunOpened { number });
                }
            }
            Input::RunEnded {
                number,
                green,
                conclusion,
                artifacts,
            } => {
                let order = self.state.open_runs.get(&number);
                let order = order.map(|run| run.order.clone());
                self.run_ended(number, green, artifacts);
                if let Some(order) = order {
                    self.follow_run(&order, conclusion);
                }
            }
            Input::DeployStep {
                run,
                artifact,
                environment,
            } => self.deploy_step(&run, artifact, &environment)?,
            Input::Deploy {
                release,
                environment,
                force,
                why,
            } => self.deploy(release, environment, force, why)?,
            Input::Rollback {
                environment,
                to,
                force,
                why,
            } => self.roll_back(&environment, to, force, why)?,
            Input::Retry(request) => self.retry(*request)?,
            Input::ResumeEnvironment {
                environment,
                reason,
            } => self.resume(environment, reason)?,
            Input::HealthReported(report) => self.report_health(report),
            Input::HealthNoticeSettled {
                number,
                destination,
                failed,
            } => self.settle_health_notice(number, destination, failed),
            Input::Tied { leader, groups } => {
                let known = self.state.tied.get(&leader).cloned().unwrap_or_default();
                if known != groups {
                    self.emit(Body::Tied { leader, groups });
                }
            }
            Input::FellowsTold(groups) => {
                if self.state.told != groups {
                    self.emit(Body::FellowsTold { groups });
                }
            }
            Input::AddressesReported(asked) => {
                if self.state.reported_addresses != asked {
                    self.emit(Body::AddressesReported { asked });
                }
            }
            Input::RolloutOpened(number) => {
                if self
                    .state
                    .active(number)
                    .is_some_and(|(_, active)| !active.opened)
                {
                    self.emit(Body::RolloutOpened { number });
                }
            }
            Input::WayAnswered(number) => {
                if self
                    .state
                    .active(number)
                    .is_some_and(|(_, active)| !active.way_answered)
                {
                    self.emit(Body::WayAnswered { number });
                }
            }
            Input::Promoted { rollout, release } => self.promoted(rollout, release),
            Input::RolloutEnded {
                number,
                end,
                observed,
            } => self.rollout_ended(number, end, observed),
            Input::Woken => {}
        }
        Ok(())
    }

    fn pushed(
        &mut self,
        push: Box<Push>,
        workflows: Vec<WorkflowFile>,
        standing: Option<Vec<Standing>>,
    ) {
        // Told twice: by git's hook, and by a server that found what its predecessor missed.
        if self.state.references.get(&push.reference) == Some(&push.commit.id) {
            return;
        }
        let sequence = self.state.pushes + 1;
        self.emit(Body::Pushed {
            sequence,
            push: push.clone(),
        });
        if let Some(workflows) = standing {
            self.set_timetable(&push, workflows);
        }
        for workflow in workflows {
            let order = RunOrder {
                number: self.state.last_run.next(),
                purpose: Purpose::Push { sequence },
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
                about: None,
                chain: 0,
            };
            self.emit(Body::RunOrdered {
                order: Box::new(order),
            });
        }
    }

    fn run_ended(&mut self, number: RunNumber, green: bool, artifacts: Vec<Artifact>) {
        if !self.state.open_runs.contains_key(&number) {
            return self.run_again_ended(number, green, artifacts);
        }
        let tested = self.state.in_tests.get(&number).cloned();
        self.emit(Body::RunEnded {
            number,
            green,
            artifacts,
        });
        if let Some((environment, release)) = tested {
            if green {
                self.pass(&environment, &release);
            } else {
                let why = format!("the tests of {environment} are red (run {number})");
                self.emit(Body::Held {
                    environment,
                    release: release.number,
                    why,
                });
            }
        }
    }

    /// A run that was red was run again. Green at last, it is as if it had been green at once.
    fn run_again_ended(&mut self, number: RunNumber, green: bool, artifacts: Vec<Artifact>) {
        let tested = self.state.red_tests.get(&number).cloned();
        if !green || tested.is_none() && self.state.red_push(number).is_none() {
            return;
        }
        self.emit(Body::RunEnded {
            number,
            green,
            artifacts,
        });
        if let Some((environment, release)) = tested {
            let place = self.state.environments.get(&environment);
            let stable = place.and_then(|place| place.stable.as_ref());
            if stable.is_some_and(|stable| stable.number == release.number) {
                self.pass(&environment, &release);
            }
        }
    }

    /// The release goes on to the environment after this one, if there is one.
    fn pass(&mut self, environment: &EnvironmentName, release: &Arc<Release>) {
        self.emit(Body::Passed {
            environment: environment.clone(),
            release: release.number,
        });
        if let Some(next) = release
            .environment_after(environment)
            .map(|next| next.name.clone())
        {
            let why = format!("promoted in {environment}");
            self.request_by_itself(Request {
                kind: Kind::Deploy,
                pace: Pace::ByStrategy,
                trigger: Trigger::Automation,
                retry_of: None,
                by: self.asked_by(release),
                release: release.clone(),
                environment: next,
                onward: Onward::Next,
                why,
            });
        }
    }

    /// Who is behind a request: the one who asks; where Shipway goes on by itself, who pushed the release.
    pub(super) fn asked_by(&self, release: &Release) -> Option<Actor> {
        match &self.by {
            Actor::Person(_) | Actor::Push(_) => Some(self.by.clone()),
            Actor::Shipway(_) => release.by.clone(),
        }
    }

    /// Whether the caller is a person.
    pub(super) fn trigger(&self) -> Trigger {
        match &self.by {
            Actor::Person(_) => Trigger::Person,
            Actor::Push(_) | Actor::Shipway(_) => Trigger::Automation,
        }
    }

    /// Refuses a release that was taken out of this environment before, unless the caller forces it.
    pub(super) fn refuse_bad(
        &self,
        environment: &EnvironmentName,
        release: &Release,
        force: Force,
    ) -> Result<(), Rejection> {
        let place = self.state.environments.get(environment);
        let outcome = place.and_then(|place| place.bad.get(&release.number));
        match (outcome, force) {
            (None, _) | (Some(_), Force::Yes) => Ok(()),
            (Some(outcome), Force::No) => Err(Rejection::MarkedBad {
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
    ) -> Result<(), Rejection> {
        let place = self.state.environments.get(environment);
        let running = place
            .and_then(|place| place.active.as_ref())
            .filter(|active| !active.promoted);
        let when_busy = release.environment(environment).map(|it| it.when_busy);
        match (running, when_busy) {
            (Some(active), Some(WhenBusy::Refuse)) => Err(Rejection::Busy {
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
        force: Force,
        why: String,
    ) -> Result<(), Rejection> {
        let (environment, onward) = match environment {
            Some(environment) => (environment, Onward::Stay),
            None => (
                release
                    .config
                    .environments
                    .first()
                    .map(|first| first.name.clone())
                    .ok_or(Rejection::NoService)?,
                Onward::Next,
            ),
        };
        known_environment(&release, &environment)?;
        self.refuse_bad(&environment, &release, force)?;
        self.refuse_busy(&environment, &release)?;
        self.request(Request {
            kind: Kind::Deploy,
            pace: Pace::ByStrategy,
            trigger: self.trigger(),
            retry_of: None,
            by: self.asked_by(&release),
            release,
            environment,
            onward,
            why,
        });
        Ok(())
    }

    fn promoted(&mut self, rollout: RolloutNumber, number: ReleaseNumber) {
        let Some((environment, active)) = self.state.active(rollout) else {
            return;
        };
        let (environment, spec, onward) = (environment.clone(), active.spec.clone(), active.onward);
        let (forward, already) = (spec.release.number == number, active.promoted);
        let release = match &spec.stable {
            _ if forward => spec.release.clone(),
            Some(stable) if stable.release.number == number => stable.release.clone(),
            _ => return,
        };
        if forward && already {
            return;
        }
        self.emit(Body::Promoted {
            environment: environment.clone(),
            rollout,
            release: release.clone(),
        });
        if !forward {
            return;
        }
        self.end_keep_for_next(&environment);
        if onward == Onward::Next {
            self.go_on(&environment, &release, &spec);
        }
    }

    /// After a promotion: the environment's tests first, where it has any.
    fn go_on(&mut self, environment: &EnvironmentName, release: &Arc<Release>, spec: &Spec) {
        let tests = spec
            .environment
            .tests
            .as_ref()
            .and_then(|path| release.tests.iter().find(|file| file.path == *path));
        match tests {
            Some(workflow) => {
                let order = RunOrder {
                    number: self.state.last_run.next(),
                    purpose: Purpose::Tests {
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
                    about: None,
                    chain: 0,
                };
                self.emit(Body::RunOrdered {
                    order: Box::new(order),
                });
            }
            None => self.pass(environment, release),
        }
    }

    fn rollout_ended(&mut self, number: RolloutNumber, end: End, observed: Observed) {
        let Some((environment, active)) = self.state.active(number) else {
            return;
        };
        let (environment, active) = (environment.clone(), active.clone());
        let release = active.spec.release.number;
        self.emit(Body::RolloutEnded {
            number,
            environment: environment.clone(),
            release,
            outcome: end.outcome,
            cause: end.cause,
            why: end.why,
            observed,
        });
        match (end.outcome, end.cause) {
            (Outcome::Promoted, _) => self.roll_back_after_all(&environment, &active),
            // A rollback has held it when it was asked for; since then a person may have resumed it.
            (_, Some(Cause::Person)) if !active.is_going_back_for_a_person() => {
                self.hold(&environment, &end.by, &end.reason);
            }
            // Where a person has stopped the retries of a rollback.
            (Outcome::Failed, _) => self.hold(&environment, &end.by, &end.reason),
            (
                Outcome::RolledBack | Outcome::Aborted | Outcome::Rejected | Outcome::Superseded,
                _,
            ) => {}
        }
    }

    /// Everything that follows from the state alone.
    fn settle(&mut self) {
        for fact in self.state.testing.leaving(self.now) {
            self.emit(Body::Tests(Box::new(fact)));
        }
        self.keep_to_timetable();
        let settled: Vec<u64> = self
            .state
            .open_pushes
            .iter()
            .filter(|(_, push)| push.waiting.is_empty())
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in settled {
            self.settle_push(sequence);
        }
        let free: Vec<EnvironmentName> = (self.state.environments.iter())
            .filter(|(_, place)| place.active.is_none() && place.next_request().is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for environment in free {
            self.order_rollout(&environment);
        }
    }

    fn settle_push(&mut self, sequence: u64) {
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
                let Push { commit, tests, .. } = push.push;
                let release = Arc::new(Release {
                    service: config.service.clone(),
                    number: self.state.last_release.next(),
                    sequence,
                    commit,
                    artifact,
                    run,
                    config,
                    tests,
                    by: push.by,
                    created_at: self.now,
                });
                self.emit(Body::ReleaseMade {
                    release: release.clone(),
                    by_step: false,
                });
                if let Some(environment) = first {
                    let why = run.map_or_else(
                        || "its commit was pushed".to_owned(),
                        |run| format!("run {run} is green"),
                    );
                    self.request_by_itself(Request {
                        kind: Kind::Deploy,
                        pace: Pace::ByStrategy,
                        trigger: Trigger::Automation,
                        retry_of: None,
                        by: self.asked_by(&release),
                        release,
                        environment,
                        onward: Onward::Next,
                        why,
                    });
                }
            }
            Err(why) => self.emit(Body::PushSettled { sequence, why }),
        }
    }
}
