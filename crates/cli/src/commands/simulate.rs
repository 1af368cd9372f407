//! `shipway simulate`: how an environment's policy would react to regressions, without users.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use shipway_core::{
    config::{self, ServiceConfig},
    ids::EnvironmentName,
    rollout::strategy::HoldPolicy,
};
use shipway_sim::{
    bound::wald,
    chart,
    compare::{ComparedJudge, ComparisonRow, ComparisonSetup, compare},
    policy::SimulatedPolicy,
    regression::{AffectedSides, ParseShareError, Regression, share},
    summary::{percent, time},
    traffic::SimulatedTraffic,
    world::SimulatedScenario,
};
use shipway_syntax::SourceFile;

use crate::{
    exit::Failure,
    print::{self, Output, error_line, line},
    report,
};

const EXAMPLES: &str = "\
The simulation runs the real rollout logic; only time, instances and traffic are simulated. The same seed gives the same result. `bench/analysis/run` compares Shipway with models of other judges on the same traffic.

Examples:
  shipway simulate
      this folder's shipway.yaml at 100 requests a second, against a release that fails 0.5%
  shipway simulate --traffic 20rps,day --regress error-rate=2%@canary
      less traffic, varying over the day; also: 200rps,bursts
  shipway simulate --regress latency=+300ms@canary,users=10%
      slower for a tenth of the users; also: leak=0.1%/min@canary, leak=+20ms/min@canary,
      error-rate=20%@canary,endpoint=5%
  shipway simulate --regress error-rate=5%@both
      both releases fail, for example because a database is down: the new one must not be blamed
  shipway simulate --weight 10 --hold 1h
      hold the release at one weight instead of the steps of the file

\"harmed\": requests that failed or were slow because of the release, within one hour after its start.";

/// Simulate the rollout policy of an environment: false alarms, time to detection, users harmed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File with the policy; without one the default canary is simulated
    #[arg(default_value = "shipway.yaml")]
    file: PathBuf,

    /// The environment (default: the last one whose strategy has holds)
    #[arg(long = "env", alias = "environment", value_name = "ENV")]
    environment: Option<EnvironmentName>,

    /// Request rate of both releases together, and its shape: steady, bursts or day
    #[arg(long, value_name = "RATE[,SHAPE]", default_value = "100rps")]
    traffic: SimulatedTraffic,

    /// Number of sticky users; 0: each request comes from a new user
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    users: u32,

    /// Regression of the bad release
    #[arg(
        long,
        value_name = "WHAT=HOW@WHERE",
        default_value = "error-rate=0.5%@canary"
    )]
    regress: Regression,

    /// Baseline error rate: the share of requests that fail with every release
    #[arg(long, value_name = "error-rate=SHARE", default_value = "error-rate=0.1%", value_parser = base)]
    base: f64,

    /// Number of simulated rollouts of a healthy release, and of a bad one
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=100_000))]
    runs: u64,

    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Hold at this weight in percent instead of the steps of the file
    #[arg(long, value_name = "PERCENT", requires = "hold")]
    weight: Option<f64>,

    /// Length of the hold
    #[arg(long, value_name = "TIME", requires = "weight", value_parser = span)]
    hold: Option<std::time::Duration>,

    /// SVG file for the chart of the result; `-`: none
    #[arg(long, value_name = "FILE", default_value = "simulation.svg")]
    svg: PathBuf,
}

/// An option's value that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum ParseOptionError {
    #[error(transparent)]
    Share(#[from] ParseShareError),
    #[error("a baseline error rate of 100% leaves nothing to detect")]
    NothingToNotice,
    #[error("`{0}` is not a duration between 10s and 24h: write 90s, 10m or 1h")]
    Span(String),
}

/// `error-rate=0.1%`
fn base(text: &str) -> Result<f64, ParseOptionError> {
    let value = text.strip_prefix("error-rate=").unwrap_or(text);
    Some(share(value)?)
        .filter(|rate| *rate < 1.0)
        .ok_or(ParseOptionError::NothingToNotice)
}

/// `90s`, `10m`, `1h`
fn span(text: &str) -> Result<std::time::Duration, ParseOptionError> {
    let refused = || ParseOptionError::Span(text.to_owned());
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(refused)?;
    let number: u64 = text[..split].parse().map_err(|_| refused())?;
    let unit = match &text[split..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        _ => return Err(refused()),
    };
    let seconds = number.saturating_mul(unit);
    (10..=86_400)
        .contains(&seconds)
        .then(|| std::time::Duration::from_secs(seconds))
        .ok_or_else(refused)
}

