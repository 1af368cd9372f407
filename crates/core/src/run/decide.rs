//! What may happen next to a run.

use jiff::Timestamp;
use shipway_workflow::{
    graph::{GraphDecision, WorkflowProgress},
    job::{Conclusion, JobKey},
    model::RetryWhen,
};

use super::{
    RunDecider,
    event::{RunEffect, RunEvent, RunInput, RunRejection},
    gate,
    job_lookup::is_over,
    job_record::JobRecord,
    rerun,
    state::{Run, RunEnd, RunPlan, RunState},
};
use crate::{
    aggregate::{Actor, Event, PendingWork},
    service,
};

/// How much of a run must be looked at after an input. Before it nothing followed any more: each decision ends so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AffectedJobs {
    Nowhere,
    /// At what hangs on this job, which has ended.
    After(JobKey),
    /// At all of it.
    Everywhere,
}

/// Facts that follow from an input.
pub(super) fn decide(
    state: &RunState,
    input: RunInput,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<RunEvent>>, RunRejection> {
    let look = affected_jobs(&input);
    decide_looking(state, input, by, now, look)
}

/// The scope of an input's consequences apart from its own job.
fn affected_jobs(input: &RunInput) -> AffectedJobs {
    match input {
        RunInput::JobStarted { .. }
        | RunInput::StepFinished { .. }
        | RunInput::Annotated { .. }
        | RunInput::ArtifactStored { .. }
        | RunInput::StorageDelayed { .. }
        | RunInput::TestsReported { .. }
        | RunInput::ShowSecrets { .. }
        | RunInput::ServiceNotified => AffectedJobs::Nowhere,
        RunInput::JobEnded { key, .. } | RunInput::WorkerLost { key, .. } => {
            AffectedJobs::After(key.clone())
        }
        RunInput::Open(_)
        | RunInput::Rerun { .. }
        | RunInput::Cancel { .. }
        | RunInput::Gate(_)
        | RunInput::TimerFired => AffectedJobs::Everywhere,
    }
}

/// The same, looking no further than `look`; [`AffectedJobs::Everywhere`] is always right.
pub(super) fn decide_looking(
    state: &RunState,
    input: RunInput,
    by: Actor,
    now: Timestamp,
    look: AffectedJobs,
) -> Result<Vec<Event<RunEvent>>, RunRejection> {
    let mut decider = RunDecider::new(state, by, now);
    match input {
        RunInput::Open(spec) => {
            if state.0.is_none() {
                decider.emit(RunEvent::Opened { spec });
            }
        }
        input => decider.handle_input(state.0.as_deref().ok_or(RunRejection::NotOpen)?, input)?,
    }
    decider.advance(&look);
    Ok(decider.decided())
}

impl RunDecider {
    fn handle_input(&mut self, run: &Run, input: RunInput) -> Result<(), RunRejection> {
        match input {
            RunInput::Open(_) | RunInput::TimerFired => {}
            RunInput::Rerun { again, from } => {
                let fact = rerun::decide(run, again, from.as_ref())?;
                self.emit(fact);
            }
            RunInput::ShowSecrets { key, step } => {
                if !is_over(run, &key)? {
                    let run = run.spec.id.clone();
                    return Err(RunRejection::JobUnderWay { run, key });
                }
                self.emit(RunEvent::SecretsShown { key, step });
            }
            RunInput::Cancel { reason } => {
                if let Some(end) = &run.ended {
                    return Err(RunRejection::Ended {
                        run: run.spec.id.clone(),
                        conclusion: end.conclusion,
                    });
                }
                if run.progress.cancelled.is_none() {
                    self.emit(RunEvent::CancellationRequested { reason });
                }
            }
            RunInput::Gate(input) => self.handle_gate_input(run, input)?,
            RunInput::ServiceNotified => {
                if run.ended.is_some() && !run.service_notified {
                    self.emit(RunEvent::ServiceNotified);
                }
            }
            report => self.handle_report(run, report)?,
        }
        Ok(())
    }

    /// A report of a worker. Repeated reports, and reports about ended jobs, change nothing.
    fn handle_report(&mut self, run: &Run, report: RunInput) -> Result<(), RunRejection> {
        match report {
            RunInput::JobStarted { key } => {
                let known = run.jobs.get(&key);
                let is_known = known.is_some_and(|record| record.started_at.is_some());
                if !is_over(run, &key)? && !is_known {
                    self.emit(RunEvent::JobStarted { key });
                }
            }
            RunInput::StepFinished { key, step } => {
                let known = run.jobs.get(&key).is_some_and(|record| {
                    record.steps.iter().any(|known| known.index == step.index)
                });
                if !is_over(run, &key)? && !known {
                    self.emit(RunEvent::StepFinished { key, step });
                }
            }
            RunInput::Annotated { key, annotations } => {
                let known = run.jobs.get(&key);
                let known = known.is_some_and(|record| !record.annotations.is_empty());
                if !is_over(run, &key)? && !known && !annotations.is_empty() {
                    self.emit(RunEvent::Annotated { key, annotations });
                }
            }
            RunInput::ArtifactStored { artifact }
                if run.ended.is_none() && !run.artifacts.contains(&artifact) =>
            {
                self.emit(RunEvent::ArtifactStored { artifact });
            }
            RunInput::StorageDelayed { key, reason } => {
                let known = run.jobs.get(&key).and_then(|job| job.storage.clone());
                if !is_over(run, &key)? && known.is_some() != reason.is_some() {
                    self.emit(RunEvent::StorageDelayed { key, reason });
                }
            }
            RunInput::TestsReported { key, tests } => {
                let mut known = run.tests.iter();
                let attempt = run.attempt_of(&key);
                let known = known.any(|(job, known)| {
                    *job == key && known.digest == tests.digest && known.attempt == attempt
                });
                if !is_over(run, &key)? && !known {
                    self.emit(RunEvent::TestsReported { key, tests });
                }
            }
            RunInput::JobEnded {
                key,
                conclusion,
                outputs,
                why,
            } if !is_over(run, &key)? => self.job_ended(run, key, conclusion, outputs, why),
            RunInput::WorkerLost { key, why } if !is_over(run, &key)? => {
                self.worker_lost(run, key, why);
            }
            _ => {}
        }
        Ok(())
    }

    fn job_ended(
        &mut self,
        run: &Run,
        key: JobKey,
        conclusion: Conclusion,
        outputs: Vec<(String, String)>,
        why: Option<String>,
    ) {
        // A failure of nothing but quarantined tests counts as a success.
        let (conclusion, why) = run.excused(&key, conclusion, why);
        if conclusion == Conclusion::Failure && rerun::retries(run, &key, RetryWhen::Any) {
            let why = why.unwrap_or_else(|| conclusion.to_string());
            self.emit(RunEvent::JobRetried { key, why });
        } else {
            self.emit(RunEvent::JobEnded {
                key,
                conclusion,
                outputs,
                why,
            });
        }
    }

    fn worker_lost(&mut self, run: &Run, key: JobKey, why: String) {
        if rerun::retries(run, &key, RetryWhen::WorkerLost) {
            self.emit(RunEvent::JobRetried { key, why });
        } else {
            self.emit(RunEvent::JobEnded {
                key,
                conclusion: Conclusion::Failure,
                outputs: Vec::new(),
                why: Some(why),
            });
        }
    }

    /// Puts on record what the scheduler says now, and the end when there is nothing left.
    fn advance(&mut self, look: &AffectedJobs) {
        if *look == AffectedJobs::Nowhere {
            return;
        }
        let Some(run) = self.state.0.as_deref().filter(|run| run.ended.is_none()) else {
            return;
        };
        let plan = match run.plan() {
            Ok(plan) => plan.clone(),
            Err(why) => {
                let why = Some(why.to_string());
                return self.emit(RunEvent::Ended {
                    conclusion: Conclusion::Failure,
                    why,
                });
            }
        };
        if !self.may_start_run(&plan) {
            return;
        }
        if plan.has_gates {
            self.give_up_at_gates();
        }
        let Some(run) = self.state.0.as_deref() else {
            return;
        };
        let mut progress = run.progress.clone();
        let (workflow, ground) = (&plan.workflow, &plan.ground);
        let decisions = match look {
            // Giving up at a gate is one more thing that has happened.
            AffectedJobs::After(ended) if !plan.has_gates => {
                (plan.graph).next_after(workflow, &mut progress, ground, ended)
            }
            _ => plan.graph.next(workflow, &mut progress, ground),
        };
        for decision in decisions {
            self.emit(decision.into());
        }
        if plan.has_gates {
            self.request_gates();
        }
        if progress.is_over() {
            self.end_run(&plan, &progress);
        }
    }

    fn end_run(&mut self, plan: &RunPlan, progress: &WorkflowProgress) {
        let conclusion = progress.conclusion();
        let succeeded = conclusion == Conclusion::Success;
        let covers_too_little = self.state.0.as_deref().and_then(Run::covers_too_little);
        if let Some(why) = covers_too_little.filter(|_| succeeded) {
            return self.emit(RunEvent::Ended {
                conclusion: Conclusion::Failure,
                why: Some(why),
            });
        }
        let blamed = progress.blamed();
        let why = blamed.map(|(at, why)| format!("`{}`: {why}", plan.workflow.jobs[at].id));
        let cancelled = progress.cancelled.clone().filter(|_| !succeeded);
        self.emit(RunEvent::Ended {
            conclusion,
            why: why.or(cancelled),
        });
    }
}

impl From<GraphDecision> for RunEvent {
    fn from(decision: GraphDecision) -> Self {
        match decision {
            GraphDecision::Expand { job, expanded } => Self::JobReady {
                job,
                expanded: Box::new(expanded),
            },
            GraphDecision::End { job, result, why } => Self::JobCompleted { job, result, why },
            GraphDecision::EndCell {
                key,
                outcome,
                outputs,
                why,
            } => Self::JobEnded {
                key,
                conclusion: outcome,
                outputs,
                why,
            },
            GraphDecision::Stop { key, why } => Self::StopRequested { key, why },
        }
    }
}

/// What the world still owes the run.
pub(super) fn pending(state: &RunState, now: Timestamp) -> PendingWork<RunEffect> {
    let Some(run) = &state.0 else {
        return PendingWork::nothing();
    };
    let mut effects: Vec<_> = gate::pending(run)
        .map(|(key, effect)| (key, RunEffect::Gate(effect)))
        .collect();
    if let Some(end) = &run.ended {
        if !run.service_notified {
            effects.push(("tell-service".into(), run_ended_effect(run, end)));
        }
        return PendingWork {
            live: !effects.is_empty(),
            effects,
            wake_at: None,
        };
    }
    // A job that is cancelled at a gate has no worker: it ends here.
    let cells = (run.progress.active().into_iter())
        .filter(|cell| cell.stopping.is_some() || gate::is_open(run, cell));
    effects.extend(cells.map(|cell| {
        let attempt = run.jobs.get(&cell.key).map_or(1, JobRecord::attempt);
        let effect = RunEffect::RunJob {
            key: cell.key.clone(),
            attempt,
            stop: cell.stopping.clone(),
        };
        let name = match attempt {
            1 => format!("job-{}", cell.key),
            _ => format!("job-{}@{attempt}", cell.key),
        };
        (name.into(), effect)
    }));
    PendingWork {
        effects,
        wake_at: gate::wake_at(run, now),
        live: true,
    }
}

fn run_ended_effect(run: &Run, end: &RunEnd) -> RunEffect {
    let artifacts = run.artifacts.iter().map(|artifact| service::RunArtifact {
        name: artifact.name.clone(),
        digest: artifact.digest.clone(),
    });
    RunEffect::NotifyService {
        conclusion: end.conclusion,
        commit: run.spec.commit.clone(),
        artifacts: artifacts.collect(),
    }
}
