//! The simulated rollout is the real one, and what stands in for it in sweeps decides as it does.

use shipway_core::{
    aggregate::Event,
    config::parse,
    rollout::{Body, LOOKS_MAX, series::series},
};
use shipway_sim::{
    compare::{Comparison, Judge, compare},
    contest::{End, play},
    policy::Policy,
    regression::Regression,
    shipway::{Direct, Real},
    traffic::{Shape, Traffic},
    world::{Scenario, World},
};
use shipway_syntax::SourceFile;

fn scenarios() -> Vec<Scenario> {
    let traffic = |per_second, shape, users| Traffic {
        per_second,
        shape,
        users,
    };
    let regress = |text: &str| text.parse::<Regression>().ok();
    let scenario = |traffic, regression, base| Scenario {
        traffic,
        regression,
        base,
        ..Scenario::default()
    };
    vec![
        scenario(traffic(100.0, Shape::Steady, 0), None, 0.001),
        scenario(
            traffic(100.0, Shape::Bursts, 2_000),
            regress("error-rate=2%@canary"),
            0.001,
        ),
        scenario(
            traffic(300.0, Shape::Day, 0),
            regress("leak=0.5%/min@canary"),
            0.01,
        ),
        scenario(traffic(1_000.0, Shape::Steady, 50_000), None, 0.01),
        scenario(
            traffic(3.0, Shape::Steady, 40),
            regress("error-rate=50%@canary,users=20%"),
            0.001,
        ),
        scenario(traffic(0.0, Shape::Steady, 0), None, 0.001),
    ]
}

/// The default canary with these rules.
fn policy_of(rules: &str) -> Policy {
    let text = format!(
        "service: shop\nartifact: source\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ strategy: canary, analysis: [{rules}] }}\n"
    );
    let (config, _) = parse(&SourceFile::new("shipway.yaml", text)).unwrap();
    Policy::of(config, None).unwrap()
}

#[test]
fn the_judges_and_holds_alone_decide_as_the_real_rollout_does() {
    let required = policy_of("{ metric: error-rate, required: true }");
    let mut ends = Vec::new();
    for (index, scenario) in scenarios().iter().enumerate() {
        for (seed, policy) in [(0, &Policy::default()), (1, &required), (2, &required)] {
            let world = World::new(scenario, seed);
            let real = play(&world, scenario.horizon, &mut Real::open(policy, seed));
            let direct = play(&world, scenario.horizon, &mut Direct::open(policy, seed));
            assert_eq!(real, direct, "scenario {index}, seed {seed}");
            ends.push(real.how);
        }
    }
    for how in [End::Promoted, End::RolledBack, End::Paused] {
        assert!(ends.contains(&Some(how)), "{how:?} is not among {ends:?}");
    }
}

#[test]
fn a_seed_gives_the_same_bytes_twice_whoever_plays() {
    let scenario = Scenario {
        regression: Some(Regression::error_rate(0.05)),
        ..Scenario::default()
    };
    let said = |threads| {
        let comparison = Comparison {
            policy: Policy::default(),
            scenario: scenario.clone(),
            runs: 5,
            seed: 9,
            threads,
        };
        let rows: Vec<_> = [Judge::Shipway, Judge::ARGO, Judge::FLAGGER, Judge::KAYENTA]
            .iter()
            .map(|judge| compare(&comparison, judge, &|_| ()))
            .collect();
        serde_json::to_string(&rows).unwrap()
    };
    let once = said(1);
    assert_eq!(once, said(3));
    let log = |seed| {
        let mut real = Real::with_log(&Policy::default(), seed);
        play(&World::new(&scenario, seed), scenario.horizon, &mut real);
        serde_json::to_string(real.log()).unwrap()
    };
    assert_eq!(log(4), log(4));
    assert_ne!(log(4), log(5));
}