/// The simulation's result.
struct Outcome {
    row: ComparisonRow,
    /// Requests of the new release that any test needs on average, and how long they take to come.
    wald: Option<(f64, f64)>,
}

/// Simulates, and prints.
pub fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let mut policy = policy(args)?;
    if let (Some(weight), Some(hold)) = (args.weight, args.hold) {
        policy = policy
            .held_at(weight, hold, HoldPolicy::MIN)
            .filter(|policy| policy.steps().iter().all(|step| step.weight > 0.0))
            .ok_or_else(|| {
                Failure::usage_with(
                    format!("{weight} is not a weight"),
                    "a percentage above 0 and up to 100, such as 10",
                )
            })?;
    }
    let longest: f64 = policy
        .steps()
        .iter()
        .map(|step| 2.0 * step.hold.as_secs_f64().max(60.0))
        .sum();
    let scenario = SimulatedScenario {
        traffic: SimulatedTraffic {
            users: args.users,
            ..args.traffic
        },
        base: args.base,
        regression: Some(args.regress),
        horizon: (longest as u32 + 60).clamp(3_600, 7 * 86_400),
        ..SimulatedScenario::default()
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let comparison = ComparisonSetup {
        policy,
        scenario,
        runs: args.runs,
        seed: args.seed,
        threads,
    };
    let outcome = simulate(&comparison, output);
    let title = format!(
        "{}, {}, baseline error rate {}",
        args.regress,
        comparison.scenario.traffic,
        percent(args.base)
    );
    let drawing = Some(&args.svg).filter(|path| path.as_os_str() != "-");
    if let Some(path) = drawing {
        let drawn = chart::svg(
            &title,
            std::slice::from_ref(&outcome.row),
            outcome.wald.map(|(_, seconds)| seconds),
        );
        std::fs::write(path, drawn)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    }
    if output.json {
        return output.document(&document(&comparison, &title, &outcome));
    }
    print(&comparison, &title, &outcome, output);
    if let Some(path) = drawing.filter(|_| !output.quiet) {
        line(&format!("\nDrawn in {}", path.display()));
    }
    Ok(())
}

/// The policy of the file; the default policy if there is no file and none was named.
fn policy(args: &Args) -> Result<SimulatedPolicy, Failure> {
    if !args.file.exists() && args.file == Path::new("shipway.yaml") {
        let mut policy = SimulatedPolicy::default();
        policy.notes.push("no shipway.yaml here: simulating the default canary (1% for 2 min, 10% and 50% for 5 min each), compared with stable".to_owned());
        return Ok(policy);
    }
    let config = read(&args.file)?;
    SimulatedPolicy::for_environment(config, args.environment.as_ref())
        .map_err(|error| Failure::usage(error.to_string()))
}

