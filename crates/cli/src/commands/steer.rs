//! What a person can do to a rollout.

use serde_json::json;
use shipway_core::rollout::{Progress, RolloutView, Status};

use super::{
    ids::{Kind, path_of},
    ship,
};
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

/// A yes.
#[derive(Debug, clap::Args)]
pub struct Approval {
    #[command(flatten)]
    target: Target,
    /// A group you approve for, where the gate asks for one (`from: ["@platform"]`); may be given several times
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say yes to the gate a rollout waits at
    Approve(Approval),
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
        Command::Approve(approval) => ("approve", &approval.target),
        Command::Reject(target) => ("reject", target),
        Command::Pause(target) => ("pause", target),
        Command::Resume(target) => ("resume", target),
        Command::Promote(target) => ("promote", target),
        Command::Abort(target) => ("abort", target),
        Command::Retry(target) => ("retry", target),
    };
    let groups: Vec<String> = match command {
        Command::Approve(approval) => approval.group.iter().map(|name| at(name)).collect(),
        _ => Vec::new(),
    };
    let path = path_of(server, &target.id, Kind::Rollout)?;
    if matches!(command, Command::Retry(_)) {
        return ship::retry(server, &path, target.reason.as_deref(), output);
    }
    let view: RolloutView = server.post(
        &format!("/api/v1/rollouts/{path}/{verb}"),
        &json!({ "reason": target.reason, "groups": groups }),
    )?;
    if output.json {
        return output.document(&view);
    }
    line(&format!(
        "{} of {} → {}: {}{}",
        view.id,
        view.release,
        view.environment,
        words(&view.status),
        still_asked(&view)
    ));
    Ok(())
}

/// What a gate still waits for.
fn still_asked(view: &RolloutView) -> String {
    if view.status != Status::Waiting {
        return String::new();
    }
    let asked = view.plan.iter().find(|it| it.progress == Progress::Now);
    let asked = asked.map_or("an answer", |it| it.text.as_str());
    let so_far = if view.approvals.is_empty() {
        String::new()
    } else {
        format!("; so far {}", view.approvals.join(", "))
    };
    format!(" · {asked}{so_far}")
}

/// `@platform`, however it was written.
fn at(group: &str) -> String {
    format!("@{}", group.trim_start_matches('@'))
}
