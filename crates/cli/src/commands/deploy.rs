//! `shipway deploy`, `rollback` and `plan`.

use shipway_api::{ApiClient, DeployRequest, RollbackRequest, RolloutActionRequest};
use shipway_core::ids::RolloutId;

use super::deploy_outcome::{self, Watch};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line},
    service_argument::ServiceArgument,
};

/// Deploy a release (default: the newest) to all environments in order, or to a single one with --env
#[derive(Debug, clap::Args)]
pub struct Deploy {
    #[command(flatten)]
    service: ServiceArgument,
    /// Deploy the release of this commit
    #[arg(long, conflicts_with = "release")]
    commit: Option<String>,
    /// Deploy the release with this number
    #[arg(long, value_name = "N")]
    release: Option<u32>,
    /// Deploy only to this environment
    #[arg(long, value_name = "ENV")]
    env: Option<String>,
    /// Deploy even a release that was rolled back there before
    #[arg(long)]
    force: bool,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
    /// Follow the rollout until it ends
    #[arg(long)]
    watch: bool,
}

/// Show what a deploy would do, action by action, without doing it
#[derive(Debug, clap::Args)]
pub struct Plan {
    #[command(flatten)]
    service: ServiceArgument,
    /// The environment
    #[arg(long, value_name = "ENV")]
    env: String,
    /// The release (default: the newest)
    #[arg(long, value_name = "N")]
    release: Option<u32>,
}

/// Roll back to an earlier release; skips the steps if that release was stable recently
#[derive(Debug, clap::Args)]
pub struct Rollback {
    #[command(flatten)]
    service: ServiceArgument,
    /// The environment
    #[arg(long, value_name = "ENV")]
    env: String,
    /// Release to roll back to (default: the previous one)
    #[arg(long, value_name = "N")]
    release: Option<u32>,
    /// Deploy even a release that was rolled back there before
    #[arg(long)]
    force: bool,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
    /// Follow the rollout until it ends
    #[arg(long)]
    watch: bool,
}

/// Requests a deploy.
pub fn deploy(server: &ServerConnection, args: &Deploy, output: Output) -> Result<(), Failure> {
    let service = args.service.resolve(server)?;
    let request = DeployRequest {
        release: args.release,
        commit: args.commit.clone(),
        environment: args.env.clone(),
        force: args.force,
        reason: args.reason.clone(),
        ..DeployRequest::default()
    };
    let outcome = server.deploy(&service, &request)?;
    deploy_outcome::show(server, &outcome, Watch::from(args.watch), output)
}

/// Requests a rollback.
pub fn roll_back(
    server: &ServerConnection,
    args: &Rollback,
    output: Output,
) -> Result<(), Failure> {
    let service = args.service.resolve(server)?;
    let request = RollbackRequest {
        environment: args.env.clone(),
        release: args.release,
        force: args.force,
        reason: args.reason.clone(),
    };
    let outcome = server.roll_back(&service, &request)?;
    deploy_outcome::show(server, &outcome, Watch::from(args.watch), output)
}

/// Rolls the release of a rollout that has ended out again.
pub fn retry(
    server: &ServerConnection,
    rollout: &RolloutId,
    reason: Option<String>,
    output: Output,
) -> Result<(), Failure> {
    let request = RolloutActionRequest {
        reason,
        ..RolloutActionRequest::default()
    };
    let outcome = server.retry_rollout(rollout, &request)?;
    deploy_outcome::show(server, &outcome, Watch::No, output)
}

/// Shows what a deploy would do.
pub fn plan(server: &ServerConnection, args: &Plan, output: Output) -> Result<(), Failure> {
    let service = args.service.resolve(server)?;
    let plan = server.plan(&service, &args.env, args.release)?;
    if output.json {
        return output.document(&plan);
    }
    let stable = plan
        .stable
        .map_or_else(|| "nothing".to_owned(), |stable| stable.to_string());
    line(&format!(
        "{service} {} → {} ({}); stable is {stable}",
        plan.release, args.env, plan.strategy
    ));
    for (index, action) in plan.actions.iter().enumerate() {
        line(&format!("  {:>2}. {action}", index + 1));
    }
    for note in &plan.notes {
        line(&format!("  note: {note}"));
    }
    line(&format!("  plan digest: {}", plan.digest));
    Ok(())
}
