//! `shipway status`: the environments of all services, and what needs people.

use std::collections::BTreeSet;

use shipway_api::{ApiClient, EnvironmentStatus, PendingApproval};
use shipway_core::{
    ids::ServiceName,
    rollout::{self, RolloutView},
    run::newest_run_of_each_workflow,
};

use super::{gate_decisions::waiting_review, rollout_actions::pending_action_text};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, ago, counted, enum_text, line, table},
    service_argument::{find_folder_service, resolve_service},
};

/// Runs of a service among which the newest of each workflow is searched.
const RUNS_MAX: u32 = 15;

/// Show environments, their releases, health and rollouts
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The service (default: that of the nearest shipway.yaml, in this folder or above; without one, all services)
    service: Option<String>,
    /// Show all services
    #[arg(long, conflicts_with = "service")]
    all: bool,
}

/// Shows the status.
pub fn run(server: &ServerConnection, args: &Args, output: Output) -> Result<(), Failure> {
    let (environments, hidden) = shown_environments(server, args)?;
    if output.json {
        return output.document(&environments);
    }
    if environments.is_empty() {
        line(&format!(
            "no services yet: push a commit with a shipway.yaml to {}/git/SERVICE",
            server.server
        ));
        return Ok(());
    }
    const HEAD: [&str; 7] = [
        "SERVICE",
        "ENVIRONMENT",
        "STABLE",
        "INSTANCES",
        "ROLLOUT",
        "LAST",
        "ADDRESS",
    ];
    table(
        &HEAD,
        &environments.iter().map(table_row).collect::<Vec<_>>(),
    );
    let services = environments.iter().map(|it| it.service.clone()).collect();
    print_last_runs(server, &services)?;
    for environment in &environments {
        if let Some(problem) = &environment.address_problem {
            line(&format!(
                "{} {}: {problem}",
                environment.service, environment.environment
            ));
        }
    }
    let rollouts = environments.iter().filter_map(|it| it.rollout.as_ref());
    for text in rollouts.filter_map(pending_action_text) {
        line(&text);
    }
    for environment in &environments {
        print_notices(environment);
    }
    print_waiting_jobs(server, &services)?;
    if args.service.is_none() && !hidden.is_empty() && !output.quiet {
        let other = counted(hidden.len(), "other service");
        line(&format!("{other} on this server: shipway status --all"));
    }
    Ok(())
}

/// The environments to show, and the services that are not shown.
fn shown_environments(
    server: &ServerConnection,
    args: &Args,
) -> Result<(Vec<EnvironmentStatus>, BTreeSet<ServiceName>), Failure> {
    let mut environments = server.environments()?;
    let service = shown_service(args)?;
    let mut hidden = BTreeSet::new();
    if let Some(service) = &service {
        environments.retain(|environment| {
            let is_shown = environment.service.as_str() == service;
            if !is_shown {
                hidden.insert(environment.service.clone());
            }
            is_shown
        });
        if environments.is_empty() {
            // Fails unless the service is known and has no environment.
            resolve_service(server, args.service.as_deref())?;
            server.service(service)?;
        }
    }
    Ok((environments, hidden))
}

/// The named service, else the folder's; `None` means all.
fn shown_service(args: &Args) -> Result<Option<String>, Failure> {
    if args.service.is_some() || args.all {
        return Ok(args.service.clone());
    }
    let folder = find_folder_service()?;
    Ok(folder.map(|folder| folder.name.to_string()))
}

fn table_row(environment: &EnvironmentStatus) -> Vec<String> {
    let instances = &environment.instances;
    let ready = instances.iter().filter(|status| status.is_ready()).count();
    let stable = environment.stable.as_ref().map_or_else(
        || "–".to_owned(),
        |stable| {
            let subject = shortened(&stable.commit.subject);
            format!("{} {} {subject}", stable.number, stable.commit.id.short())
        },
    );
    let rollout = environment.rollout.as_ref().map(rollout_text);
    let held = environment.hold.as_ref().map(|_| "held".to_owned());
    let deleted = (environment.deletion.as_ref()).map(|_| "being deleted".to_owned());
    let notices: Vec<String> = [rollout, held, deleted].into_iter().flatten().collect();
    vec![
        environment.service.to_string(),
        environment.environment.to_string(),
        stable,
        format!("{ready}/{} ready", instances.len()),
        notices.join("; "),
        last_rollout(environment),
        environment.url.clone(),
    ]
}

fn rollout_text(rollout: &RolloutView) -> String {
    let kind = match rollout.kind {
        rollout::RolloutKind::Deploy => "of",
        rollout::RolloutKind::Rollback => "rollback to",
        rollout::RolloutKind::Retry => "retry of",
    };
    let guarded = rollout.guarded_until.map_or_else(String::new, |until| {
        format!(", watched until {}", until.strftime("%H:%M:%S"))
    });
    format!(
        "{} {kind} {}: {}{guarded}",
        rollout.id.number, rollout.release, rollout.status
    )
}

/// The result of the last rollout that has ended in an environment.
fn last_rollout(environment: &EnvironmentStatus) -> String {
    let last = environment.last_result();
    last.map_or_else(String::new, |last| {
        format!(
            "{} of {}: {} {}",
            last.number,
            last.release,
            last.outcome,
            ago(last.at)
        )
    })
}

/// The newest run of each workflow of the services.
fn print_last_runs(
    server: &ServerConnection,
    services: &BTreeSet<ServiceName>,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for service in services {
        let runs = server.runs(service.as_str(), RUNS_MAX)?;
        rows.extend(newest_run_of_each_workflow(runs).iter().map(|run| {
            vec![
                run.id.to_string(),
                run.workflow.clone(),
                enum_text(&run.status),
                ago(run.finished_at.unwrap_or(run.created_at)),
                shortened(&run.subject),
            ]
        }));
    }
    if !rows.is_empty() {
        line("");
        table(&["RUN", "WORKFLOW", "STATUS", "LAST", "COMMIT"], &rows);
    }
    Ok(())
}

/// Degradation and hold of an environment.
fn print_notices(environment: &EnvironmentStatus) {
    let (service, name) = (&environment.service, &environment.environment);
    if let Some(degradation) = &environment.degradation {
        let since = degradation.since.strftime("%Y-%m-%d %H:%M:%S UTC");
        line(&format!(
            "{service} {name} is degraded since {since}: {degradation}"
        ));
    }
    if let Some(hold) = &environment.hold {
        let queued: Vec<String> = environment.queue.iter().map(ToString::to_string).collect();
        let waiting = if queued.is_empty() {
            String::new()
        } else {
            format!("; {} waiting", queued.join(", "))
        };
        let hold = hold.describe(service, name);
        line(&format!("{service}: {hold}{waiting}"));
    }
}

/// Jobs of runs that wait for approval, and emergencies that wait for a review.
fn print_waiting_jobs(
    server: &ServerConnection,
    services: &BTreeSet<ServiceName>,
) -> Result<(), Failure> {
    for approval in server.approvals()? {
        let job = match approval {
            PendingApproval::Job(job) => job,
            PendingApproval::Rollout(view) => {
                let glass = view.broken_glass.as_ref();
                if let Some(glass) = glass.filter(|_| services.contains(&view.id.service)) {
                    line(&waiting_review(&view, glass));
                }
                continue;
            }
        };
        if services.contains(&job.id.service) {
            let reason = job.waits_for.unwrap_or_default();
            line(&format!("{} {}: {reason}", job.id, job.job));
        }
    }
    Ok(())
}

/// The first 40 letters.
fn shortened(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    if start.len() < text.len() {
        format!("{start}…")
    } else {
        start
    }
}
