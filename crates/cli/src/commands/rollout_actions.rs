//! What a person can do to a rollout, and to a job that waits for people.

use shipway_api::{
    ApiClient, JobGateAction, JobGateRequest, RerunRequest, ResumeEnvironmentRequest,
    RolloutAction, RolloutActionRequest,
};
use shipway_core::{
    gate::GateState,
    rollout::{RolloutPause, RolloutProgress, RolloutStatus, RolloutView},
    run::{JobView, RunView},
};

use super::{
    deploy,
    id_args::{Kind, kind_of, rollout_id, run_id},
};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, enum_text, line},
    service_argument::resolve_service,
};

/// A rollout, and why.
#[derive(Debug, clap::Args)]
pub struct RolloutReason {
    /// The rollout, such as ro7 or shop/ro7
    id: String,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// A yes or a no.
#[derive(Debug, clap::Args)]
pub struct GateAnswer {
    /// The rollout or the run, such as ro7, r12 or shop/ro7
    id: String,
    /// The job of the run, if several are waiting
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// A rollout that is paused, or an environment that is held.
#[derive(Debug, clap::Args)]
pub struct Resume {
    /// The rollout, such as ro7 or shop/ro7; with --env the service (default: that of the nearest shipway.yaml, in this folder or above)
    #[arg(required_unless_present = "environment")]
    id: Option<String>,
    /// The environment that is held after a rollback or an abort
    #[arg(long = "env", value_name = "ENV")]
    environment: Option<String>,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Once more.
#[derive(Debug, clap::Args)]
pub struct Retry {
    /// The rollout or the run, such as ro7, r12 or shop/r12
    id: String,
    /// Reason, for the audit log (rollouts only)
    #[arg(long)]
    reason: Option<String>,
    /// Runs: re-run only failed or cancelled jobs and the jobs that depend on them
    #[arg(long, conflicts_with = "job")]
    failed: bool,
    /// Runs: re-run only this job and the jobs that depend on it
    #[arg(long, short, value_name = "KEY")]
    job: Option<String>,
    /// Runs: resume failed jobs at the failed step, in the same workspace, without repeating earlier steps
    #[arg(long)]
    from_failed_step: bool,
    /// Runs: resume a failed job at the step with this id (the failed step or an earlier one), in the same workspace
    #[arg(long, value_name = "ID")]
    step: Option<String>,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Approve a rollout or a job that is waiting for approval
    Approve(GateAnswer),
    /// Reject a rollout or a job that is waiting for approval
    Reject(GateAnswer),
    /// Pause a rollout: traffic stays where it is, the analysis continues
    Pause(RolloutReason),
    /// Resume a paused rollout, or with --env the automatic promotion to a held environment
    Resume(Resume),
    /// Skip the remaining holds and promote the release to 100%
    Promote(RolloutReason),
    /// Abort a rollout and return all traffic to the stable release
    Abort(RolloutReason),
    /// Retry a finished rollout with the same release, or re-run the jobs of a finished run
    Retry(Retry),
}

/// Does it, and says where the rollout is.
pub fn run(server: &ServerConnection, command: &Command, output: Output) -> Result<(), Failure> {
    let (action, target) = match command {
        Command::Approve(answer) => {
            return answer_gate(server, JobGateAction::Approve, answer, output);
        }
        Command::Reject(answer) => {
            return answer_gate(server, JobGateAction::Reject, answer, output);
        }
        Command::Pause(target) => (RolloutAction::Pause, target),
        Command::Resume(resume) => return continue_paused(server, resume, output),
        Command::Promote(target) => (RolloutAction::Promote, target),
        Command::Abort(target) => (RolloutAction::Abort, target),
        Command::Retry(retry) => return run_again(server, retry, output),
    };
    let view = act_on_rollout(server, &target.id, action, target.reason.as_ref(), output)?;
    if action == RolloutAction::Abort
        && view.status == RolloutStatus::Promoted
        && !output.json
        && !output.quiet
    {
        line(&format!(
            "already finished, nothing to abort; to roll back: shipway rollback {} --env {}",
            view.id.service, view.environment
        ));
    }
    Ok(())
}

/// Resumes a rollout, or automatic promotion into an environment.
fn continue_paused(
    server: &ServerConnection,
    resume: &Resume,
    output: Output,
) -> Result<(), Failure> {
    if let Some(environment) = &resume.environment {
        let service = resolve_service(server, resume.id.as_deref())?;
        let request = ResumeEnvironmentRequest {
            reason: resume.reason.clone(),
        };
        return resume_environment(server, &service, environment, &request, output);
    }
    let id = resume.id.as_deref().unwrap_or_default();
    let action = RolloutAction::Resume;
    act_on_rollout(server, id, action, resume.reason.as_ref(), output).map(drop)
}

fn resume_environment(
    server: &ServerConnection,
    service: &str,
    environment: &str,
    request: &ResumeEnvironmentRequest,
    output: Output,
) -> Result<(), Failure> {
    let resumed = server.resume_environment(service, environment, request)?;
    if output.json {
        return output.document(&resumed);
    }
    let next = match resumed.rollouts.first() {
        Some(rollout) => format!("; rollout {rollout} started: shipway watch {rollout}"),
        None => String::new(),
    };
    let (service, environment) = (&resumed.service, &resumed.environment);
    line(&match &resumed.hold {
        Some(hold) => format!(
            "automatic promotion of {service} into {environment} continues (it was {hold}){next}"
        ),
        None => format!("{environment} of {service} is not held: nothing changes"),
    });
    Ok(())
}

/// What a rollout needs from people, and the commands for it; `None` if it continues by itself.
pub(super) fn pending_action_text(view: &RolloutView) -> Option<String> {
    let id = &view.id;
    match (&view.paused, view.status) {
        (Some(pause), RolloutStatus::Paused) => Some(format!(
            "{id} is paused by {}: {}; {}",
            pause.by,
            pause.reason,
            RolloutPause::commands(id)
        )),
        (_, RolloutStatus::Waiting) => Some(format!(
            "{id} waits{}; approve: shipway approve {id}; reject: shipway reject {id}",
            missing_answers(view)
        )),
        _ => view.unattributed_fault.as_ref().map(|fault| {
            format!(
                "{id} is degraded, but not rolled back: {fault}; roll back: shipway rollback {} --env {}",
                id.service, view.environment
            )
        }),
    }
}

fn act_on_rollout(
    server: &ServerConnection,
    id: &str,
    action: RolloutAction,
    reason: Option<&String>,
    output: Output,
) -> Result<RolloutView, Failure> {
    let id = rollout_id(server, id)?;
    // An approval is for the plan that stands now: if it changes in between, the server refuses.
    let plan = match action {
        RolloutAction::Approve => server.rollout(&id)?.gate.and_then(|it| it.subject),
        _ => None,
    };
    let request = RolloutActionRequest {
        reason: reason.cloned(),
        plan,
        groups: Vec::new(),
    };
    let view = server.act_on_rollout(&id, action, &request)?;
    if output.json {
        output.document(&view)?;
        return Ok(view);
    }
    line(&format!(
        "{} of {} → {}: {}{}{}",
        view.id,
        view.release,
        view.environment,
        view.status,
        missing_answers(&view),
        why_rolling_back(&view)
    ));
    Ok(view)
}

/// Of two who stop a rollout only the first one's reason counts: the second one learns it.
fn why_rolling_back(view: &RolloutView) -> String {
    match (&view.rollback_start, &view.ended) {
        (Some(turn), None) => format!(" · {} (by {})", turn.why, turn.by),
        _ => String::new(),
    }
}

fn answer_gate(
    server: &ServerConnection,
    action: JobGateAction,
    answer: &GateAnswer,
    output: Output,
) -> Result<(), Failure> {
    if kind_of(&answer.id) != Some(Kind::Run) {
        let action = match action {
            JobGateAction::Approve => RolloutAction::Approve,
            JobGateAction::Reject => RolloutAction::Reject,
        };
        let reason = answer.reason.as_ref();
        return act_on_rollout(server, &answer.id, action, reason, output).map(drop);
    }
    let id = run_id(server, &answer.id)?;
    let request = JobGateRequest {
        reason: answer.reason.clone(),
        groups: Vec::new(),
    };
    let before = server.run(&id)?;
    let mut after = before.clone();
    for job in jobs_to_answer(&before, answer)? {
        after = server.act_on_job_gate(&id, &job, action, &request)?;
    }
    if output.json {
        return output.document(&after);
    }
    for job in after.jobs.iter().filter(|job| job.environment.is_some()) {
        let more = job.waits_for.as_ref().or(job.why.as_ref());
        let more = more.map(|more| format!(" · {more}")).unwrap_or_default();
        line(&format!(
            "{} {}: {}{more}",
            after.id,
            job.name,
            enum_text(&job.status)
        ));
    }
    Ok(())
}

/// The jobs that an answer is for: the one named, or all that wait, as long as they go to one environment.
fn jobs_to_answer(run: &RunView, answer: &GateAnswer) -> Result<Vec<String>, Failure> {
    if let Some(job) = &answer.job {
        return Ok(vec![job.clone()]);
    }
    let waiting: Vec<&JobView> = run
        .jobs
        .iter()
        .filter(|job| job.approval.is_some())
        .collect();
    let environment = |job: &JobView| job.approval.as_ref().map(|it| it.environment.clone());
    match waiting.as_slice() {
        [] => Err(Failure::Failed(format!(
            "no job of {} is waiting for approval",
            run.id
        ))),
        [first, rest @ ..]
            if rest
                .iter()
                .all(|job| environment(job) == environment(first)) =>
        {
            Ok(waiting.iter().map(|job| job.key.clone()).collect())
        }
        several => {
            let keys: Vec<&str> = several.iter().map(|job| job.key.as_str()).collect();
            Err(Failure::usage_with(
                format!("jobs of {} wait to go to several environments", run.id),
                format!("name one with --job: {}", keys.join(", ")),
            ))
        }
    }
}

/// Retries a rollout, or runs jobs of a run again.
fn run_again(server: &ServerConnection, retry: &Retry, output: Output) -> Result<(), Failure> {
    let resumes = retry.from_failed_step || retry.step.is_some();
    let is_run = retry.failed || retry.job.is_some() || resumes;
    if kind_of(&retry.id) != Some(Kind::Run) && !is_run {
        let id = rollout_id(server, &retry.id)?;
        return deploy::retry(server, &id, retry.reason.clone(), output);
    }
    let request = RerunRequest {
        failed: retry.failed,
        job: retry.job.clone(),
        from_failed_step: retry.from_failed_step,
        step: retry.step.clone(),
    };
    let run = server.rerun(&run_id(server, &retry.id)?, &request)?;
    if output.json {
        return output.document(&run);
    }
    let id = &run.id;
    line(&format!(
        "re-running {id} as attempt {}: shipway logs {id} --follow",
        run.attempt
    ));
    Ok(())
}

/// What a gate still waits for.
fn missing_answers(view: &RolloutView) -> String {
    if view.status != RolloutStatus::Waiting {
        return String::new();
    }
    let asked = view
        .plan
        .iter()
        .find(|it| it.progress == RolloutProgress::Now);
    let asked = asked.map_or("an answer", |it| it.text.as_str());
    let approvers = view.gate.as_ref().map(GateState::approvers);
    let so_far = match approvers.filter(|it| !it.is_empty()) {
        Some(approvers) => format!("; approved by {}", approvers.join(", ")),
        None => String::new(),
    };
    format!(" · {asked}{so_far}")
}
