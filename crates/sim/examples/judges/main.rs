//! What `bench/analysis/run` measures, as the text of docs/analysis.md: Shipway's default judge beside models of others at several
//! sizes of a regression, beside Wald's bound, on healthy releases, under peeking, and what judging costs.
//!
//!     cargo run --release -p shipway-sim --example judges [-- ROLLOUTS [no-worse [SEED] | cost | quiet | records]]

mod parts;

use std::time::{Duration, Instant};

use shipway_sim::{
    compare::{ComparedJudge, ComparisonRow, ComparisonSetup, compare, play_all, row},
    contest::PlayedRollout,
    null,
    policy::SimulatedPolicy,
    regression::Regression,
    rivals::{RivalJudge, WeightClimb, WindowSetting},
    summary::{percent, time},
    tune::TunedRivals,
    world::SimulatedScenario,
};

use crate::parts::{cost, grid, quiet, target};

const SEED: u64 = 7;
/// How long a release is watched at one weight, at most, in seconds.
const WATCHED: u32 = 2 * 3_600;
/// Healthy rollouts that the settings of others are chosen on.
const TUNED_ON: u64 = 4_000;

fn main() {
    let number = |place| {
        let text = std::env::args().nth(place)?;
        text.parse::<u64>().ok()
    };
    let runs = number(1).unwrap_or(500);
    let began = Instant::now();
    // One section alone, with as many rollouts as are asked for.
    match std::env::args().nth(2).as_deref() {
        Some("no-worse") => return ticks(runs, number(3).unwrap_or(SEED)),
        Some("cost") => return cost::section(),
        Some("quiet") => return quiet::section(runs),
        Some("records") => return quiet::records(),
        Some(_) | None => {}
    }
    println!("# Analysis, measured\n");
    println!(
        "Made by `bench/analysis/run`; not edited. {runs} rollouts for each number, seed {SEED}. `ratio` is 1 and more where the target is met.\n"
    );
    effects(runs);
    rollouts(runs);
    bounds(runs);
    healthy(runs);
    quiet::section(runs.min(300));
    peeking();
    ticks(10_000, SEED);
    cost::section();
    quiet::records();
    eprintln!("bench/analysis: {} s", began.elapsed().as_secs());
}

fn comparison(policy: SimulatedPolicy, scenario: SimulatedScenario, runs: u64) -> ComparisonSetup {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ComparisonSetup {
        policy,
        scenario,
        runs,
        seed: SEED,
        threads,
    }
}

fn bad(base: f64, rate: f64) -> SimulatedScenario {
    SimulatedScenario {
        base,
        regression: Some(Regression::error_rate(rate)),
        ..SimulatedScenario::default()
    }
}

/// How long a release is watched at 10% until it is noticed.
fn effects(runs: u64) {
    println!("## One weight, unlimited hold\n");
    println!(
        "100 requests a second, 10% of them to the new release, baseline error rate 0.1%, two hours at most. Default settings are those of the documentation; tuned ones are selected on 4,000 other healthy rollouts of the same traffic: of the settings that roll back no more of them than Shipway does, the one that harms fewest at this effect. Flagger's weight stays at 10% here, and Shipway's hold does not end early.\n"
    );
    let RivalJudge::Flagger(_, ticks) = RivalJudge::FLAGGER else {
        unreachable!("it is Flagger")
    };
    let stays = WeightClimb {
        step: 0.1,
        top: None,
    };
    let rates = [0.002, 0.005, 0.01, 0.02, 0.05, 0.2];
    let two_hours = Duration::from_secs(WATCHED.into());
    let policy = SimulatedPolicy::comparing_error_rates()
        .held_at(10.0, two_hours, two_hours)
        .expect("10 is a weight");
    beside_others(&rates, &policy, WATCHED, (stays, ticks), runs);
}

