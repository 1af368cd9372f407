//! `shipway env`: sets, lists and removes variables.

use shipway_api::{ApiClient as _, SetVariableRequest};

use super::{
    secret::parse_name,
    value_scope::{ValueScope, describe_scope},
};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line, table},
};

const DETAILS: &str = "\
A workflow reads a variable as ${{ vars.NAME }}. Variables can be read by everyone who may read the
service: use `shipway secret` for passwords and tokens. A variable is for one service, or with
--all-services for all of them; with --env it is for jobs of that environment, in place of a
shared one of the same name.";

/// Set, list and remove variables of workflows (`vars`)
#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub struct EnvArgs {
    #[command(subcommand)]
    command: EnvCommand,
}

#[derive(Debug, clap::Subcommand)]
enum EnvCommand {
    /// Set a variable
    Set(SetVariableArgs),
    /// List variables with their values
    List(ListVariablesArgs),
    /// Remove a variable
    Rm(RemoveVariableArgs),
}

#[derive(Debug, clap::Args)]
struct SetVariableArgs {
    /// Its name and value
    #[arg(value_name = "NAME=VALUE")]
    assignment: String,
    #[command(flatten)]
    scope: ValueScope,
}

#[derive(Debug, clap::Args)]
struct ListVariablesArgs {
    #[command(flatten)]
    scope: ValueScope,
}

#[derive(Debug, clap::Args)]
struct RemoveVariableArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    scope: ValueScope,
}

/// Carries out a command on variables.
pub fn run(server: &ServerConnection, args: &EnvArgs, output: Output) -> Result<(), Failure> {
    match &args.command {
        EnvCommand::Set(args) => set(server, args, output),
        EnvCommand::List(args) => list(server, args, output),
        EnvCommand::Rm(args) => remove(server, args, output),
    }
}

fn set(server: &ServerConnection, args: &SetVariableArgs, output: Output) -> Result<(), Failure> {
    let Some((name, value)) = args.assignment.split_once('=') else {
        return Err(Failure::usage_with(
            format!("{:?} has no value", args.assignment),
            "write NAME=VALUE, for example: shipway env set LOG_LEVEL=info",
        ));
    };
    let name = parse_name(name)?;
    let service = args.scope.service(server)?;
    let environment = args.scope.environment();
    let request = SetVariableRequest {
        value: value.to_owned(),
    };
    let page = server.set_variable(name.as_str(), service.as_deref(), environment, &request)?;
    if output.json {
        return output.document(&page.items);
    }
    let scope = describe_scope(service.as_deref(), environment);
    line(&format!("{name} of {scope} is set"));
    Ok(())
}

fn list(
    server: &ServerConnection,
    args: &ListVariablesArgs,
    output: Output,
) -> Result<(), Failure> {
    let service = args.scope.service(server)?;
    let mut variables = server.variables(service.as_deref())?.items;
    if let Some(wanted) = args.scope.environment() {
        variables.retain(|it| {
            it.environment
                .as_ref()
                .is_some_and(|it| it.as_str() == wanted)
        });
    }
    if output.json {
        return output.document(&variables);
    }
    if variables.is_empty() {
        let scope = describe_scope(service.as_deref(), args.scope.environment());
        line(&format!(
            "no variables of {scope}; set one: shipway env set NAME=VALUE"
        ));
        return Ok(());
    }
    let rows = variables.iter().map(|variable| -> Vec<String> {
        let environment = variable.environment.as_ref();
        vec![
            variable.name.to_string(),
            environment.map_or_else(|| "all".to_owned(), ToString::to_string),
            variable.value.clone(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    table(&["NAME", "ENVIRONMENT", "VALUE"], &rows);
    Ok(())
}

fn remove(
    server: &ServerConnection,
    args: &RemoveVariableArgs,
    output: Output,
) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let service = args.scope.service(server)?;
    let environment = args.scope.environment();
    let page = server.remove_variable(name.as_str(), service.as_deref(), environment)?;
    if output.json {
        return output.document(&page.items);
    }
    let scope = describe_scope(service.as_deref(), environment);
    line(&format!("{name} of {scope} is removed"));
    Ok(())
}
