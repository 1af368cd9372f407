//! `shipway logs`: of a service's instances, of a run's jobs, of a rollout's instances, of one instance.

use std::time::{Duration, Instant};

use shipway_api::{ApiClient, LogChunk};
use shipway_core::ids::RunId;

use super::{
    id_args::{Kind, kind_of, rollout_id, run_id},
    service_logs::{InstanceSelection, LogExtent},
};
use crate::{
    client::{ClientError, ServerConnection},
    exit::Failure,
    print::line,
    service_argument::default_service,
};

/// Show the logs of the running instances of a service (shop, shop/production), of a run (r12), of the instances of a rollout (ro7), or
/// of one instance (shop.production.3.1)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A service, a run, a rollout or an instance (default: the service of the nearest shipway.yaml, in this folder or above)
    id: Option<String>,
    /// Show new lines: of a run until its jobs end, of a service over restarts and releases
    #[arg(long, short)]
    follow: bool,
    /// Of a service: only the instances of this environment
    #[arg(long, value_name = "ENV")]
    env: Option<String>,
    /// Of a service: at most the last N lines of each instance
    #[arg(long, value_name = "N", default_value_t = 100)]
    tail: usize,
    /// Only this job of a run
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
}

/// Shows logs.
pub fn run(server: &ServerConnection, args: &Args) -> Result<(), Failure> {
    let id = match &args.id {
        Some(id) => id.clone(),
        None => default_service(server)?.to_string(),
    };
    match kind_of(&id) {
        Some(Kind::Run) => run_logs(server, &id, args),
        Some(Kind::Rollout) => rollout_logs(server, &id),
        None if id.split('.').count() != 4 => {
            let extent = LogExtent {
                tail: args.tail,
                follow: args.follow,
            };
            InstanceSelection::parse(&id, args.env.as_deref())?.show(server, extent)
        }
        None => show(
            server,
            &format!("/api/v1/instances/{}/log?follow={}", id, args.follow),
            "",
        ),
    }
}

fn run_logs(server: &ServerConnection, id: &str, args: &Args) -> Result<(), Failure> {
    let id = run_id(server, id)?;
    let run = server.run(&id)?;
    // A job that calls a workflow has no log; the jobs of that workflow have.
    let with_log = run.jobs.into_iter().filter(|job| job.calls.is_none());
    let keys: Vec<String> = with_log.map(|job| job.key).collect();
    let wanted: Vec<&String> = keys
        .iter()
        .filter(|key| args.job.as_ref().is_none_or(|job| job == *key))
        .collect();
    if wanted.is_empty() {
        return Err(Failure::usage_with(
            format!("no such job in {id}"),
            format!("its jobs are {}", keys.join(", ")),
        ));
    }
    if args.job.is_none() {
        print_failure_summary(server, &id)?;
    }
    for key in &wanted {
        let prefix = if wanted.len() > 1 {
            format!("{key} │ ")
        } else {
            String::new()
        };
        let log = server.job_log_path(&id, key);
        if args.follow {
            follow(server, &log, &prefix)?;
        } else {
            show(server, &log, &prefix)?;
        }
    }
    Ok(())
}

/// Prints why a run failed; nothing unless it has.
pub fn print_failure_summary(server: &ServerConnection, id: &RunId) -> Result<(), Failure> {
    let summary = server.failure_summary(id)?;
    summary.lines.iter().for_each(|text| line(text));
    if !summary.lines.is_empty() {
        line("");
    }
    Ok(())
}

/// How long a server that has gone is waited for: long enough for a new version of it.
const GONE_MAX: Duration = Duration::from_secs(300);
const BETWEEN: Duration = Duration::from_millis(250);

/// Shows the log of a job to its end. Reconnects when the server restarts, without repeating lines.
fn follow(server: &ServerConnection, path: &str, prefix: &str) -> Result<(), Failure> {
    let (mut after, mut heard) = ("0".to_owned(), Instant::now());
    let mut first = true;
    loop {
        match server.events(path, &after) {
            Ok(events) => {
                heard = Instant::now();
                if show_events(events, prefix, &mut after)? {
                    return Ok(());
                }
            }
            Err(ClientError::Unreachable { .. }) if !first && heard.elapsed() < GONE_MAX => {}
            Err(error) => return Err(error.into()),
        }
        first = false;
        std::thread::sleep(BETWEEN);
    }
}

/// Shows the events and remembers the last id. True at the end of the log, false when the connection broke.
fn show_events(
    lines: impl Iterator<Item = std::io::Result<String>>,
    prefix: &str,
    after: &mut String,
) -> Result<bool, Failure> {
    let (mut id, mut name, mut data) = (None, String::new(), String::new());
    for text in lines {
        let Ok(text) = text else {
            return Ok(false);
        };
        match text.split_once(':') {
            Some(("id", value)) => id = Some(value.trim().to_owned()),
            Some(("event", value)) => value.trim().clone_into(&mut name),
            Some(("data", value)) => data.push_str(value),
            Some(_) => {}
            None if name == "end" => return Ok(true),
            None => {
                // Incomplete events are ignored.
                let chunk: LogChunk = serde_json::from_str(&data).unwrap_or_default();
                for shown in chunk.text.lines() {
                    line(&format!("{prefix}{shown}"));
                }
                if let Some(id) = id.take() {
                    *after = id;
                }
                (name, data) = (String::new(), String::new());
            }
        }
    }
    Ok(false)
}

fn rollout_logs(server: &ServerConnection, id: &str) -> Result<(), Failure> {
    let view = server.rollout(&rollout_id(server, id)?)?;
    let mut shown = false;
    for slot in 1.. {
        let name = format!(
            "{}.{}.{}.{slot}",
            view.id.service, view.environment, view.release.0
        );
        match show(
            server,
            &format!("/api/v1/instances/{name}/log?follow=false"),
            &format!("{slot} │ "),
        ) {
            Ok(()) => shown = true,
            Err(error) if !shown => return Err(error),
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn show(server: &ServerConnection, path: &str, prefix: &str) -> Result<(), Failure> {
    for text in server.lines(path)? {
        match text {
            Ok(text) => line(&format!("{prefix}{text}")),
            Err(error) => return Err(Failure::Failed(format!("the log was interrupted: {error}"))),
        }
    }
    Ok(())
}
