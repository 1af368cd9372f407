//! `shipway dispatch` and `cancel`.

use std::collections::BTreeMap;

use shipway_api::{ApiClient, CancelRunRequest, DispatchRequest};

use super::id_args::run_id;
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, enum_text, line},
    service_argument::ServiceOption,
};

/// Start a workflow manually (`on: workflow_dispatch`)
#[derive(Debug, clap::Args)]
pub struct Dispatch {
    #[command(flatten)]
    service: ServiceOption,
    /// The workflow; the default is the only one with `workflow_dispatch`
    workflow: Option<String>,
    /// The branch or tag to run on
    #[arg(long = "ref", value_name = "BRANCH_OR_TAG")]
    reference: Option<String>,
    /// An input, as NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
}

/// Cancel a run
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// The run, such as r12
    run: String,
    /// Reason, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Starts a workflow manually.
pub fn dispatch(server: &ServerConnection, args: &Dispatch, output: Output) -> Result<(), Failure> {
    let service = args.service.resolve(server)?;
    let mut inputs = BTreeMap::new();
    for input in &args.input {
        let (name, value) = input
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{input:?} is not NAME=VALUE")))?;
        inputs.insert(name.to_owned(), value.to_owned());
    }
    let request = DispatchRequest {
        workflow: args.workflow.clone(),
        r#ref: args.reference.clone(),
        inputs,
    };
    let answer = server.dispatch(&service, &request)?;
    if output.json {
        return output.document(&answer);
    }
    let run = answer.run.unwrap_or_default();
    line(&format!("run {run} started: shipway logs {run} --follow"));
    Ok(())
}

/// Cancels a run.
pub fn cancel(server: &ServerConnection, args: &Cancel, output: Output) -> Result<(), Failure> {
    let request = CancelRunRequest {
        reason: args.reason.clone(),
    };
    let run = server.cancel_run(&run_id(server, &args.run)?, &request)?;
    if output.json {
        return output.document(&run);
    }
    line(&format!("{} is {}", args.run, enum_text(&run.status)));
    Ok(())
}
