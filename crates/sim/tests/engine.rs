//! The simulated rollout is the real one, and what stands in for it in sweeps decides as it does.

use shipway_core::{
    aggregate::Event,
    config::parse,
    rollout::{LOOKS_MAX, RolloutEvent, series::series},
};
use shipway_sim::{
    compare::{ComparedJudge, ComparisonSetup, compare},
    contest::{RolloutEnd, play},
    policy::SimulatedPolicy,
    regression::Regression,
    rivals::RivalJudge,
    shipway::{DirectRollout, RealRollout},
    traffic::{SimulatedTraffic, TrafficShape},
    world::{SimulatedScenario, SimulatedWorld},
};
use shipway_syntax::SourceFile;

fn scenarios() -> Vec<SimulatedScenario> {
    let traffic = |per_second, shape, users| SimulatedTraffic {
        per_second,
        shape,
        users,
    };
    let regress = |text: &str| text.parse::<Regression>().ok();
    let scenario = |traffic, regression, base| SimulatedScenario {
        traffic,
        regression,
        base,
        ..SimulatedScenario::default()
    };
    vec![
        scenario(traffic(100.0, TrafficShape::Steady, 0), None, 0.001),
        scenario(
            traffic(100.0, TrafficShape::Bursts, 2_000),
            regress("error-rate=2%@canary"),
            0.001,
        ),
        scenario(
            traffic(300.0, TrafficShape::Day, 0),
            regress("leak=0.5%/min@canary"),
            0.01,
        ),
        scenario(traffic(1_000.0, TrafficShape::Steady, 50_000), None, 0.01),
        scenario(
            traffic(3.0, TrafficShape::Steady, 40),
            regress("error-rate=50%@canary,users=20%"),
            0.001,
        ),
        scenario(traffic(0.0, TrafficShape::Steady, 0), None, 0.001),
    ]
}

/// The default canary with these rules.
fn policy_of(rules: &str) -> SimulatedPolicy {
    let text = format!(
        "service: shop\nartifact: source\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ strategy: canary, analysis: [{rules}] }}\n"
    );
    let (config, _) = parse(&SourceFile::new("shipway.yaml", text)).unwrap();
    SimulatedPolicy::for_environment(config, None).unwrap()
}

#[test]
fn the_judges_and_holds_alone_decide_as_the_real_rollout_does() {
    let required = policy_of("{ metric: error-rate, required: true }");
    let mut ends = Vec::new();
    for (index, scenario) in scenarios().iter().enumerate() {
        for (seed, policy) in [
            (0, &SimulatedPolicy::default()),
            (1, &required),
            (2, &required),
        ] {
            let world = SimulatedWorld::new(scenario, seed);
            let real = play(
                &world,
                scenario.horizon,
                &mut RealRollout::open(policy, seed),
            );
            let direct = play(
                &world,
                scenario.horizon,
                &mut DirectRollout::open(policy, seed),
            );
            assert_eq!(real, direct, "scenario {index}, seed {seed}");
            ends.push(real.how);
        }
    }
    for how in [
        RolloutEnd::Promoted,
        RolloutEnd::RolledBack,
        RolloutEnd::Paused,
    ] {
        assert!(ends.contains(&Some(how)), "{how:?} is not among {ends:?}");
    }
}

#[test]
fn a_seed_gives_the_same_bytes_twice_whoever_plays() {
    let scenario = SimulatedScenario {
        regression: Some(Regression::error_rate(0.05)),
        ..SimulatedScenario::default()
    };
    let said = |threads| {
        let comparison = ComparisonSetup {
            policy: SimulatedPolicy::default(),
            scenario: scenario.clone(),
            runs: 5,
            seed: 9,
            threads,
        };
        let rows: Vec<_> = [
            ComparedJudge::Shipway,
            ComparedJudge::Rival(RivalJudge::ARGO),
            ComparedJudge::Rival(RivalJudge::FLAGGER),
            ComparedJudge::Rival(RivalJudge::KAYENTA),
        ]
        .iter()
        .map(|judge| compare(&comparison, judge, &|_| ()))
        .collect();
        serde_json::to_string(&rows).unwrap()
    };
    let once = said(1);
    assert_eq!(once, said(3));
    let log = |seed| {
        let mut real = RealRollout::with_log(&SimulatedPolicy::default(), seed);
        play(
            &SimulatedWorld::new(&scenario, seed),
            scenario.horizon,
            &mut real,
        );
        serde_json::to_string(real.log()).unwrap()
    };
    assert_eq!(log(4), log(4));
    assert_ne!(log(4), log(5));
}

#[test]
fn without_traffic_it_is_promoted_unless_a_rule_is_required_and_what_hits_both_sides_is_not_blamed_on_the_release()
 {
    let policy = SimulatedPolicy::default();
    let quiet = SimulatedScenario {
        traffic: SimulatedTraffic {
            per_second: 0.0,
            ..SimulatedTraffic::default()
        },
        ..SimulatedScenario::default()
    };
    let end = |policy: &SimulatedPolicy| {
        let mut real = RealRollout::open(policy, 1);
        let ended = play(&SimulatedWorld::new(&quiet, 1), quiet.horizon, &mut real);
        (ended.how, ended.at)
    };
    assert_eq!(end(&policy), (Some(RolloutEnd::Promoted), 720));
    let required = policy_of("{ metric: error-rate, required: true }");
    assert_eq!(end(&required), (Some(RolloutEnd::Paused), 240));
    let outage = SimulatedScenario {
        regression: "error-rate=20%@both".parse().ok(),
        ..SimulatedScenario::default()
    };
    for seed in 0..10 {
        let ended = play(
            &SimulatedWorld::new(&outage, seed),
            outage.horizon,
            &mut RealRollout::open(&policy, seed),
        );
        assert_eq!(ended.how, Some(RolloutEnd::Promoted), "seed {seed}");
    }
}