fn read(path: &Path) -> Result<ServiceConfig, Failure> {
    let path = if path.is_dir() {
        path.join("shipway.yaml")
    } else {
        path.to_owned()
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let source = SourceFile::new(path.display().to_string(), text);
    config::parse(&source)
        .map(|(config, _)| config)
        .map_err(|problems| {
            for problem in problems.iter().filter(|problem| problem.is_error()) {
                error_line(&report::render(&source, problem));
            }
            Failure::usage_with(
                format!("{} has errors", path.display()),
                "list them with `shipway check`",
            )
        })
}

fn simulate(comparison: &ComparisonSetup, output: Output) -> Outcome {
    // Rollouts of a healthy release, and as many of a bad one.
    let bar = progress(2 * comparison.runs, output);
    let done = AtomicU64::new(0);
    let tick = |more: u64| {
        let now = done.fetch_add(more, Ordering::Relaxed) + more;
        if now.is_multiple_of(50) {
            bar.set_position(now);
        }
    };
    let row = compare(comparison, &ComparedJudge::Shipway, &tick);
    bar.finish_and_clear();
    Outcome {
        row,
        wald: bound(comparison),
    }
}

fn progress(total: u64, output: Output) -> ProgressBar {
    if !std::io::stderr().is_terminal() || output.quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let style =
        ProgressStyle::with_template("{spinner} {pos} of {len} rollouts {wide_bar} {eta} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Wald's bound for a plain change of the error rate, with the time its requests take at the steps' weights.
fn bound(comparison: &ComparisonSetup) -> Option<(f64, f64)> {
    let scenario = &comparison.scenario;
    let regression = scenario
        .regression
        .filter(|it| it.side == AffectedSides::Canary)?;
    let bad = scenario.base
        + (1.0 - scenario.base) * regression.failing(scenario.base, 1) * regression.affected;
    let is_constant =
        regression.failing(scenario.base, 1) == regression.failing(scenario.base, 1_000);
    if !is_constant || bad <= scenario.base || scenario.base <= 0.0 || bad >= 1.0 {
        return None;
    }
    // As a share that misses one in twenty, as the policy's own early end does.
    let requests = wald(scenario.base, bad, comparison.policy.alpha(), 0.05);
    let (mut left, mut seconds) = (requests, 0.0);
    for step in comparison.policy.steps() {
        let each = scenario.traffic.per_second * step.weight;
        let held = step.hold.as_secs_f64();
        if each * held >= left {
            return Some((requests, seconds + left / each));
        }
        left -= each * held;
        seconds += held;
    }
    Some((requests, seconds + left / scenario.traffic.per_second))
        .filter(|(_, seconds)| seconds.is_finite())
}

fn print(comparison: &ComparisonSetup, title: &str, outcome: &Outcome, output: Output) {
    let policy = &comparison.policy;
    if !output.quiet {
        let steps: Vec<String> = policy
            .steps()
            .iter()
            .map(|step| {
                format!(
                    "{} for {}",
                    percent(step.weight),
                    time(step.hold.as_secs_f64())
                )
            })
            .collect();
        line(&format!(
            "{title}\n{}: {} rollouts each of a healthy and a bad release, seed {}; {}\n",
            policy.name(),
            comparison.runs,
            comparison.seed,
            steps.join(", ")
        ));
        for note in &policy.notes {
            line(&format!("note: {note}\n"));
        }
    }
    print::table(
        &[
            "false alarms",
            "time to promote",
            "detected",
            "detection p50",
            "detection p90",
            "harmed",
        ],
        &[cells(&outcome.row)],
    );
    if output.quiet {
        return;
    }
    if let Some((requests, seconds)) = outcome.wald {
        line(&format!(
            "\nWald's bound: with both rates known, {} requests of the new release on average, {} at these steps; no test can be faster.",
            chart::number(requests),
            time(seconds)
        ));
    }
    if let Some(advice) = advice(outcome) {
        line(&format!("\n{advice}"));
    }
}

fn cells(row: &ComparisonRow) -> Vec<String> {
    let or_missed = |seconds: Option<f64>| seconds.map_or_else(|| "missed".to_owned(), time);
    let share = |count: u64| percent(count as f64 / row.runs as f64);
    vec![
        format!(
            "{} (< {})",
            share(row.false_rollbacks),
            percent(row.false_rollback_limit)
        ),
        row.promote_median_s
            .map_or_else(|| "stuck".to_owned(), time),
        share(row.caught),
        or_missed(row.detect_median_s),
        or_missed(row.detect_p90_s),
        chart::number(row.harmed_mean),
    ]
}

/// What to do about a policy that lets bad releases through.
fn advice(outcome: &Outcome) -> Option<String> {
    let row = &outcome.row;
    let missed = 1.0 - row.caught as f64 / row.runs as f64;
    let needed = outcome.wald.map(|(requests, _)| format!(" Detecting such a release takes about {} of its own requests: use longer holds, higher weights, or a lower first weight.", chart::number(2.0 * requests)));
    (missed > 0.2).then(|| {
        format!(
            "This policy promotes {} of such releases: its holds end before there is enough evidence.{}",
            percent(missed), needed.unwrap_or_default()
        )
    })
}

fn document(comparison: &ComparisonSetup, title: &str, outcome: &Outcome) -> serde_json::Value {
    let steps: Vec<_> = comparison
        .policy
        .steps()
        .iter()
        .map(|step| json!({ "weight": step.weight, "hold_s": step.hold.as_secs() }))
        .collect();
    json!({
        "what": title,
        "environment": comparison.policy.name(),
        "notes": comparison.policy.notes,
        "steps": steps,
        "alpha": comparison.policy.alpha(),
        "runs": comparison.runs,
        "seed": comparison.seed,
        "horizon_s": comparison.scenario.horizon,
        "judges": [&outcome.row],
        "wald": outcome.wald.map(|(requests, seconds)| json!({ "canary_requests": requests, "seconds": seconds })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(base("error-rate=0.1%"), Ok(0.001));
        assert_eq!(base("2%"), Ok(0.02));
        assert!(base("error-rate=100%").is_err() && base("latency=3").is_err());
        assert_eq!(span("10m").map(|it| it.as_secs()), Ok(600));
        for bad in ["", "10", "5s", "2d", "h", "48h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
