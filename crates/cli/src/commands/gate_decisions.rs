//! Decisions at gates: `shipway approve` and `shipway reject`, for rollouts and for jobs of runs.

use shipway_api::{
    ApiClient, JobGateAction, JobGateRequest, PendingApproval, RolloutAction, RolloutActionRequest,
};
use shipway_core::{
    gate::BrokenGlass,
    ids::Digest,
    rollout::RolloutView,
    run::{JobApproval, JobView, RunView},
};

use super::{
    id_args::{Kind, kind_of, rollout_id, run_id},
    rollout_line::{missing_answers, show_rollout},
};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, enum_text, line},
};

/// A yes or a no.
#[derive(Debug, clap::Args)]
pub struct GateAnswer {
    /// The rollout or the run, such as ro7, r12 or shop/ro7; none: list all that wait
    id: Option<String>,
    /// The job of the run, if several are waiting
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
    /// Digest of the plan you have seen: refused if another plan is waiting (default: the plan now waiting)
    #[arg(long, value_name = "DIGEST")]
    plan_digest: Option<Digest>,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// An emergency, and its reason.
#[derive(Debug, clap::Args)]
pub struct EmergencyReason {
    /// The rollout, such as ro7 or shop/ro7
    id: String,
    /// Reason, sent with the notifications and kept in the history
    #[arg(long)]
    reason: String,
}

/// Opens all gates of a rollout.
pub(super) fn break_glass(
    server: &ServerConnection,
    emergency: &EmergencyReason,
    output: Output,
) -> Result<(), Failure> {
    let id = rollout_id(server, &emergency.id)?;
    let request = RolloutActionRequest {
        reason: Some(emergency.reason.clone()),
        seen: server.rollout(&id)?.gate.and_then(|gate| gate.binding),
        ..RolloutActionRequest::default()
    };
    let view = server.act_on_rollout(&id, RolloutAction::BreakGlass, &request)?;
    show_rollout(&view, output)?;
    if !output.json && !output.quiet {
        line(&format!(
            "all gates of {id} are open; another person must review it: shipway review {id}"
        ));
    }
    Ok(())
}

/// Sends a decision, or lists pending approvals.
pub(super) fn answer_gate(
    server: &ServerConnection,
    action: JobGateAction,
    answer: &GateAnswer,
    output: Output,
) -> Result<(), Failure> {
    let Some(id) = &answer.id else {
        return list_waiting(server, action, output);
    };
    match kind_of(id) {
        Some(Kind::Run) => answer_jobs(server, action, id, answer, output),
        Some(Kind::Rollout) | None => answer_rollout(server, action, id, answer, output),
    }
}

fn answer_rollout(
    server: &ServerConnection,
    action: JobGateAction,
    id: &str,
    answer: &GateAnswer,
    output: Output,
) -> Result<(), Failure> {
    let action = match action {
        JobGateAction::Approve => RolloutAction::Approve,
        JobGateAction::Reject => RolloutAction::Reject,
    };
    let id = rollout_id(server, id)?;
    // The decision names its subject: if that changes in between, the server refuses.
    let seen = match &answer.plan_digest {
        Some(_) => None,
        None => server.rollout(&id)?.gate.and_then(|gate| gate.binding),
    };
    let request = RolloutActionRequest {
        reason: answer.reason.clone(),
        plan: answer.plan_digest.clone(),
        seen,
        groups: Vec::new(),
    };
    let view = server.act_on_rollout(&id, action, &request)?;
    show_rollout(&view, output)
}

fn answer_jobs(
    server: &ServerConnection,
    action: JobGateAction,
    id: &str,
    answer: &GateAnswer,
    output: Output,
) -> Result<(), Failure> {
    if answer.plan_digest.is_some() {
        return Err(Failure::usage_with(
            format!("{id} is a run, and runs have no plan"),
            "leave --plan-digest out; it is for rollouts such as ro7".to_owned(),
        ));
    }
    let id = run_id(server, id)?;
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

/// Pending approvals, each with the command for it.
fn list_waiting(
    server: &ServerConnection,
    action: JobGateAction,
    output: Output,
) -> Result<(), Failure> {
    let waiting = server.approvals()?;
    if output.json {
        return output.document(&waiting);
    }
    if waiting.is_empty() {
        line("nothing is waiting for approval");
    }
    for approval in &waiting {
        line(&match approval {
            PendingApproval::Rollout(view) => match &view.broken_glass {
                Some(glass) => waiting_review(view, glass),
                None => waiting_rollout(view, action),
            },
            PendingApproval::Job(job) => waiting_job(job, action),
        });
    }
    Ok(())
}

fn waiting_rollout(view: &RolloutView, action: JobGateAction) -> String {
    let subject = (view.gate.as_ref()).and_then(|gate| gate.subject.as_ref());
    let digest = subject.map(|it| format!(" --plan-digest {it}"));
    format!(
        "{} {} → {} · {}{}\n  shipway {} {}{}",
        view.id,
        view.release,
        view.environment,
        view.subject,
        missing_answers(view),
        action.as_str(),
        view.id,
        digest.unwrap_or_default()
    )
}

/// A break-glass that no second person has reviewed.
pub(super) fn waiting_review(view: &RolloutView, glass: &BrokenGlass) -> String {
    format!(
        "{} {} → {} · break-glass by {}: {}; to be reviewed by another person\n  shipway review {}",
        view.id, view.release, view.environment, glass.by.name, glass.reason, view.id
    )
}

fn waiting_job(job: &JobApproval, action: JobGateAction) -> String {
    let so_far = match job.approval.by.as_slice() {
        [] => String::new(),
        by => format!("; approved by {}", by.join(", ")),
    };
    format!(
        "{} {} → {} · wait for {}{so_far}\n  shipway {} {} --job {}",
        job.id,
        job.job,
        job.environment,
        job.approval.rule,
        action.as_str(),
        job.id,
        job.job
    )
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