#[test]
fn the_log_of_a_rollout_has_all_that_its_plots_show() {
    let scenario = SimulatedScenario {
        regression: Some(Regression::error_rate(0.02)),
        ..SimulatedScenario::default()
    };
    let policy = SimulatedPolicy::default();
    let mut real = RealRollout::with_log(&policy, 3);
    let ended = play(
        &SimulatedWorld::new(&scenario, 3),
        scenario.horizon,
        &mut real,
    );
    assert_eq!(ended.how, Some(RolloutEnd::RolledBack));
    let drawn = series(real.log());
    assert_eq!(drawn.len(), policy.analysis().rules().len());
    let (first, last) = (
        drawn[0].points.first().unwrap(),
        drawn[0].points.last().unwrap(),
    );
    assert_eq!(
        (
            drawn[0].metric.as_str(),
            drawn[0].canary.as_str(),
            first.weight
        ),
        ("error-rate", "#2", 0.01)
    );
    assert!(drawn[0].points.len() <= 240, "{}", drawn[0].points.len());
    let decision = drawn[0].decision.as_ref().unwrap();
    assert!(
        decision.is_bad && decision.why.contains("error rate"),
        "{decision:?}"
    );
    assert_eq!(decision.at, shipway_sim::reading::moment(ended.at));
    // What is drawn last is what the verdict says.
    let (canary, stable) = (last.canary.unwrap(), last.stable.unwrap());
    assert!(
        canary.low <= 0.02 && 0.02 <= canary.high && stable.high < canary.value,
        "{canary:?} {stable:?}"
    );
    let measured = real
        .log()
        .iter()
        .filter(|event| matches!(event.body, RolloutEvent::Measured { .. }))
        .count();
    assert!(
        10 < measured && (measured as u32) < ended.at,
        "{measured} in {} s",
        ended.at
    );
}

/// How many looks a rollout leaves whose one hold lasts so long, and how many bytes its whole log has.
fn recorded(policy: &SimulatedPolicy, hold: u32) -> (usize, usize) {
    let hold = std::time::Duration::from_secs(u64::from(hold));
    let policy = policy.clone().held_at(10.0, hold, hold).unwrap();
    let scenario = SimulatedScenario {
        horizon: u32::MAX,
        ..SimulatedScenario::default()
    };
    let mut real = RealRollout::with_log(&policy, 5);
    play(
        &SimulatedWorld::new(&scenario, 5),
        scenario.horizon,
        &mut real,
    );
    let is_look =
        |event: &&Event<RolloutEvent>| matches!(event.body, RolloutEvent::Measured { .. });
    let looks = real.log().iter().filter(is_look).count();
    (looks, serde_json::to_vec(real.log()).unwrap().len())
}

#[test]
fn a_rollout_of_any_length_leaves_few_looks() {
    let values = policy_of(
        "{ metric: cpu }, { metric: error-rate, max: 5%, failure_limit: 3 }, { metric: slow-rate, over: 300ms }",
    );
    for (hold, looks_max) in [(60, 25), (1_800, 60), (24 * 3_600, LOOKS_MAX as usize)] {
        for (policy, bytes_max) in [(&SimulatedPolicy::default(), 80_000), (&values, 120_000)] {
            let (looks, bytes) = recorded(policy, hold);
            assert!(
                looks > 10 && looks <= looks_max && bytes <= bytes_max,
                "{looks} looks and {bytes} bytes in {hold} s, {bytes_max} at most"
            );
        }
    }
}

/// How so many rollouts of the default canary end under this traffic.
fn ends(scenario: &SimulatedScenario, runs: u64) -> Vec<Option<RolloutEnd>> {
    let policy = SimulatedPolicy::default();
    let play = |seed| {
        let world = SimulatedWorld::new(scenario, seed);
        play(
            &world,
            scenario.horizon,
            &mut RealRollout::open(&policy, seed),
        )
        .how
    };
    (0..runs).map(play).collect()
}

#[test]
fn a_quiet_service_is_promoted_when_it_is_healthy_and_rolled_back_when_a_tenth_of_its_users_wait() {
    let mut quiet = SimulatedScenario {
        traffic: SimulatedTraffic {
            per_second: 20.0,
            users: 200,
            ..SimulatedTraffic::default()
        },
        ..SimulatedScenario::default()
    };
    let healthy = ends(&quiet, 40);
    let rolled_back = healthy
        .iter()
        .filter(|end| **end == Some(RolloutEnd::RolledBack));
    assert!(rolled_back.count() <= 1, "{healthy:?}");
    let promoted = healthy
        .iter()
        .filter(|end| **end == Some(RolloutEnd::Promoted));
    assert!(promoted.count() >= 38, "{healthy:?}");
    quiet.regression = "latency=+300ms@canary,users=10%".parse().ok();
    let slower = ends(&quiet, 40);
    let missed = slower
        .iter()
        .filter(|end| **end == Some(RolloutEnd::Promoted));
    assert_eq!(missed.count(), 0, "{slower:?}");
}
