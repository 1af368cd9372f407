//! `shipway logs`: of a run's jobs, of a rollout's instances, of one instance.

use std::time::{Duration, Instant};

use serde_json::Value;
use shipway_core::rollout::RolloutView;

use super::ids::{Kind, kind_of, path_of};
use crate::{
    client::{ClientError, Server},
    exit::Failure,
    print::line,
};

/// Show logs: of a run (r12), of a rollout's instances (ro7), of one instance (shop.production.3.1)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run, a rollout or an instance
    id: String,
    /// Go on as long as the log grows
    #[arg(long, short)]
    follow: bool,
    /// Only this job of a run
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
}

/// Shows logs.
pub fn run(server: &Server, args: &Args) -> Result<(), Failure> {
    match kind_of(&args.id) {
        Some(Kind::Run) => run_logs(server, args),
        Some(Kind::Rollout) => rollout_logs(server, args),
        None if args.id.split('.').count() != 4 => Err(Failure::usage_with(
            format!("{:?} is no run, rollout or instance", args.id),
            "they look like r12, ro7 and shop.production.3.1; `shipway status` shows what there is",
        )),
        None => show(
            server,
            &format!("/api/v1/instances/{}/log?follow={}", args.id, args.follow),
            "",
        ),
    }
}

fn run_logs(server: &Server, args: &Args) -> Result<(), Failure> {
    let path = path_of(server, &args.id, Kind::Run)?;
    let run: Value = server.get(&format!("/api/v1/runs/{path}"))?;
    let keys: Vec<String> = run["jobs"]
        .as_array()
        .into_iter()
        .flatten()
        // A call has no log: the jobs it leads to have.
        .filter(|job| job["calls"].is_null())
        .filter_map(|job| job["key"].as_str().map(str::to_owned))
        .collect();
    let wanted: Vec<&String> = keys
        .iter()
        .filter(|key| args.job.as_ref().is_none_or(|job| job == *key))
        .collect();
    if wanted.is_empty() {
        return Err(Failure::usage_with(
            format!("{} has no such job", args.id),
            format!("its jobs are {}", keys.join(", ")),
        ));
    }
    if args.job.is_none() {
        why(server, &path)?;
    }
    for key in &wanted {
        let prefix = if wanted.len() > 1 {
            format!("{key} │ ")
        } else {
            String::new()
        };
        let log = format!("/api/v1/runs/{path}/jobs/{key}/log");
        if args.follow {
            follow(server, &log, &prefix)?;
        } else {
            show(server, &log, &prefix)?;
        }
    }
    Ok(())
}

/// The three lines that matter of a run that failed; nothing of another.
pub fn why(server: &Server, path: &str) -> Result<(), Failure> {
    let why: Why = server.get(&format!("/api/v1/runs/{path}/why"))?;
    why.lines.iter().for_each(|text| line(text));
    if !why.lines.is_empty() {
        line("");
    }
    Ok(())
}

/// Why a run failed.
#[derive(serde::Deserialize)]
struct Why {
    lines: Vec<String>,
}

/// How long a server that has gone is waited for: long enough for a new version of it.
const GONE_MAX: Duration = Duration::from_secs(300);
const BETWEEN: Duration = Duration::from_millis(250);

/// Shows the log of a job to its end. A server that goes away meanwhile is waited for: what was shown is not shown again.
fn follow(server: &Server, path: &str, prefix: &str) -> Result<(), Failure> {
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

/// Shows what comes, and keeps the id of the last event; true when that was the end, false when the connection broke.
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
                // Only what came whole counts.
                let document: Value = serde_json::from_str(&data).unwrap_or_default();
                for shown in document["text"].as_str().unwrap_or_default().lines() {
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

fn rollout_logs(server: &Server, args: &Args) -> Result<(), Failure> {
    let path = path_of(server, &args.id, Kind::Rollout)?;
    let view: RolloutView = server.get(&format!("/api/v1/rollouts/{path}"))?;
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

fn show(server: &Server, path: &str, prefix: &str) -> Result<(), Failure> {
    for text in server.lines(path)? {
        match text {
            Ok(text) => line(&format!("{prefix}{text}")),
            Err(error) => return Err(Failure::Failed(format!("the log broke off: {error}"))),
        }
    }
    Ok(())
}
