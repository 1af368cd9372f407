//! `shipway deploy`, `rollback` and `plan`.

use shipway_api::{ApiClient, DeployRequest, RollbackRequest, RolloutActionRequest};
use shipway_core::ids::RolloutId;

use super::{
    deploy_outcome::{self, Watch},
    id_args::service_or_only,
};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line},
};

/// Roll out a release: the newest or the named one, into the first environment and onwards, or only into one
#[derive(Debug, clap::Args)]
pub struct Deploy {
    /// The service; may be left out when the server has only one
    service: Option<String>,
    /// The release of this commit
    #[arg(long, conflicts_with = "release")]
    commit: Option<String>,
    /// The release with this number
    #[arg(long, value_name = "N")]
    release: Option<u32>,
    /// Only into this environment
    #[arg(long, alias = "to", value_name = "ENV")]
    env: Option<String>,
    /// Even if it was rolled back there before
    #[arg(long)]
    force: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Follow it to its end
    #[arg(long)]
    watch: bool,
}

/// Show what a deploy would do, action by action, without doing it
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// The service; may be left out when the server has only one
    service: Option<String>,
    /// The environment
    #[arg(long, alias = "to", value_name = "ENV")]
    env: String,
    /// The release; the newest by default
    #[arg(long, value_name = "N")]
    release: Option<u32>,
}

/// Go back to an earlier release; at once if it served recently
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// The service; may be left out when the server has only one
    service: Option<String>,
    /// The environment
    #[arg(long, alias = "in", value_name = "ENV")]
    env: String,
    /// The release; by default the previous one
    #[arg(long, alias = "to", value_name = "N")]
    release: Option<u32>,
    /// Even if it was rolled back there before
    #[arg(long)]
    force: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Follow it to its end
    #[arg(long)]
    watch: bool,
}

/// Requests a deploy.
pub fn deploy(server: &ServerConnection, args: &Deploy, output: Output) -> Result<(), Failure> {
    let service = service_or_only(server, args.service.as_deref())?;
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
    let service = service_or_only(server, args.service.as_deref())?;
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
        plan: None,
        groups: Vec::new(),
    };
    let outcome = server.retry_rollout(rollout, &request)?;
    deploy_outcome::show(server, &outcome, Watch::No, output)
}

/// Shows what a deploy would do.
pub fn plan(server: &ServerConnection, args: &Plan, output: Output) -> Result<(), Failure> {
    let service = service_or_only(server, args.service.as_deref())?;
    let plan = server.plan(&service, &args.env, args.release)?;
    if output.json {
        return output.document(&plan);
    }
    let stable = plan
        .stable
        .map_or_else(|| "nothing".to_owned(), |stable| stable.to_string());
    line(&format!(
        "{service} {} → {} ({}); {stable} serves now",
        plan.release, args.env, plan.strategy
    ));
    for (index, action) in plan.actions.iter().enumerate() {
        line(&format!("  {:>2}. {action}", index + 1));
    }
    for note in &plan.notes {
        line(&format!("  note: {note}"));
    }
    Ok(())
}
