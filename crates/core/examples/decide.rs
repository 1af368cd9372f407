//! A run of four thousand jobs that start and end one by one: what deciding costs, with folding and asking what is pending; for
//! `bench/workflows/run`. Prints JSON: milliseconds for the whole run, in three shapes.
//!
//! ```text
//! cargo run --release -p shipway-core --example decide
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a program of its own: it measures, prints, and decides nothing"
)]

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use shipway_core::{
    aggregate::{Actor, Aggregate, fold},
    ids::{RunId, RunNumber},
    release::{Commit, WorkflowFile},
    run::{RunAggregate, RunEffect, RunInput, RunSpec, RunState},
    service::RunPurpose,
};
use shipway_workflow::job::Conclusion;

const JOBS: usize = 4_000;

fn main() {
    let jobs = std::env::args().nth(1);
    let jobs = jobs.and_then(|it| it.parse().ok()).unwrap_or(JOBS);
    let shapes = [
        ("chains", chains(jobs)),
        ("matrices", matrices(jobs)),
        ("flat", flat(jobs)),
    ];
    let mut figures = Vec::new();
    for (name, text) in shapes {
        let (count, took) = run(&text);
        figures.push(format!(
            "\"{name}\":{{\"jobs\":{count},\"ms\":{:.1}}}",
            took.as_secs_f64() * 1e3
        ));
    }
    println!("{{{}}}", figures.join(","));
}

/// Starts and ends the jobs that are pending, the first one first, until the run is over.
fn run(text: &str) -> (usize, Duration) {
    let at = Timestamp::UNIX_EPOCH;
    let spec = spec(text);
    let mut state = RunState::default();
    let began = Instant::now();
    let say = |state: &mut RunState, input| {
        let by = Actor::Shipway("bench".to_owned());
        let events = RunAggregate::decide(state, input, by, at).expect("it is taken");
        fold::<RunAggregate>(state, &events);
    };
    say(&mut state, RunInput::Open(Box::new(spec)));
    let mut count = 0;
    loop {
        let effects = RunAggregate::pending(&state, at).effects;
        let Some((_, RunEffect::RunJob { key, .. })) = effects.into_iter().next() else {
            break;
        };
        count += 1;
        say(&mut state, RunInput::JobStarted { key: key.clone() });
        say(
            &mut state,
            RunInput::JobEnded {
                key,
                conclusion: Conclusion::Success,
                outputs: Vec::new(),
                why: None,
            },
        );
    }
    let run = state.0.as_deref().expect("it was opened");
    assert!(
        run.ended
            .as_ref()
            .is_some_and(|end| end.conclusion == Conclusion::Success)
    );
    (count, began.elapsed())
}

fn spec(text: &str) -> RunSpec {
    let none = "0".repeat(40).parse().expect("zeros are digits");
    RunSpec {
        uid: None,
        id: RunId {
            service: "bench".parse().expect("a name"),
            number: RunNumber(1),
        },
        purpose: RunPurpose::Dispatch,
        workflow: WorkflowFile::new("large.yml".to_owned(), text.to_owned()),
        commit: Commit {
            id: none,
            subject: String::new(),
            author: String::new(),
            committer: None,
            at: Timestamp::UNIX_EPOCH,
        },
        reference: "refs/heads/main".to_owned(),
        before: None,
        event: "push".to_owned(),
        inputs: Default::default(),
        payload: None,
        vars: Default::default(),
        actor: None,
        reports: Default::default(),
        coverage_min: None,
        environments: Vec::new(),
        event_payload: None,
        repository: None,
        default_branch: None,
        location: None,
    }
}

fn workflow(jobs: impl Iterator<Item = String>) -> String {
    jobs.fold("on: push\njobs:\n".to_owned(), |mut text, job| {
        let _ = writeln!(text, "  {job}");
        text
    })
}

/// Chains of a hundred, each job needing up to ten before it.
fn chains(jobs: usize) -> String {
    workflow((0..jobs).map(|n| {
        let first = n - n % 100;
        let needs = (n.saturating_sub(10).max(first)..n).map(|need| format!("j{need}"));
        let needs = needs.collect::<Vec<_>>().join(", ");
        format!("j{n}: {{ runs-on: x, needs: [{needs}], steps: [{{ run: make }}] }}")
    }))
}

/// Matrices of two hundred and fifty, one after the other.
fn matrices(jobs: usize) -> String {
    let cells: Vec<String> = (0..250).map(|n| n.to_string()).collect();
    let cells = cells.join(", ");
    workflow((0..jobs / 250).map(|n| {
        let needs = n.checked_sub(1).map(|need| format!("needs: j{need}, "));
        let needs = needs.unwrap_or_default();
        format!("j{n}: {{ runs-on: x, {needs}strategy: {{ matrix: {{ c: [{cells}] }} }}, steps: [{{ run: make }}] }}")
    }))
}

/// All at once.
fn flat(jobs: usize) -> String {
    workflow((0..jobs).map(|n| format!("j{n}: {{ runs-on: x, steps: [{{ run: make }}] }}")))
}
