//! `shipway tests`: what the tests of a run said, which are flaky, and the quarantine.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use shipway_api::{ApiClient, FailingTest, QuarantineRequest, ReleaseTestRequest};
use shipway_core::{
    ids::RunId,
    run::{in_short, percent},
    testing::TestId,
};

use super::id_args::run_id;
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, ago, line, table},
    service_argument::{ServiceArgument, ServiceOption},
};

/// Show test results of the last run, flaky tests and the quarantine
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    service: ServiceArgument,
    /// Show only tests that passed and failed on the same commit
    #[arg(long, conflicts_with_all = ["run", "slowest"])]
    flaky: bool,
    /// Show the tests of this run (default: the last run with tests)
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Show the slowest tests
    #[arg(long)]
    slowest: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Quarantine a flaky test: it still runs, but can't fail the run
    Quarantine {
        /// The test: its full name, or a unique suffix of it
        test: String,
        /// Owner responsible for fixing it
        #[arg(long, value_name = "NAME")]
        owner: String,
        /// Reason for the quarantine
        #[arg(long)]
        reason: String,
        /// End of the quarantine: 2026-12-24, 14d or a time (default: 14d)
        #[arg(long, value_name = "WHEN")]
        until: Option<String>,
        /// Consecutive clean runs after which the test leaves quarantine
        #[arg(long, value_name = "N", default_value_t = 10)]
        clean_runs: u32,
        #[command(flatten)]
        service: ServiceOption,
    },
    /// Release a test from quarantine: its failures fail the run again
    Release {
        /// The test
        test: String,
        #[command(flatten)]
        service: ServiceOption,
    },
}

/// Shows tests, or changes the quarantine.
pub fn run(server: &ServerConnection, args: &Args, output: Output) -> Result<(), Failure> {
    match &args.action {
        Some(Action::Quarantine {
            test,
            owner,
            reason,
            until,
            clean_runs,
            service,
        }) => {
            let service = service.resolve(server)?;
            let until = until.as_deref().map(moment).transpose()?;
            let request = QuarantineRequest {
                test: test.clone(),
                owner: owner.clone(),
                reason: reason.clone(),
                until,
                clean_runs: Some(*clean_runs),
            };
            let entry = server.quarantine_test(&service, &request)?;
            if output.json {
                return output.document(&entry);
            }
            line(&format!(
                "{} is in quarantine until {}, or until {} clean runs in a row: it runs, but can't fail the run; owner: {}",
                entry.test,
                entry.until.strftime("%Y-%m-%d %H:%M"),
                entry.clean_runs_needed,
                entry.owner
            ));
            Ok(())
        }
        Some(Action::Release { test, service }) => {
            let service = service.resolve(server)?;
            let request = ReleaseTestRequest { test: test.clone() };
            let released = server.release_test(&service, &request)?;
            if output.json {
                return output.document(&released);
            }
            line(&format!(
                "{} was released from quarantine",
                released.released
            ));
            Ok(())
        }
        None if args.flaky => flaky(server, &args.service.resolve(server)?, output),
        None => show_run(server, args, output),
    }
}

/// `2026-12-24`, `14d`, `12h`, `2026-12-24T12:00:00Z`
fn moment(text: &str) -> Result<Timestamp, Failure> {
    let hours = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "d")) => number.parse::<u32>().ok().map(|days| i64::from(days) * 24),
        Some((number, "h")) => number.parse::<u32>().ok().map(i64::from),
        _ => None,
    };
    if let Some(hours) = hours {
        let later = Timestamp::now().checked_add(SignedDuration::from_hours(hours));
        return later.map_err(|error| Failure::usage(error.to_string()));
    }
    let day = || {
        let day: Date = text.parse().ok()?;
        Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    text.parse().ok().or_else(day).ok_or_else(|| {
        Failure::usage_with(
            format!("{text:?} is not a time"),
            "write 2026-12-24, 14d, 12h or 2026-12-24T12:00:00Z",
        )
    })
}

