//! `shipway watch`: a rollout as it goes, to its end.

use std::{collections::BTreeMap, time::Duration};

use shipway_api::ApiClient;
use shipway_core::{
    rollout::{RolloutProgress, RolloutStatus, RolloutView, TimelineNote},
    run,
};
use shipway_workflow::job::Conclusion;

use super::{
    id_args::{Kind, kind_of, rollout_id, run_id},
    logs,
    plot::Plot,
};
use crate::{
    client::ServerConnection,
    exit::Failure,
    live::{Live, TerminalSize, folded, tame},
    print::{Output, enum_text, line},
};

/// From one look to the next; events of the log come sooner.
pub(super) const LOOK: Duration = Duration::from_millis(300);

/// Signs that follow each other while nothing else moves.
const SIGNS: [char; 8] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧'];
const INDENT: &str = "  ";

/// Follow a rollout until it is promoted, or a run until it ends; exit code 1 when it failed or was rolled back
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The rollout or run, such as ro7, shop/ro7 or r12
    id: String,
}

/// The expected end of a followed rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedEnd {
    /// That its release is promoted.
    Promoted,
    /// A rollback that the caller requested.
    Back,
    /// Any end: another rollout is waiting.
    Over,
}

/// Follows a rollout.
pub fn run(server: &ServerConnection, args: &Args, output: Output) -> Result<(), Failure> {
    match kind_of(&args.id) {
        Some(Kind::Run) => follow_run(server, &args.id, output),
        _ => follow(server, &args.id, ExpectedEnd::Promoted, output),
    }
}

/// Follows a run to its end: its jobs as they come and go, and when it failed the three lines that matter.
fn follow_run(server: &ServerConnection, id: &str, output: Output) -> Result<(), Failure> {
    let id = run_id(server, id)?;
    let mut shown_status: BTreeMap<String, run::RunStatus> = BTreeMap::new();
    loop {
        let view = server.run(&id)?;
        if shown_status.is_empty() && !output.json && !output.quiet {
            line(&format!("{}: {}", view.id, view.title));
        }
        for job in view.jobs.iter().filter(|_| !output.json && !output.quiet) {
            let before = shown_status.insert(job.key.clone(), job.status);
            if before != Some(job.status) && before.is_some() {
                line(&format!("{}: {}", job.name, enum_text(&job.status)));
            }
        }
        if let Some(conclusion) = view.conclusion {
            if output.json {
                output.document(&view)?;
            } else if conclusion == Conclusion::Failure {
                logs::print_failure_summary(server, &id)?;
            }
            return match conclusion {
                Conclusion::Success | Conclusion::Skipped => Ok(()),
                Conclusion::Failure | Conclusion::Cancelled | Conclusion::Incomplete => {
                    Err(Failure::Failed(format!("{} ended: {conclusion}", view.id)))
                }
            };
        }
        std::thread::sleep(LOOK);
    }
}

/// Follows a rollout until the expected end has come or is impossible. Prints its progress line by line, on a terminal with live
/// lines below.
pub fn follow(
    server: &ServerConnection,
    id: &str,
    hope: ExpectedEnd,
    output: Output,
) -> Result<(), Failure> {
    let id = rollout_id(server, id)?;
    let mut live = (!output.json && !output.quiet)
        .then(Live::on_stderr)
        .flatten();
    let mut shown_notes = 0;
    let mut announced = String::new();
    let mut plot = Plot::new(id.clone());
    let mut turn = 0;
    loop {
        let view = server.rollout(&id)?;
        if !output.json {
            print_notes(
                &view.notes[shown_notes.min(view.notes.len())..],
                live.as_mut(),
            );
        }
        shown_notes = view.notes.len();
        if let Some(outcome) = outcome(&view, hope) {
            if let Some(live) = &mut live {
                live.clear();
                plot.print(server, &view, live.room());
            }
            if output.json {
                output.document(&view)?;
            } else if view.guarded_until.is_some() {
                line(&promoted_and_guarded(&view));
            }
            return outcome;
        }
        match &mut live {
            Some(live) => {
                let room = live.room();
                let mut lines = live_lines(&view, turn, room.columns);
                let rows = room.rows.saturating_sub(lines.len());
                lines.extend(plot.lines(server, &view, TerminalSize { rows, ..room }));
                live.show(lines);
            }
            None if !output.json => {
                // With evidence only when the verdict is another one: its sentence changes each second.
                let verdict = view.judgement.as_ref().map(|it| &it.verdict);
                let (now, said) = match verdict {
                    Some(verdict) => (verdict.as_str().to_owned(), verdict.to_string()),
                    None => (progress_text(&view), progress_text(&view)),
                };
                if now != announced {
                    line(&format!("          {}", tame(&said)));
                    announced = now;
                }
            }
            None => {}
        }
        turn += 1;
        std::thread::sleep(LOOK);
    }
}