/// Our own judge beside others, as they come and tuned, at each of these error rates.
fn beside_others(
    rates: &[f64],
    policy: &SimulatedPolicy,
    horizon: u32,
    flagger: (WeightClimb, WindowSetting),
    runs: u64,
) {
    let mut table = grid::Table::new(&[
        "error rate",
        "judge",
        "setting",
        "false alarms",
        "caught",
        "median",
        "mean",
        "harmed",
        "harmed ×",
        "target",
        "ratio",
    ]);
    let (climb, ticks) = flagger;
    let mut rows = Rows::default();
    let defaults = [
        ComparedJudge::Rival(RivalJudge::ARGO),
        ComparedJudge::Rival(RivalJudge::ARGO_FORGIVING),
        ComparedJudge::Rival(RivalJudge::ARGO_EXAMPLE),
        ComparedJudge::Rival(RivalJudge::Flagger(climb, ticks)),
        ComparedJudge::Rival(RivalJudge::KAYENTA),
    ];
    let of = |rate, runs| {
        let scenario = SimulatedScenario {
            horizon,
            ..bad(0.001, rate)
        };
        comparison(policy.clone(), scenario, runs)
    };
    // Healthy releases are the same whatever the others do wrong.
    let tuned = TunedRivals::tune(&of(rates[0], runs.max(TUNED_ON)), climb);
    println!(
        "Of the healthy rollouts that settings were chosen on, Shipway rolled back {}.\n",
        percent(tuned.false_alarms)
    );
    for &rate in rates {
        let comparison = of(rate, runs);
        let own = rows.of(&comparison, &ComparedJudge::Direct);
        table.judged(rate, &own, &own, None);
        for judge in &defaults {
            let row = rows.of(&comparison, judge);
            // The strictest of windows is nobody's default; it is compared like a tuned one.
            let is_strictest = *judge == ComparedJudge::Rival(RivalJudge::ARGO);
            let least = if is_strictest { 1.0 } else { 3.0 };
            table.judged(rate, &row, &own, Some(least));
        }
        for judge in tuned.best(&comparison) {
            let row = ComparisonRow {
                tuned: true,
                ..rows.of(&comparison, &judge)
            };
            table.judged(rate, &row, &own, Some(1.0));
        }
    }
    table.print();
}

/// Rows of judges; the healthy rollouts of each are played once.
#[derive(Default)]
struct Rows(Vec<(ComparedJudge, Vec<PlayedRollout>)>);

impl Rows {
    fn of(&mut self, comparison: &ComparisonSetup, judge: &ComparedJudge) -> ComparisonRow {
        let play = |scenario: &SimulatedScenario| play_all(comparison, judge, scenario, &|_| ());
        let bad = play(&comparison.scenario);
        if let Some((_, healthy)) = self.0.iter().find(|(of, _)| of == judge) {
            return row(judge, healthy, &bad);
        }
        let healthy = play(&comparison.scenario.healthy());
        let made = row(judge, &healthy, &bad);
        self.0.push((judge.clone(), healthy));
        made
    }
}

/// Whole rollouts, each with its own steps.
fn rollouts(runs: u64) {
    println!("\n## Whole rollouts\n");
    println!(
        "The default canary (1% for 2 min, 10% and 50% for 5 min each), 100 requests a second, baseline error rate 0.1%; Argo Rollouts and Kayenta with the same steps, Flagger with its own (10% more each minute, up to 50%). A promoted bad release continues to harm users until one hour has passed. One-minute windows that fail immediately roll back one healthy release in eight here: at 1% of the traffic a single error exceeds their limit. At 0.2%, exactly what the policy tolerates, 12 min of holds are too short for any judge; Flagger detects it only with ticks of 5 min, when every rollout takes half an hour.\n"
    );
    let RivalJudge::Flagger(climb, ticks) = RivalJudge::FLAGGER else {
        unreachable!("it is Flagger")
    };
    beside_others(
        &[0.002, 0.005, 0.02, 0.2],
        &SimulatedPolicy::comparing_error_rates(),
        3_600,
        (climb, ticks),
        runs,
    );
}

/// How near to the best that any test can do.
fn bounds(runs: u64) {
    println!("\n## Wald's bound\n");
    println!(
        "Requests of the new release until it is rolled back, on average, against the fewest that any test needs (alpha 1%, beta 5%, both rates known). Shipway knows stable's rate from its history here, but not how bad the release is; without a history it also has to learn stable's rate (last column).\n"
    );
    let mut table = grid::Table::new(&[
        "from",
        "to",
        "Wald",
        "shipway, rate known",
        "times",
        "target",
        "ratio",
        "without history, times",
    ]);
    for (base, rate) in [
        (0.001, 0.002),
        (0.001, 0.005),
        (0.001, 0.01),
        (0.01, 0.02),
        (0.01, 0.05),
    ] {
        let scenario = SimulatedScenario {
            horizon: 20_000,
            ..bad(base, rate)
        };
        let horizon = Duration::from_secs(scenario.horizon.into());
        let policy = SimulatedPolicy::comparing_error_rates()
            .held_at(10.0, horizon, horizon)
            .expect("10 is a weight");
        let comparison = comparison(policy, scenario, runs.min(1_000));
        let requests = |judge: &ComparedJudge| {
            let ended = play_all(&comparison, judge, &comparison.scenario, &|_| ());
            ended.iter().map(|it| it.served as f64).sum::<f64>() / ended.len() as f64
        };
        let bound = shipway_sim::bound::wald(base, rate, 0.01, 0.05);
        let known = requests(&ComparedJudge::Rival(RivalJudge::Known {
            weight: 0.1,
            rate: base,
        }));
        let learnt = requests(&ComparedJudge::Direct);
        let times = known / bound;
        table.row(&[
            percent(base),
            percent(rate),
            format!("{bound:.0}"),
            format!("{known:.0}"),
            format!("{times:.2}"),
            "≤ 2.5".into(),
            target(2.5 / times),
            format!("{:.2}", learnt / bound),
        ]);
    }
    table.print();
}

