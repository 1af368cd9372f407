//! The `shipway` binary: parses the command line and wires the crates together.

// Printed text may be untrusted: only `print` writes to the terminal, without control sequences.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod commands;
mod committed_paths;
mod credentials;
mod exit;
mod forge;
mod limits;
mod live;
mod openid;
mod password_input;
mod print;
mod report;
mod retention;
mod runner;
mod service_argument;

use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use client::{GLOBAL_OPTIONS, ServerConnection};
use commands::{
    accounts, admin, check, delete, delivery_lists, demo, deploy, env, eval, forges, history, init,
    internal, logs, notify, rollout_actions, run, runs, secret, server, shell, simulate, status,
    test_results, watch,
};
use exit::Failure;
use print::Output;

const ABOUT: &str = "Delivers your commits to production and rolls back bad releases automatically.

If the pipeline is green, it is in production. If the new version misbehaves, Shipway restores the previous one before users notice.";

const FIRST_STEPS: &str = "\
Three commands to start with:
  shipway demo      a real service, three releases, one of them bad; about a minute, no network
  shipway init      write shipway.yaml for this repository
  shipway server    start a server; then: git push http://localhost:7878/git/SERVICE main

All commands: shipway --help";

/// Delivers your commits to production and rolls back bad releases automatically.
#[derive(Debug, Parser)]
#[command(name = "shipway", version, about = ABOUT, after_help = FIRST_STEPS, propagate_version = true, max_term_width = 100, disable_help_flag = true, disable_version_flag = true)]
struct Cli {
    #[command(flatten)]
    server: ServerConnection,

    /// Print JSON instead of text
    #[arg(long, global = true, help_heading = GLOBAL_OPTIONS)]
    json: bool,

    /// Suppress progress output
    #[arg(long, short, global = true, help_heading = GLOBAL_OPTIONS)]
    quiet: bool,

    /// Print help
    #[arg(long, short, global = true, help_heading = GLOBAL_OPTIONS, action = ArgAction::Help)]
    help: Option<bool>,

    /// Print version
    #[arg(long, short = 'V', global = true, help_heading = GLOBAL_OPTIONS, action = ArgAction::Version)]
    version: Option<bool>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Server(server::Args),
    Check(check::Args),
    /// Print the JSON Schema of shipway.yaml, for editors
    Schema,
    Run(run::Args),
    Simulate(simulate::Args),
    Deploy(deploy::Deploy),
    Plan(deploy::Plan),
    Status(status::Args),
    History(history::Args),
    Runs(delivery_lists::RunsArgs),
    Releases(delivery_lists::ReleasesArgs),
    Open(delivery_lists::OpenArgs),
    Logs(logs::Args),
    Shell(shell::Args),
    Tests(test_results::Args),
    Watch(watch::Args),
    #[command(flatten)]
    RolloutAction(rollout_actions::Command),
    Rollback(deploy::Rollback),
    Delete(delete::DeleteArgs),
    Secret(secret::SecretArgs),
    Env(env::EnvArgs),
    Forge(forges::ForgeArgs),
    Notify(notify::NotifyArgs),
    Dispatch(runs::Dispatch),
    Cancel(runs::Cancel),
    Eval(eval::Args),
    #[command(subcommand)]
    User(accounts::UserCommand),
    #[command(subcommand)]
    Group(accounts::GroupCommand),
    #[command(subcommand)]
    Token(accounts::TokenCommand),
    Login(accounts::LoginArgs),
    Logout(accounts::LogoutArgs),
    Whoami(accounts::WhoamiArgs),
    Admin(admin::Args),
    Proxy(internal::Proxy),
    #[command(hide = true)]
    Worker(internal::Worker),
    #[command(hide = true)]
    Instance(internal::Instance),
    #[command(hide = true)]
    Hook(internal::Hook),
}

