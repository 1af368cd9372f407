//! What judging costs: time for each metric and look, memory of a thousand rollouts.

use shipway_analysis::{
    Analysis, AnalysisRule, AnalysisState, Metric, RequiredMetrics, SequentialComparison,
    ThresholdLimit, evidence::Alpha, threshold::MetricBound,
};
use shipway_sim::{
    policy::default_comparison,
    reading::SimulatedCounters,
    regression::Regression,
    world::{SimulatedScenario, SimulatedWorld},
};

use super::{grid::Table, target};

const ROLLOUTS: usize = 1_000;
const SECONDS: u32 = 120;
/// Metrics of each rollout.
const METRICS: f64 = 5.0;

/// Measures, and prints.
pub fn section() {
    println!("\n## What it costs\n");
    println!(
        "{ROLLOUTS} rollouts at once, each with 5 metrics judged every second for {SECONDS} s, on one core; 100 requests a second to each, 1% of them fail, so that nearly every evaluation has new errors.\n"
    );
    let mut table = Table::new(&[
        "rules",
        "for each metric and look",
        "target",
        "ratio",
        "a second of 1,000 rollouts",
        "target",
        "ratio",
        "memory",
        "target",
        "ratio",
    ]);
    for (name, rules) in [
        (
            "five comparisons with stable: errors, two limits on latency, CPU, p99",
            comparisons(),
        ),
        ("five comparisons of errors", vec![default_comparison(); 5]),
        ("one comparison, four limits", mixed()),
    ] {
        let (each_us, second_s, mib) = measure(&Analysis::new(rules));
        table.row(&[
            name.to_owned(),
            format!("{each_us:.2} µs"),
            "≤ 5 µs".into(),
            target(5.0 / each_us),
            format!("{:.0} ms", second_s * 1e3),
            "≤ 1 s".into(),
            target(1.0 / second_s),
            format!("{mib:.0} MiB"),
            "≤ 200 MiB".into(),
            target(200.0 / mib),
        ]);
    }
    table.print();
}

fn comparisons() -> Vec<AnalysisRule> {
    let slow = |over_micros| compared(Metric::SlowRate { over_micros });
    vec![
        default_comparison(),
        slow(250_000),
        slow(500_000),
        compared(Metric::Cpu),
        compared(Metric::LatencyP99),
    ]
}

fn compared(metric: Metric) -> AnalysisRule {
    let share = |value| Alpha::new(value).expect("the defaults are probabilities");
    let (margin, tolerance) = (
        SequentialComparison::default_margin(metric),
        SequentialComparison::default_tolerance(metric),
    );
    let comparison = SequentialComparison::new(
        metric,
        share(0.002),
        share(SequentialComparison::BETA),
        margin,
        tolerance,
    );
    AnalysisRule::from(comparison.expect("it can be compared"))
}

fn mixed() -> Vec<AnalysisRule> {
    let limit = |metric, max| {
        AnalysisRule::from(ThresholdLimit::new(metric, MetricBound::Max(max)).expect("a limit"))
    };
    vec![
        default_comparison(),
        limit(Metric::ErrorRate, 0.5),
        limit(Metric::LatencyP99, 1e4),
        limit(Metric::Cpu, 8.0),
        limit(Metric::Memory, 1e12),
    ]
}

/// Microseconds for each metric and look, seconds for a look at all rollouts, resident memory in MiB.
fn measure(analysis: &Analysis) -> (f64, f64, f64) {
    let scenario = SimulatedScenario {
        base: 0.01,
        regression: Some(Regression::error_rate(0.01)),
        ..SimulatedScenario::default()
    };
    let mut states: Vec<AnalysisState> = (0..ROLLOUTS).map(|_| analysis.initial_state()).collect();
    let mut counters: Vec<SimulatedCounters> = (0..ROLLOUTS as u64)
        .map(|seed| SimulatedCounters::new(seed, RequiredMetrics::for_analysis(analysis)))
        .collect();
    let (mut judging, mut looks) = (0.0, 0);
    for at in 1..=SECONDS {
        let seen: Vec<_> = counters
            .iter_mut()
            .enumerate()
            .map(|(seed, counters)| {
                counters.count(&SimulatedWorld::new(&scenario, seed as u64).second(at, 0.1));
                counters.observe(at)
            })
            .collect();
        let began = on_cpu();
        for (state, seen) in states.iter_mut().zip(&seen) {
            std::hint::black_box(analysis.observe(state, seen));
        }
        judging += on_cpu() - began;
        looks += ROLLOUTS;
    }
    let second = judging / f64::from(SECONDS);
    (
        judging / looks as f64 / METRICS * 1e6,
        second,
        resident_mib(),
    )
}

/// How many seconds this thread has had a core: what others do at the same time is no cost of judging.
fn on_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos: f64 = stat
        .split(' ')
        .next()
        .and_then(|it| it.parse().ok())
        .unwrap_or(f64::NAN);
    nanos / 1e9
}

/// What the kernel says that this process holds.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|it| it.parse().ok())
        .unwrap_or(f64::NAN);
    kib / 1_024.0
}
