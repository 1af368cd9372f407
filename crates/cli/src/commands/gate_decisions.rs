//! Decisions at gates: `shipway approve` and `shipway reject`, for rollouts and for jobs of runs.

use shipway_api::{
    ApiClient, ApprovalLinkRequest, JobGateAction, JobGateRequest, LinkedDecision, PendingApproval,
    ReleaseAction, ReleaseActionRequest, RolloutAction, RolloutActionRequest,
};
use shipway_core::{
    gate::BrokenGlass,
    ids::{Digest, ReleaseNumber},
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
    service_argument::resolve_service,
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
    /// Print a link that decides once, without signing in, instead of deciding now; give it to no one else
    #[arg(long, conflicts_with_all = ["job", "plan_digest"])]
    link: bool,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// A no, to one rollout or job, or to a release in every environment.
#[derive(Debug, clap::Args)]
pub struct RejectionAnswer {
    #[command(flatten)]
    answer: GateAnswer,
    /// Reject this release in every environment; ID is then the service (default: that of the nearest shipway.yaml)
    #[arg(long, value_name = "N", conflicts_with_all = ["job", "plan_digest"])]
    release: Option<ReleaseNumber>,
    /// Take the rejection of the release back
    #[arg(long, requires = "release")]
    undo: bool,
}

/// An emergency, and its reason.
#[derive(Debug, clap::Args)]
pub struct EmergencyReason {
    /// The rollout or the run, such as ro7, r12 or shop/ro7
    id: String,
    /// The job of the run
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
    /// Reason, sent with the notifications and kept in the history
    #[arg(long)]
    reason: String,
}

/// A break-glass that was looked at.
#[derive(Debug, clap::Args)]
pub struct GlassReviewAnswer {
    /// The rollout or the run, such as ro7, r12 or shop/ro7
    id: String,
    /// The job of the run
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Rejects a rollout, a job or a release.
pub(super) fn reject(
    server: &ServerConnection,
    rejection: &RejectionAnswer,
    output: Output,
) -> Result<(), Failure> {
    let Some(number) = rejection.release else {
        return answer_gate(server, JobGateAction::Reject, &rejection.answer, output);
    };
    let service = resolve_service(server, rejection.answer.id.as_deref())?;
    let action = match rejection.undo {
        false => ReleaseAction::Reject,
        true => ReleaseAction::Accept,
    };
    let request = ReleaseActionRequest {
        reason: rejection.answer.reason.clone(),
    };
    let release = server.act_on_release(&service, number, action, &request)?;
    if output.json {
        return output.document(&release);
    }
    line(&match &release.rejected {
        Some(rejected) => format!(
            "{service} {number} is rejected by {}: {}; no environment accepts it. Take that back: shipway reject {service} --release {} --undo",
            rejected.by, rejected.reason, number.0
        ),
        None => format!(
            "{service} {number} is accepted again; deploy it: shipway deploy {service} --env ENV --release {}",
            number.0
        ),
    });
    Ok(())
}

/// Confirms that another person's break-glass was looked at.
pub(super) fn review(
    server: &ServerConnection,
    review: &GlassReviewAnswer,
    output: Output,
) -> Result<(), Failure> {
    if kind_of(&review.id) == Some(Kind::Run) {
        let action = JobGateAction::Review;
        return act_on_job(
            server,
            &review.id,
            &review.job,
            action,
            &review.reason,
            output,
        );
    }
    let id = rollout_id(server, &review.id)?;
    let request = RolloutActionRequest {
        reason: review.reason.clone(),
        ..RolloutActionRequest::default()
    };
    let view = server.act_on_rollout(&id, RolloutAction::Review, &request)?;
    show_rollout(&view, output)
}

/// An emergency, or its review, at the gates of one job.
fn act_on_job(
    server: &ServerConnection,
    id: &str,
    job: &Option<String>,
    action: JobGateAction,
    reason: &Option<String>,
    output: Output,
) -> Result<(), Failure> {
    let id = run_id(server, id)?;
    let job = job.as_deref().ok_or_else(|| {
        Failure::usage_with(
            format!("{id} is a run, and each of its jobs has its own gates"),
            "name the job with --job".to_owned(),
        )
    })?;
    let request = JobGateRequest {
        reason: reason.clone(),
        ..JobGateRequest::default()
    };
    let view = server.act_on_job_gate(&id, job, action, &request)?;
    show_jobs_of_environments(&view, output)
}

/// Opens all gates of a rollout or a job.
pub(super) fn break_glass(
    server: &ServerConnection,
    emergency: &EmergencyReason,
    output: Output,
) -> Result<(), Failure> {
    if kind_of(&emergency.id) == Some(Kind::Run) {
        let (action, reason) = (JobGateAction::BreakGlass, Some(emergency.reason.clone()));
        act_on_job(
            server,
            &emergency.id,
            &emergency.job,
            action,
            &reason,
            output,
        )?;
        if !output.json && !output.quiet {
            line(&format!(
                "all gates of the job are open; another person must review it: shipway review {} --job {}",
                emergency.id,
                emergency.job.as_deref().unwrap_or_default()
            ));
        }
        return Ok(());
    }
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
    let (action, decision) = match action {
        JobGateAction::Reject => (RolloutAction::Reject, LinkedDecision::Reject),
        JobGateAction::Approve | JobGateAction::BreakGlass | JobGateAction::Review => {
            (RolloutAction::Approve, LinkedDecision::Approve)
        }
    };
    let id = rollout_id(server, id)?;
    if answer.link {
        let request = ApprovalLinkRequest {
            decision,
            expires_in_hours: None,
        };
        let link = server.create_approval_link(&id, &request)?;
        if output.json {
            return output.document(&link);
        }
        line(&link.address);
        return Ok(());
    }
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
    let before = server.run(&id)?;
    let mut after = before.clone();
    for key in jobs_to_answer(&before, answer)? {
        let job = before.jobs.iter().find(|job| job.key == key);
        let approval = job.and_then(|job| job.approval.as_ref());
        let request = JobGateRequest {
            reason: answer.reason.clone(),
            seen: approval.and_then(|approval| approval.subject.clone()),
            groups: Vec::new(),
        };
        after = server.act_on_job_gate(&id, &key, action, &request)?;
    }
    show_jobs_of_environments(&after, output)
}

/// The jobs of a run that go to environments, and what they wait for.
fn show_jobs_of_environments(after: &RunView, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.document(after);
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
    if let Some(glass) = &job.broken_glass {
        return format!(
            "{} {} → {} · break-glass by {}: {}; to be reviewed by another person\n  shipway review {} --job {}",
            job.id, job.job, job.environment, glass.by.name, glass.reason, job.id, job.job
        );
    }
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