impl Command {
    /// Whether its output contains commands for the same server.
    fn prints_commands(&self) -> bool {
        matches!(
            self,
            Self::Deploy(_)
                | Self::Status(_)
                | Self::Watch(_)
                | Self::RolloutAction(_)
                | Self::Rollback(_)
                | Self::Dispatch(_)
        )
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output {
        json: cli.json,
        quiet: cli.quiet,
    };
    let Some(command) = cli.command else {
        print::line(&format!(
            "shipway {}: delivers your commits to production and rolls back bad releases automatically.\n\n{FIRST_STEPS}",
            env!("CARGO_PKG_VERSION")
        ));
        return ExitCode::SUCCESS;
    };
    if command.prints_commands() && !output.json && !output.quiet {
        cli.server.export_line().as_deref().map(print::error_line);
    }
    match carry_out(command, &cli.server, output) {
        Ok(code) => code,
        Err(failure) => print::report_failure(&failure),
    }
}

fn carry_out(
    command: Command,
    server: &ServerConnection,
    output: Output,
) -> Result<ExitCode, Failure> {
    let done = |result: Result<(), Failure>| result.map(|()| ExitCode::SUCCESS);
    match command {
        Command::Demo(args) => done(demo::run(&args)),
        Command::Init(args) => done(init::run(server, &args)),
        Command::Server(args) => done(server::run(args, server)),
        Command::Check(args) => check::run(server, &args, output),
        Command::Schema => done(output.document(&shipway_core::config::schema())),
        Command::Run(args) => run::run(&args, output),
        Command::Simulate(args) => done(simulate::run(&args, output)),
        Command::Deploy(args) => done(deploy::deploy(server, &args, output)),
        Command::Plan(args) => done(deploy::plan(server, &args, output)),
        Command::Status(args) => done(status::run(server, &args, output)),
        Command::History(args) => done(history::run(server, &args, output)),
        Command::Runs(args) => done(delivery_lists::list_runs(server, &args, output)),
        Command::Releases(args) => done(delivery_lists::list_releases(server, &args, output)),
        Command::Open(args) => done(delivery_lists::open_page(server, &args, output)),
        Command::Logs(args) => done(logs::run(server, &args)),
        Command::Shell(args) => shell::run(server, &args, output),
        Command::Tests(args) => done(test_results::run(server, &args, output)),
        Command::Watch(args) => done(watch::run(server, &args, output)),
        Command::RolloutAction(command) => done(rollout_actions::run(server, &command, output)),
        Command::Rollback(args) => done(deploy::roll_back(server, &args, output)),
        Command::Delete(args) => done(delete::run(server, &args, output)),
        Command::Secret(args) => done(secret::run(server, &args, output)),
        Command::Env(args) => done(env::run(server, &args, output)),
        Command::Forge(args) => done(forges::run(server, &args, output)),
        Command::Notify(args) => done(notify::run(server, &args, output)),
        Command::Dispatch(args) => done(runs::dispatch(server, &args, output)),
        Command::Cancel(args) => done(runs::cancel(server, &args, output)),
        Command::Eval(args) => eval::run(&args, output),
        Command::User(command) => done(accounts::run_user(server, &command, output)),
        Command::Group(command) => done(accounts::run_group(server, &command, output)),
        Command::Token(command) => done(accounts::run_token(server, &command, output)),
        Command::Login(args) => done(accounts::log_in(server, &args, output)),
        Command::Logout(_) => done(accounts::log_out(server, output)),
        Command::Whoami(_) => done(accounts::show_caller(server, output)),
        Command::Admin(args) => done(admin::run(&args, server, output, &mut Cli::command())),
        Command::Proxy(args) => done(internal::proxy(args)),
        Command::Worker(args) => Ok(internal::worker(&args)),
        Command::Instance(args) => Ok(shipway_targets::process::shim::run_shim(&args.dir)),
        Command::Hook(_) => Ok(shipway_drivers::git::hook::post_receive()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        for command in Cli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
