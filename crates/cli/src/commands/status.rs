//! `shipway status`: the environments of all services, and what needs people.

use shipway_api::{ApiClient, EnvironmentStatus, PendingApproval};
use shipway_core::rollout::{self, RolloutView};

use super::rollout_actions::pending_action_text;
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line, table},
};

/// Show environments, their releases, health and rollouts
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this service
    service: Option<String>,
}

/// Shows the status.
pub fn run(server: &ServerConnection, args: &Args, output: Output) -> Result<(), Failure> {
    let mut environments = server.environments()?.items;
    if let Some(service) = &args.service {
        environments.retain(|environment| environment.service.as_str() == service);
        if environments.is_empty() {
            // Fails with the server's message, unless the service has no environment.
            server.service(service)?;
        }
    }
    if output.json {
        return output.document(&environments);
    }
    if environments.is_empty() {
        line(&format!(
            "no service yet: push a commit with a shipway.yaml to {}/git/SERVICE",
            server.server
        ));
        return Ok(());
    }
    const HEAD: [&str; 6] = [
        "SERVICE",
        "ENVIRONMENT",
        "STABLE",
        "INSTANCES",
        "ROLLOUT",
        "ADDRESS",
    ];
    table(
        &HEAD,
        &environments.iter().map(table_row).collect::<Vec<_>>(),
    );
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
    print_waiting_jobs(server, args.service.as_deref())
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
    let mut notices: Vec<String> = [rollout, held].into_iter().flatten().collect();
    if notices.is_empty() {
        notices.extend(last_failed_rollout(environment));
    }
    vec![
        environment.service.to_string(),
        environment.environment.to_string(),
        stable,
        format!("{ready}/{} ready", instances.len()),
        notices.join("; "),
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
        format!(", guarded until {}", until.strftime("%H:%M:%S"))
    });
    format!(
        "{} {kind} {}: {}{guarded}",
        rollout.id.number, rollout.release, rollout.status
    )
}

/// The last rollout of an environment, unless it was promoted.
fn last_failed_rollout(environment: &EnvironmentStatus) -> Option<String> {
    let last = environment.last_rollout.as_ref();
    let last = last.filter(|last| last.outcome != rollout::RolloutOutcome::Promoted)?;
    Some(format!(
        "{} of {}: {}",
        last.number, last.release, last.outcome
    ))
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

/// Jobs of runs that wait for approval.
fn print_waiting_jobs(server: &ServerConnection, service: Option<&str>) -> Result<(), Failure> {
    for approval in server.approvals()? {
        let PendingApproval::Job(job) = approval else {
            continue;
        };
        if service.is_none_or(|service| job.id.service.as_str() == service) {
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
