//! `shipway history`.

use shipway_api::ApiClient;
use shipway_core::rollout::RolloutView;

use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, ago, table},
    service_argument::ServiceArgument,
};

/// List the rollouts of a service, newest first
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    service: ServiceArgument,
    /// Maximum number of rollouts
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
}

/// Shows the rollouts of a service.
pub fn run(server: &ServerConnection, args: &Args, output: Output) -> Result<(), Failure> {
    let service = args.service.resolve(server)?;
    let mut rollouts = server.rollouts(&service, args.limit)?;
    // The server has them by their last change.
    rollouts.sort_by_key(|rollout| std::cmp::Reverse(rollout.id.number));
    if rollouts.is_empty() {
        // Nothing yet, or a name that is not known: the server says which.
        server.service(&service)?;
    }
    if output.json {
        return output.document(&rollouts);
    }
    let row = |view: &RolloutView| {
        let ended = view.ended.as_ref().map(|end| &end.why);
        let paused = view.paused.as_ref().map(|pause| &pause.reason);
        let why = ended.or(paused).unwrap_or(&view.why).clone();
        vec![
            view.id.number.to_string(),
            view.release.to_string(),
            view.environment.to_string(),
            view.kind.to_string(),
            view.status.to_string(),
            ago(view.opened_at),
            person_name(&view.by).to_owned(),
            why,
        ]
    };
    table(
        &[
            "ROLLOUT",
            "RELEASE",
            "ENVIRONMENT",
            "KIND",
            "STATUS",
            "STARTED",
            "BY",
            "WHY",
        ],
        &rollouts.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

/// Who, without their address.
fn person_name(by: &str) -> &str {
    by.split_once(" <").map_or(by, |(name, _)| name)
}