/// How soon a release that is well is everywhere.
fn healthy(runs: u64) {
    println!("\n## A healthy release\n");
    println!(
        "The default canary; its fixed holds last 12 min. It ends sooner once the release is shown to be no worse than twice stable's rate. Target: under half of that at 1,000 requests a second.\n"
    );
    let mut table = grid::Table::new(&[
        "requests/s",
        "baseline",
        "time to promote (median)",
        "rolled back",
        "stuck",
        "share of the fixed holds",
        "target",
        "ratio",
    ]);
    for (per_second, base) in [
        (1_000.0, 0.01),
        (1_000.0, 0.001),
        (100.0, 0.01),
        (100.0, 0.001),
    ] {
        let mut scenario = SimulatedScenario {
            base,
            ..SimulatedScenario::default()
        };
        scenario.traffic.per_second = per_second;
        let comparison = comparison(
            SimulatedPolicy::comparing_error_rates(),
            scenario,
            runs.min(1_000),
        );
        let row: ComparisonRow = compare(&comparison, &ComparedJudge::Direct, &|_| ());
        let fixed: f64 = comparison
            .policy
            .steps()
            .iter()
            .map(|step| step.hold.as_secs_f64())
            .sum();
        let live = row.promote_median_s.unwrap_or(f64::INFINITY);
        let asked = per_second >= 1_000.0;
        table.row(&[
            format!("{per_second}"),
            percent(base),
            time(live),
            percent(row.false_rollbacks as f64 / row.runs as f64),
            percent(row.healthy_paused as f64 / row.runs as f64),
            format!("{:.2}", live / fixed),
            if asked { "< 0.5".into() } else { "–".into() },
            if asked {
                target(0.5 / (live / fixed))
            } else {
                "–".into()
            },
        ]);
    }
    table.print();
}

/// How often a release that is no worse is rolled back by what is compared, looked at at every tick.
fn ticks(runs: u64, seed: u64) {
    println!("\n## Releases that are no worse\n");
    println!(
        "{runs} rollouts (seed {seed}), 12 minutes each, judged each second by every comparison, each with `alpha` 1%; the last line is five of them in one `alpha`. Weights from 1% to 50%, 20 to 2,000 requests a second that swing and burst, errors and latency that swing with them, users who stay on their side. CPU, memory and saturation are worse by just what their margin allows. Values resemble those before them, have spikes, and scatter more on the side with less traffic. `ratio` is `alpha` by the limit that the rate is below with 95% confidence.\n"
    );
    let play = null::ticks::NullSimulation {
        runs,
        seed,
        alpha: 0.01,
        stretch: 1.0,
        threads: 2,
    };
    let mut table = grid::Table::new(&["compared", "rolled back", "target", "ratio"]);
    for (what, wrong) in null::ticks::count_false_rollbacks(&play) {
        let limit = shipway_sim::summary::upper_limit(wrong, runs);
        table.row(&[
            what,
            null::describe_false_rollbacks(wrong, runs),
            "≤ 1%".into(),
            target(play.alpha / limit),
        ]);
    }
    table.print();
}

/// How often a release that is no worse is rolled back, when somebody looks after every event.
fn peeking() {
    const RUNS: u64 = 10_000;
    println!("\n## Peeking\n");
    println!(
        "{RUNS} rollouts of a release that is no worse; judged after every event, weights from 1% to 50%, swinging load, users who stay on their side.\n"
    );
    let mut table = grid::Table::new(&["alpha", "rolled back", "ratio"]);
    for alpha in [0.01, 0.05] {
        let wrong = null::events::count_false_rollbacks(RUNS, SEED, alpha, 2);
        let limit = shipway_sim::summary::upper_limit(wrong, RUNS);
        table.row(&[
            percent(alpha),
            null::describe_false_rollbacks(wrong, RUNS),
            target(alpha / limit),
        ]);
    }
    table.print();
}
