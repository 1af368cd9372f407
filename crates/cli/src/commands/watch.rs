//! `shipway watch`: a rollout as it goes, to its end.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use shipway_core::{
    rollout::{Progress, RolloutView, Status},
    run::{self, RunView},
};
use shipway_workflow::job::Conclusion;

use super::{
    ids::{Kind, kind_of, path_of},
    logs,
    plot::Plot,
};
use crate::{
    client::Server,
    exit::Failure,
    print::{Output, line, words},
};

/// From one look to the next; events of the log come sooner.
pub(super) const LOOK: Duration = Duration::from_millis(300);

/// Follow a rollout until it is promoted, or a run until it is over; exit code 1 when it failed or was rolled back
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The rollout or run, such as ro7, shop/ro7 or r12
    id: String,
}

/// What whoever follows a rollout hopes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hope {
    /// That its release is promoted.
    Promoted,
    /// That it goes back: they have asked for it.
    Back,
    /// That it is over, either way: another one waits.
    Over,
}

/// Follows a rollout.
pub fn run(server: &Server, args: &Args, output: Output) -> Result<(), Failure> {
    match kind_of(&args.id) {
        Some(Kind::Run) => follow_run(server, &args.id, output),
        _ => follow(server, &args.id, Hope::Promoted, output),
    }
}

/// Follows a run to its end: its jobs as they come and go, and when it failed the three lines that matter.
fn follow_run(server: &Server, id: &str, output: Output) -> Result<(), Failure> {
    let path = path_of(server, id, Kind::Run)?;
    let mut told: BTreeMap<String, run::Status> = BTreeMap::new();
    loop {
        let view: RunView = server.get(&format!("/api/v1/runs/{path}"))?;
        if told.is_empty() && !output.json && !output.quiet {
            line(&format!("{}: {}", view.id, view.title));
        }
        for job in view.jobs.iter().filter(|_| !output.json && !output.quiet) {
            let before = told.insert(job.key.clone(), job.status);
            if before != Some(job.status) && before.is_some() {
                line(&format!("{}: {}", job.name, words(&job.status)));
            }
        }
        if let Some(conclusion) = view.conclusion {
            if output.json {
                output.document(&view)?;
            } else if conclusion == Conclusion::Failure {
                logs::why(server, &path)?;
            }
            return match conclusion {
                Conclusion::Success | Conclusion::Skipped => Ok(()),
                Conclusion::Failure | Conclusion::Cancelled => {
                    Err(Failure::Failed(format!("{} ended: {conclusion}", view.id)))
                }
            };
        }
        std::thread::sleep(LOOK);
    }
}

/// Follows a rollout until what is hoped for has come or can't come any more: its story line by line, on a terminal with a line
/// below that moves.
pub fn follow(server: &Server, id: &str, hope: Hope, output: Output) -> Result<(), Failure> {
    let path = format!("/api/v1/rollouts/{}", path_of(server, id, Kind::Rollout)?);
    let bar = (std::io::stderr().is_terminal() && !output.json && !output.quiet).then(|| {
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar
    });
    let mut told = 0;
    let mut announced = String::new();
    let mut plot = Plot::new(format!("{path}/analysis"));
    loop {
        let view: RolloutView = server.get(&path)?;
        for note in view.notes.iter().skip(told).filter(|_| !output.json) {
            let text = format!("{}  {}", note.at.strftime("%H:%M:%S"), note.text);
            match &bar {
                Some(bar) => bar.suspend(|| line(&text)),
                None => line(&text),
            }
        }
        told = view.notes.len();
        if let Some(outcome) = outcome(&view, hope) {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
                plot.print(server, &view);
            }
            if output.json {
                output.document(&view)?;
            } else if view.status == Status::KeptWarm {
                line(&kept_warm(&view));
            }
            return outcome;
        }
        let now = moving_line(&view);
        match &bar {
            Some(bar) => {
                bar.set_message(format!("{now}{}", plot.below(server, &view)));
                bar.tick();
            }
            None if !output.json && now != announced && view.judgement.is_none() => {
                line(&format!("          {now}"));
                announced = now;
            }
            None => {}
        }
        std::thread::sleep(LOOK);
    }
}

/// How it came out for them, once that is known. A promoted release whose predecessor is kept warm is as good as over: nobody
/// waits for an hour in which nothing happens if all goes well.
fn outcome(view: &RolloutView, hope: Hope) -> Option<Result<(), Failure>> {
    match (&view.ended, view.status, hope) {
        (None, Status::KeptWarm, Hope::Promoted) => Some(Ok(())),
        (None, _, _) => None,
        (Some(_), Status::Promoted, Hope::Promoted)
        | (Some(_), Status::RolledBack, Hope::Back)
        | (Some(_), _, Hope::Over) => Some(Ok(())),
        (Some(end), _, _) => Some(Err(Failure::Failed(format!("{}: {}", view.id, end.why)))),
    }
}

fn kept_warm(view: &RolloutView) -> String {
    let until = view
        .hold_until
        .map(|until| format!(" until {}", until.strftime("%H:%M:%S")))
        .unwrap_or_default();
    format!(
        "{} serves all traffic; the previous instances stay warm{until}: shipway abort {} goes back at once",
        view.release, view.id
    )
}

/// Where it is: shares, the action under way, what the evidence says.
fn moving_line(view: &RolloutView) -> String {
    let shares: Vec<String> = view
        .split
        .shares
        .iter()
        .map(|(release, weight)| format!("{release} {weight}"))
        .collect();
    let action = view
        .plan
        .iter()
        .find(|line| line.progress == Progress::Now)
        .map_or("", |line| line.text.as_str());
    let verdict = view
        .judgement
        .as_ref()
        .map(|judgement| format!(" · {}", judgement.verdict))
        .unwrap_or_default();
    let reach = view
        .reach
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    format!(
        "{} · {}{reach} · {action}{verdict}",
        words(&view.status),
        shares.join(", ")
    )
}
