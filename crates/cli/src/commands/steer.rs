//! What a person can do to a rollout.

use serde_json::json;
use shipway_core::rollout::RolloutView;

use super::ids::path_of;
use crate::{
    client::Server,
    exit::Failure,
    print::{Output, line, words},
};

/// A rollout, and why.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The rollout, such as ro7 or shop/ro7
    id: String,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say yes to the gate a rollout waits at
    Approve(Target),
    /// Say no to the gate a rollout waits at
    Reject(Target),
    /// Stop shifting traffic; what is judged is judged on
    Pause(Target),
    /// Go on after a pause
    Resume(Target),
    /// Skip the remaining holds
    Promote(Target),
    /// Back to the stable release
    Abort(Target),
    /// Roll the release of an ended rollout out again
    Retry(Target),
}

/// Does it, and says where the rollout is.
pub fn run(server: &Server, command: &Command, output: Output) -> Result<(), Failure> {
    let (verb, target) = match command {
        Command::Approve(target) => ("approve", target),
        Command::Reject(target) => ("reject", target),
        Command::Pause(target) => ("pause", target),
        Command::Resume(target) => ("resume", target),
        Command::Promote(target) => ("promote", target),
        Command::Abort(target) => ("abort", target),
        Command::Retry(target) => ("retry", target),
    };
    let path = path_of(server, &target.id)?;
    let view: RolloutView = server.post(
        &format!("/api/v1/rollouts/{path}/{verb}"),
        &json!({ "reason": target.reason }),
    )?;
    if output.json {
        return output.document(&view);
    }
    line(&format!(
        "{} of {} → {}: {}",
        view.id,
        view.release,
        view.environment,
        words(&view.status)
    ));
    Ok(())
}
