//! A workflow of ten thousand jobs, read and planned; for `bench/workflows/run`. Prints JSON: milliseconds, the best of five.
//!
//! A hundred chains of a hundred jobs, each needing up to ten before it: as many edges as jobs times ten.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a program of its own: it measures, prints, and decides nothing"
)]

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use shipway_syntax::SourceFile;
use shipway_workflow::graph::{JobGraph, RunContexts, WorkflowProgress};

const JOBS: usize = 10_000;
const CHAIN: usize = 100;
const NEEDS: usize = 10;
const ROUNDS: usize = 5;

fn main() {
    let text = text();
    let source = SourceFile::new("large.yml", text.as_str());
    let (mut parse, mut plan) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let parsed = shipway_workflow::parse(&source);
        parse = parse.min(began.elapsed());
        let Some(workflow) = parsed.workflow else {
            eprintln!("{}", parsed.diagnostics[0].one_line(&source));
            std::process::exit(1);
        };
        let began = Instant::now();
        let graph = JobGraph::new(&workflow);
        let mut progress = WorkflowProgress::new(workflow.jobs.len());
        let decisions = graph.next(&workflow, &mut progress, &RunContexts::default());
        plan = plan.min(began.elapsed());
        assert_eq!(decisions.len(), JOBS / CHAIN, "the first job of each chain");
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{{\"bytes\":{},\"parse_ms\":{:.3},\"plan_ms\":{:.3}}}",
        text.len(),
        ms(parse),
        ms(plan)
    );
}

fn text() -> String {
    let mut text = "on: push\njobs:\n".to_owned();
    for n in 0..JOBS {
        let first = n - n % CHAIN;
        let needs: Vec<String> = (n.saturating_sub(NEEDS).max(first)..n)
            .map(|need| format!("j{need}"))
            .collect();
        let needs = needs.join(", ");
        let _ = write!(
            text,
            "  j{n}:\n    runs-on: x\n    needs: [{needs}]\n    steps: [{{ run: make }}]\n"
        );
    }
    text
}