#[test]
fn without_traffic_it_is_promoted_unless_a_rule_is_required_and_what_hits_both_sides_is_not_blamed_on_the_release()
 {
    let policy = Policy::default();
    let quiet = Scenario {
        traffic: Traffic {
            per_second: 0.0,
            ..Traffic::default()
        },
        ..Scenario::default()
    };
    let end = |policy: &Policy| {
        let mut real = Real::open(policy, 1);
        let ended = play(&World::new(&quiet, 1), quiet.horizon, &mut real);
        (ended.how, ended.at)
    };
    assert_eq!(end(&policy), (Some(End::Promoted), 720));
    let required = policy_of("{ metric: error-rate, required: true }");
    assert_eq!(end(&required), (Some(End::Paused), 240));
    let outage = Scenario {
        regression: "error-rate=20%@both".parse().ok(),
        ..Scenario::default()
    };
    for seed in 0..10 {
        let ended = play(
            &World::new(&outage, seed),
            outage.horizon,
            &mut Real::open(&policy, seed),
        );
        assert_eq!(ended.how, Some(End::Promoted), "seed {seed}");
    }
}

#[test]
fn the_log_of_a_rollout_has_all_that_its_plots_show() {
    let scenario = Scenario {
        regression: Some(Regression::error_rate(0.02)),
        ..Scenario::default()
    };
    let policy = Policy::default();
    let mut real = Real::with_log(&policy, 3);
    let ended = play(&World::new(&scenario, 3), scenario.horizon, &mut real);
    assert_eq!(ended.how, Some(End::RolledBack));
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
        .filter(|event| matches!(event.body, Body::Measured { .. }))
        .count();
    assert!(
        10 < measured && (measured as u32) < ended.at,
        "{measured} in {} s",
        ended.at
    );
}

/// How many looks a rollout leaves whose one hold lasts so long, and how many bytes its whole log has.
fn recorded(policy: &Policy, hold: u32) -> (usize, usize) {
    let hold = std::time::Duration::from_secs(u64::from(hold));
    let policy = policy.clone().held_at(10.0, hold, hold).unwrap();
    let scenario = Scenario {
        horizon: u32::MAX,
        ..Scenario::default()
    };
    let mut real = Real::with_log(&policy, 5);
    play(&World::new(&scenario, 5), scenario.horizon, &mut real);
    let is_look = |event: &&Event<Body>| matches!(event.body, Body::Measured { .. });
    let looks = real.log().iter().filter(is_look).count();
    (looks, serde_json::to_vec(real.log()).unwrap().len())
}

#[test]
fn a_rollout_of_any_length_leaves_few_looks() {
    let values = policy_of(
        "{ metric: cpu }, { metric: error-rate, max: 5%, failure_limit: 3 }, { metric: slow-rate, over: 300ms }",
    );
    for (hold, looks_max) in [(60, 25), (1_800, 60), (24 * 3_600, LOOKS_MAX as usize)] {
        for (policy, bytes_max) in [(&Policy::default(), 80_000), (&values, 120_000)] {
            let (looks, bytes) = recorded(policy, hold);
            assert!(
                looks > 10 && looks <= looks_max && bytes <= bytes_max,
                "{looks} looks and {bytes} bytes in {hold} s, {bytes_max} at most"
            );
        }
    }
}

/// How so many rollouts of the default canary end under this traffic.
fn ends(scenario: &Scenario, runs: u64) -> Vec<Option<End>> {
    let policy = Policy::default();
    let play = |seed| {
        let world = World::new(scenario, seed);
        play(&world, scenario.horizon, &mut Real::open(&policy, seed)).how
    };
    (0..runs).map(play).collect()
}

#[test]
fn a_quiet_service_is_promoted_when_it_is_healthy_and_rolled_back_when_a_tenth_of_its_users_wait() {
    let mut quiet = Scenario {
        traffic: Traffic {
            per_second: 20.0,
            users: 200,
            ..Traffic::default()
        },
        ..Scenario::default()
    };
    let healthy = ends(&quiet, 40);
    let rolled_back = healthy.iter().filter(|end| **end == Some(End::RolledBack));
    assert!(rolled_back.count() <= 1, "{healthy:?}");
    let promoted = healthy.iter().filter(|end| **end == Some(End::Promoted));
    assert!(promoted.count() >= 38, "{healthy:?}");
    quiet.regression = "latency=+300ms@canary,users=10%".parse().ok();
    let slower = ends(&quiet, 40);
    let missed = slower.iter().filter(|end| **end == Some(End::Promoted));
    assert_eq!(missed.count(), 0, "{slower:?}");
}
