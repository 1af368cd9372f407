//! What a person can do to a rollout; decisions at gates are in `gate_decisions.rs`.

use shipway_api::{
    ApiClient, JobGateAction, RerunRequest, ResumeEnvironmentRequest, RolloutAction,
    RolloutActionRequest,
};
use shipway_core::rollout::{RolloutPause, RolloutStatus, RolloutView};

use super::{
    deploy,
    gate_decisions::{
        EmergencyReason, GateAnswer, GlassReviewAnswer, RejectionAnswer, answer_gate, break_glass,
        reject, review,
    },
    id_args::{Kind, kind_of, rollout_id, run_id},
    rollout_line::{is_waiting_for_people, missing_answers, show_rollout},
};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line},
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
    /// Approve a rollout or a job that is waiting for approval; without an ID list pending approvals
    Approve(GateAnswer),
    /// Reject a rollout or a job that is waiting for approval, or with --release a release in every environment
    Reject(RejectionAnswer),
    /// Open all gates of a rollout or a job in an emergency; another person must review it
    BreakGlass(EmergencyReason),
    /// Confirm that you have reviewed a break-glass of another person
    Review(GlassReviewAnswer),
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
        Command::Reject(rejection) => return reject(server, rejection, output),
        Command::BreakGlass(emergency) => return break_glass(server, emergency, output),
        Command::Review(answer) => return review(server, answer, output),
        Command::Pause(target) => (RolloutAction::Pause, target),
        Command::Resume(resume) => return continue_paused(server, resume, output),
        Command::Promote(target) => (RolloutAction::Promote, target),
        Command::Abort(target) => (RolloutAction::Abort, target),
        Command::Retry(retry) => return run_again(server, retry, output),
    };
    act_on_rollout(server, &target.id, action, target.reason.as_ref(), output)?;
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
        (_, RolloutStatus::Waiting) if !is_waiting_for_people(view) => {
            Some(format!("{id} waits{}", missing_answers(view)))
        }
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
    let request = RolloutActionRequest {
        reason: reason.cloned(),
        ..RolloutActionRequest::default()
    };
    let view = server.act_on_rollout(&id, action, &request)?;
    show_rollout(&view, output)?;
    Ok(view)
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