/// Prints new notes, above the live lines if there are some.
fn print_notes(notes: &[TimelineNote], mut live: Option<&mut Live>) {
    for note in notes {
        let text = format!("{}  {}", note.at.strftime("%H:%M:%S"), tame(&note.text));
        match &mut live {
            Some(live) => {
                let lines = folded(&text, live.room().columns, INDENT);
                live.above(|| lines.iter().for_each(|it| line(it)));
            }
            None => line(&text),
        }
    }
}

/// How it came out for them, once that is known. A promoted release that is kept warm or watched counts as promoted.
fn outcome(view: &RolloutView, hope: ExpectedEnd) -> Option<Result<(), Failure>> {
    match (&view.ended, view.status, hope) {
        (
            None,
            RolloutStatus::KeptWarm | RolloutStatus::Promoted,
            ExpectedEnd::Promoted | ExpectedEnd::Over,
        ) => Some(Ok(())),
        (None, _, _) => None,
        (Some(_), RolloutStatus::Promoted, ExpectedEnd::Promoted)
        | (
            Some(_),
            RolloutStatus::RolledBack
            | RolloutStatus::Aborted
            | RolloutStatus::Rejected
            | RolloutStatus::Superseded,
            ExpectedEnd::Back,
        )
        | (Some(_), _, ExpectedEnd::Over) => Some(Ok(())),
        (Some(end), _, _) => Some(Err(Failure::Failed(format!("{}: {}", view.id, end.why)))),
    }
}

fn promoted_and_guarded(view: &RolloutView) -> String {
    let until = view
        .guarded_until
        .map(|until| format!(" until {}", until.strftime("%H:%M:%S")))
        .unwrap_or_default();
    let service = &view.id.service;
    let roll_back = format!(
        "roll back: shipway rollback {service} --env {}",
        view.environment
    );
    if let Some(fault) = &view.unattributed_fault {
        return format!(
            "{} is promoted and serves all traffic, but degraded, and not rolled back automatically: {fault}; {roll_back}",
            view.release
        );
    }
    let guard = if view.status == RolloutStatus::KeptWarm {
        format!("the previous instances are kept warm{until}")
    } else {
        format!("guarded{until}: a failure rolls back automatically")
    };
    format!(
        "{} is promoted and serves all traffic; {guard}; {roll_back}",
        view.release
    )
}

/// Where it is: shares, the action under way.
fn progress_text(view: &RolloutView) -> String {
    let shares: Vec<String> = view
        .split
        .shares
        .iter()
        .map(|(release, weight)| format!("{release} {weight}"))
        .collect();
    let action = view
        .plan
        .iter()
        .find(|line| line.progress == RolloutProgress::Now)
        .map_or("", |line| line.text.as_str());
    let reach = view
        .reach
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    format!(
        "{} · {}{reach} · {action}",
        enum_text(&view.status),
        shares.join(", ")
    )
}

/// The same with what the evidence says, in lines of at most so many letters, behind a sign that moves from turn to turn.
fn live_lines(view: &RolloutView, turn: usize, columns: usize) -> Vec<String> {
    let sign = SIGNS[turn % SIGNS.len()];
    let mut lines = folded(
        &format!("{sign} {}", tame(&progress_text(view))),
        columns,
        INDENT,
    );
    if let Some(judgement) = &view.judgement {
        let verdict = tame(&judgement.verdict.to_string());
        let verdict = folded(&verdict, columns.saturating_sub(INDENT.len()), "");
        lines.extend(verdict.iter().map(|it| format!("{INDENT}{it}")));
    }
    lines
}
