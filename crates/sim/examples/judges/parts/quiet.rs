//! The default rules at any traffic, and what a rollout leaves in the log.

use std::time::Duration;

use shipway_core::rollout::RolloutEvent;
use shipway_sim::{
    compare::{ComparedJudge, play_all},
    contest::{RolloutEnd, play},
    policy::SimulatedPolicy,
    shipway::RealRollout,
    summary::{percent, quantile, time},
    traffic::SimulatedTraffic,
    world::{SimulatedScenario, SimulatedWorld},
};

use super::grid::Table;
use crate::comparison;

/// The default canary with the default rules, healthy and bad, from one request a second up.
pub fn section(runs: u64) {
    println!("\n## The default rules at any traffic\n");
    println!(
        "What is judged without `analysis`: error rate and slow rate (`over: auto`) compared with stable, restarts and availability. The default canary (1% for 2 min, 10% and 50% for 5 min each), ten users for each request a second, baseline error rate 0.1%; {runs} rollouts for each line. *Harmed* are requests that failed or were slow because of the release until it was rolled back, or until an hour was over. A release that gets few requests is promoted if there is no evidence against it.\n"
    );
    let mut table = Table::new(&[
        "requests/s",
        "release",
        "promoted",
        "rolled back",
        "paused",
        "decided after (half)",
        "decided after (9 of 10)",
        "harmed on average",
    ]);
    for (per_second, users) in [(1.0, 10), (20.0, 200), (100.0, 1_000), (1_000.0, 10_000)] {
        for (release, regression) in [
            ("healthy", None),
            ("5% of requests fail", Some("error-rate=5%@canary")),
            ("all requests fail", Some("error-rate=100%@canary")),
            ("300 ms slower for all", Some("latency=+300ms@canary")),
            (
                "300 ms slower for a tenth of the users",
                Some("latency=+300ms@canary,users=10%"),
            ),
        ] {
            let scenario = SimulatedScenario {
                traffic: SimulatedTraffic {
                    per_second,
                    users,
                    ..SimulatedTraffic::default()
                },
                regression: regression.and_then(|text| text.parse().ok()),
                ..SimulatedScenario::default()
            };
            table.row(&line(per_second, release, scenario, runs));
        }
    }
    table.print();
}

fn line(per_second: f64, release: &str, scenario: SimulatedScenario, runs: u64) -> [String; 8] {
    let comparison = comparison(SimulatedPolicy::default(), scenario, runs);
    let ended = play_all(
        &comparison,
        &ComparedJudge::Direct,
        &comparison.scenario,
        &|_| (),
    );
    let share = |how| {
        let count = ended.iter().filter(|it| it.how == Some(how)).count();
        percent(count as f64 / ended.len() as f64)
    };
    let mut times: Vec<f64> = ended.iter().map(|it| f64::from(it.at)).collect();
    times.sort_by(f64::total_cmp);
    let after = |part| quantile(&times, part).map_or_else(|| "–".to_owned(), time);
    let harmed: u64 = ended.iter().map(|it| it.harmed).sum();
    [
        format!("{per_second}"),
        release.to_owned(),
        share(RolloutEnd::Promoted),
        share(RolloutEnd::RolledBack),
        share(RolloutEnd::Paused),
        after(0.5),
        after(0.9),
        format!("{:.0}", harmed as f64 / ended.len() as f64),
    ]
}

/// Events and bytes that one rollout leaves in the log.
pub fn records() {
    println!("\n## What a rollout leaves in the log\n");
    println!(
        "One hold at 10% of 100 requests a second, judged each second by the default rules. Targets: at most 150 evaluations and 100 KB for a rollout of any length.\n"
    );
    let mut table = Table::new(&["hold", "looks judged", "looks recorded", "events", "bytes"]);
    for seconds in [60_u32, 1_800, 24 * 3_600] {
        let hold = Duration::from_secs(u64::from(seconds));
        let policy = SimulatedPolicy::default()
            .held_at(10.0, hold, hold)
            .expect("10 is a weight");
        let scenario = SimulatedScenario {
            horizon: u32::MAX,
            ..SimulatedScenario::default()
        };
        let mut real = RealRollout::with_log(&policy, 5);
        let ended = play(
            &SimulatedWorld::new(&scenario, 5),
            scenario.horizon,
            &mut real,
        );
        let log = real.log();
        let looks = log
            .iter()
            .filter(|event| matches!(event.body, RolloutEvent::Measured { .. }));
        let bytes: usize = log
            .iter()
            .map(|event| serde_json::to_vec(event).map_or(0, |it| it.len()))
            .sum();
        table.row(&[
            time(f64::from(seconds)),
            format!("{}", ended.at),
            format!("{}", looks.count()),
            format!("{}", log.len()),
            format!("{bytes}"),
        ]);
    }
    table.print();
}
