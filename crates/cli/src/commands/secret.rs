//! `shipway secret`: sets, lists, imports and removes secrets.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use shipway_api::{ApiClient as _, ImportSecretsRequest, SetSecretRequest};
use shipway_core::secret::{SecretName, SecretView, parse_dotenv};

use super::value_scope::{ValueScope, describe_scope};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line, table},
};

const DETAILS: &str = "\
A workflow reads a secret as ${{ secrets.NAME }}, an instance as $NAME in `run.env`, and so do
metric providers and addresses of `notify`. A secret is for one service, or with --all-services
for all of them; with --env it is given only to what runs in that environment, in place of a
shared one of the same name. Values are encrypted on the server and can't be read again.";

/// Set, list, import and remove secrets
#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SecretCommand {
    /// Set a secret; the value is read from standard input or a prompt
    Set(SetSecretArgs),
    /// List secrets: their names, versions, and where they were used
    List(ListSecretsArgs),
    /// Set the secrets of a dotenv file (NAME=value lines), all or none
    Import(ImportSecretsArgs),
    /// Remove a secret
    Rm(RemoveSecretArgs),
    /// Encrypt all secrets with a new key
    RotateKey,
}

#[derive(Debug, clap::Args)]
struct SetSecretArgs {
    /// Its name, such as DATABASE_URL
    name: String,
    #[command(flatten)]
    scope: ValueScope,
    /// Read the value from this file
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ListSecretsArgs {
    #[command(flatten)]
    scope: ValueScope,
}

#[derive(Debug, clap::Args)]
struct ImportSecretsArgs {
    /// The file, such as .env; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    scope: ValueScope,
}

#[derive(Debug, clap::Args)]
struct RemoveSecretArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    scope: ValueScope,
}

/// Carries out a command on secrets.
pub fn run(server: &ServerConnection, args: &SecretArgs, output: Output) -> Result<(), Failure> {
    match &args.command {
        SecretCommand::Set(args) => set(server, args, output),
        SecretCommand::List(args) => list(server, args, output),
        SecretCommand::Import(args) => import(server, args, output),
        SecretCommand::Rm(args) => remove(server, args, output),
        SecretCommand::RotateKey => {
            let rotated = server.rotate_secret_key()?;
            if output.json {
                return output.document(&rotated);
            }
            line(&format!(
                "{} secrets are encrypted with a new key; back up keys/sealing-keys of the data directory",
                rotated.secrets
            ));
            Ok(())
        }
    }
}

fn set(server: &ServerConnection, args: &SetSecretArgs, output: Output) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let service = args.scope.service(server)?;
    let value = read_value(&name, args.from_file.as_deref())?;
    if value.is_empty() {
        return Err(Failure::usage_with(
            format!("the value of {name} is empty: nothing is set"),
            format!("printf %s VALUE | shipway secret set {name}"),
        ));
    }
    let environment = args.scope.environment();
    let request = SetSecretRequest { value };
    let view = server.set_secret(name.as_str(), service.as_deref(), environment, &request)?;
    if output.json {
        return output.document(&view);
    }
    line(&format!(
        "{name} of {} is set (version {})",
        describe_scope(service.as_deref(), environment),
        view.version
    ));
    Ok(())
}

fn list(server: &ServerConnection, args: &ListSecretsArgs, output: Output) -> Result<(), Failure> {
    let service = args.scope.service(server)?;
    let mut secrets = server.secrets(service.as_deref())?.items;
    if let Some(wanted) = args.scope.environment() {
        secrets.retain(|it| {
            it.environment
                .as_ref()
                .is_some_and(|it| it.as_str() == wanted)
        });
    }
    if output.json {
        return output.document(&secrets);
    }
    if secrets.is_empty() {
        let scope = describe_scope(service.as_deref(), args.scope.environment());
        line(&format!(
            "no secrets of {scope}; set one: shipway secret set NAME"
        ));
        return Ok(());
    }
    let rows: Vec<_> = secrets.iter().map(secret_row).collect();
    table(
        &[
            "NAME",
            "ENVIRONMENT",
            "VERSION",
            "CHANGED",
            "BY",
            "LAST USE",
        ],
        &rows,
    );
    Ok(())
}

fn secret_row(secret: &SecretView) -> Vec<String> {
    let last = secret.uses.iter().max_by_key(|it| it.at);
    let environment = secret.environment.as_ref();
    vec![
        secret.name.to_string(),
        environment.map_or_else(|| "all".to_owned(), ToString::to_string),
        secret.version.to_string(),
        secret.changed_at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        secret.changed_by.clone(),
        last.map_or_else(|| "never".to_owned(), |it| it.user.clone()),
    ]
}

fn import(
    server: &ServerConnection,
    args: &ImportSecretsArgs,
    output: Output,
) -> Result<(), Failure> {
    let shown = args.file.display();
    let text = match args.file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(&args.file),
    };
    let text = text.map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    let values =
        parse_dotenv(&text).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    let names: Vec<String> = values.keys().map(ToString::to_string).collect();
    if names.is_empty() {
        return Err(Failure::usage(format!(
            "{shown} has no NAME=value line: nothing is set"
        )));
    }
    let secrets: BTreeMap<String, String> = values
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect();
    let service = args.scope.service(server)?;
    let environment = args.scope.environment();
    let request = ImportSecretsRequest { secrets };
    let page = server.import_secrets(service.as_deref(), environment, &request)?;
    if output.json {
        return output.document(&page.items);
    }
    let scope = describe_scope(service.as_deref(), environment);
    line(&format!(
        "{} secrets of {scope} are set: {}",
        names.len(),
        names.join(", ")
    ));
    Ok(())
}

fn remove(
    server: &ServerConnection,
    args: &RemoveSecretArgs,
    output: Output,
) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let service = args.scope.service(server)?;
    let environment = args.scope.environment();
    let page = server.remove_secret(name.as_str(), service.as_deref(), environment)?;
    if output.json {
        return output.document(&page.items);
    }
    let scope = describe_scope(service.as_deref(), environment);
    line(&format!("{name} of {scope} is removed"));
    Ok(())
}

pub(super) fn parse_name(name: &str) -> Result<SecretName, Failure> {
    name.parse()
        .map_err(|error| Failure::usage(format!("{error}")))
}

/// Never from the command line, which other users of the machine can see and shells record.
fn read_value(name: &SecretName, file: Option<&Path>) -> Result<String, Failure> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file);
        return text.map_err(|error| Failure::usage(format!("{}: {error}", file.display())));
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        let prompt = format!("Value of {name} (it is not shown): ");
        let typed = rpassword::prompt_password(prompt);
        return typed.map_err(|error| Failure::usage(format!("the value can't be read: {error}")));
    }
    let mut text = String::new();
    stdin
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("standard input can't be read: {error}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