fn flaky(server: &ServerConnection, service: &str, output: Output) -> Result<(), Failure> {
    let memory = server.service_tests(service)?;
    if output.json {
        return output.document(&memory.flaky);
    }
    if memory.flaky.is_empty() {
        line("No test has passed and failed on the same commit.");
        return Ok(());
    }
    let held = |test: &TestId| memory.quarantine.iter().any(|entry| entry.test == *test);
    let rows: Vec<Vec<String>> = memory
        .flaky
        .iter()
        .rev()
        .map(|it| {
            let state = if held(&it.test) { "quarantine" } else { "" };
            let commits = if it.commits == 1 {
                "1 commit".to_owned()
            } else {
                format!("{} commits", it.commits)
            };
            vec![
                it.test.to_string(),
                state.to_owned(),
                commits,
                ago(it.last_at),
                it.evidence.to_string(),
            ]
        })
        .collect();
    table(&["TEST", "", "FLAKY ON", "LAST", "SEEN"], &rows);
    Ok(())
}

fn show_run(server: &ServerConnection, args: &Args, output: Output) -> Result<(), Failure> {
    let id = match &args.run {
        Some(run) => run_id(server, run)?,
        None => last_run_with_tests(server, args)?,
    };
    let tests = server.run_tests(&id)?;
    if output.json {
        return output.document(&tests);
    }
    let mut head = format!(
        "{} · {}",
        id.number,
        in_short(&tests.summary.totals, tests.summary.coverage.as_ref())
    );
    let change = tests.compared.coverage_change.filter(|change| *change != 0);
    if let (Some(change), Some(base)) = (change, &tests.base) {
        let sign = if change < 0 { "−" } else { "+" };
        let points = u32::try_from(change.unsigned_abs()).unwrap_or(u32::MAX);
        head.push_str(&format!(" ({sign}{} since {base})", percent(points)));
    }
    line(&head);
    if args.slowest {
        let rows = tests.slowest.iter();
        let rows: Vec<_> = rows
            .map(|case| vec![case.id.to_string(), format!("{} ms", case.took_ms)])
            .collect();
        table(&["TEST", "TOOK"], &rows);
        return Ok(());
    }
    tests.failing.iter().for_each(show_failing);
    let held = server.service_tests(id.service.as_str())?.quarantine;
    for entry in &held {
        line(&format!(
            "in quarantine: {} · {} · until {} · {} of {} clean runs: {}",
            entry.test,
            entry.owner,
            entry.until.strftime("%Y-%m-%d"),
            entry.clean_runs,
            entry.clean_runs_needed,
            entry.reason
        ));
    }
    Ok(())
}

/// Runs that are searched for the newest one with tests.
const RUNS_MAX: u32 = 1_000;

/// The newest run that has reported tests.
fn last_run_with_tests(server: &ServerConnection, args: &Args) -> Result<RunId, Failure> {
    let service = args.service.resolve(server)?;
    let runs = server.runs(&service, RUNS_MAX)?.into_iter();
    let with_tests = runs.filter(|run| run.tests.is_some());
    let last = with_tests.max_by_key(|run| run.number);
    last.map(|run| run.id).ok_or_else(|| {
        Failure::usage_with(
            format!("no run of {service} has reported tests yet"),
            "write JUnit XML to **/TEST-*.xml, or set `reports` in shipway.yaml",
        )
    })
}

fn show_failing(test: &FailingTest) {
    let mut marks = Vec::new();
    if test.is_new {
        marks.push("new".to_owned());
    }
    if test.flaky_commits > 0 {
        marks.push("flaky".to_owned());
    }
    if let Some(entry) = &test.quarantine {
        marks.push(format!("in quarantine: {}", entry.owner));
    }
    let marks = if marks.is_empty() {
        String::new()
    } else {
        format!(" [{}]", marks.join(", "))
    };
    let message = test.message.as_deref().map(|text| format!(": {text}"));
    line(&format!(
        "✗ {}{marks} ({}){}",
        test.test,
        test.job,
        message.unwrap_or_default()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for fine in ["2026-12-24", "14d", "12h", "2026-12-24T12:00:00Z"] {
            assert!(moment(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "soon", "d", "14", "-3d", "é"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
