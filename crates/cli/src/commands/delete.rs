//! `shipway delete`: a service, or one of its environments.

use std::io::BufRead;

use shipway_api::{ApiClient, DeletionRequest};

use super::watch::LOOK;
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, error_text, line},
    service_argument::ServiceArgument,
};

const DETAILS: &str = "\
Instances stop, addresses are freed, and the git repository of a deleted service is removed.
History, logs and the files that instances wrote to $DATA_DIR stay. The deletion is refused
while a rollout or run is in progress: abort or cancel it first.

A service whose shipway.yaml is still in its repository returns with the next push: remove the
file first. An environment that shipway.yaml still names is created again by the next release.";

/// Delete a service, or with --env one of its environments; its history stays
#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub struct DeleteArgs {
    #[command(flatten)]
    service: ServiceArgument,
    /// Delete only this environment
    #[arg(long, value_name = "ENV")]
    env: Option<String>,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
    /// Don't ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

/// Deletes, and waits until it is done.
pub fn run(server: &ServerConnection, args: &DeleteArgs, output: Output) -> Result<(), Failure> {
    let service = args.service.resolve(server)?;
    let subject = match &args.env {
        Some(environment) => format!("environment {environment} of {service}"),
        None => format!("service {service} with all its environments"),
    };
    if !args.yes {
        confirm(&subject, args.env.as_deref().unwrap_or(&service))?;
    }
    let request = DeletionRequest {
        reason: args.reason.clone(),
    };
    let deletion = match &args.env {
        Some(environment) => server.delete_environment(&service, environment, &request)?,
        None => server.delete_service(&service, &request)?,
    };
    while is_there(server, &service, args.env.as_deref())? {
        std::thread::sleep(LOOK);
    }
    if output.json {
        return output.document(&deletion);
    }
    line(&format!("deleted: {subject}"));
    Ok(())
}

/// Reads the name from standard input.
fn confirm(subject: &str, name: &str) -> Result<(), Failure> {
    error_text(&format!("This deletes {subject}. Type {name} to confirm: "));
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    if read.is_ok() && typed.trim() == name {
        return Ok(());
    }
    Err(Failure::usage_with(
        format!("nothing is deleted: {:?} is not {name}", typed.trim()),
        "type the name, or confirm with --yes",
    ))
}

fn is_there(
    server: &ServerConnection,
    service: &str,
    environment: Option<&str>,
) -> Result<bool, Failure> {
    let services = server.services()?;
    let view = services.iter().find(|view| view.name.as_str() == service);
    Ok(view.is_some_and(|view| match environment {
        Some(name) => view.environments.iter().any(|it| it.name.as_str() == name),
        None => true,
    }))
}
