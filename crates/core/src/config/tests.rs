//! What is read, and how mistakes are told.

use std::time::Duration;

use shipway_syntax::SourceFile;

use super::*;
use crate::{check::HealthProbe, target::StopSignal};

const GOOD: &str = r#"
service: shop
artifact: shop
run:
  command: ./shop --port $PORT
  env: { LOG_LEVEL: info }
  health: { http: /health/ready, interval: 2s, timeout: 1s }
  limits: { memory: 256MiB, cpu: 0.5 }
environments:
  staging:
    strategy: recreate
    smoke:
      - { name: home, get: /, expect: { status: 200, json: { "items[0].name": tea }, within: 500ms } }
    tests: .github/workflows/e2e.yml
  production:
    instances: 3
    hosts: [shop.example.com]
    approvals: { count: 1, from: [alice, "@platform"] }
    strategy:
      canary:
        steps:
          - { weight: 1, hold: 2m }
          - { weight: 10%, hold: 5m, ask: true }
    analysis:
      - { metric: error-rate, max: 5% }
      - { metric: latency-p99, max: 500ms }
    notify: [{ slack: $SLACK_WEBHOOK }]
"#;

pub(super) fn problems(text: &str) -> Vec<String> {
    let source = SourceFile::new("shipway.yaml", text);
    match parse(&source) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|problem| problem.one_line(&source))
            .collect(),
    }
}

#[test]
fn a_whole_file_reads_with_its_defaults() {
    let (config, warnings) = parse(&SourceFile::new("shipway.yaml", GOOD)).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(
        (config.branch.as_str(), config.run.limits.cpu_millis),
        ("main", Some(500))
    );
    let [staging, production] = config.environments.as_slice() else {
        panic!("two environments")
    };
    assert_eq!(
        (
            staging.instances,
            staging.strategy.keyword(),
            staging.smoke.len()
        ),
        (1, "recreate", 1)
    );
    let Strategy::Canary(canary) = &production.strategy else {
        panic!("a canary")
    };
    assert_eq!(canary.steps[1].weight.to_string(), "10%");
    assert!(canary.steps[1].ask);
    assert_eq!(production.analysis.rules().len(), 2);
    assert_eq!(production.drain, Duration::from_secs(30));
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(
        serde_json::from_str::<ServiceConfig>(&text).unwrap(),
        config,
        "it travels in events"
    );
    assert_eq!(config.digest(), config.clone().digest());
}

#[test]
fn mistakes_are_told_with_place_and_remedy() {
    let text = r#"
service: Shop
brnach: main
workflow: ../cd.yml
run:
  comand: ./shop
environments:
  production:
    instances: 0
    strategy: canarry
    sticky: { cokie: x }
    analysis:
      - { metric: eror-rate, max: 5% }
      - { metric: error-rate, worse_than: stabel, alpha: 2, tolerance: 1 }
      - { metric: restarts, worse_than: stable }
      - { metric: error-rate, max: 5%, alpha: 1% }
      - { metric: latency-p99, max: fast }
      - { metric: latency-p99, worse_than: stable, unit: users }
      - { metric: error-rate, worse_than: stable, unit: people }
      - { metric: error-rate, max: 5%, group: shop }
    hosts: ["http://shop.example.com"]
    migrations: { dir: migrations }
"#;
    insta::assert_snapshot!(problems(text).join("\n"), @r#"
    shipway.yaml:2:10: error: "Shop" is not a service name: 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit
    shipway.yaml:3:1: error: unknown key `brnach` in shipway.yaml; did you mean `branch`?
    shipway.yaml:4:11: error: the path `../cd.yml` is outside the repository; name a path relative to the folder of shipway.yaml, without `..`
    shipway.yaml:6:3: error: unknown key `comand` in run; did you mean `command`?
    shipway.yaml:6:3: error: `command` is missing in run
    shipway.yaml:9:16: error: `instances` must be a whole number from 1 to 1000, but this is `0`
    shipway.yaml:10:15: error: `strategy` must be one of recreate, rolling, blue-green, canary, but this is `canarry`; did you mean `canary`?
    shipway.yaml:11:15: error: unknown key `cokie` in sticky; did you mean `cookie`?
    shipway.yaml:13:19: error: `metric` must be one of error-rate, latency-p50, latency-p90, latency-p99, slow-rate, requests, saturation, cpu, memory, restarts, availability, but this is `eror-rate`; did you mean `error-rate`?
    shipway.yaml:14:43: error: `worse_than` must be one of stable, but this is `stabel`; did you mean `stable`?
    shipway.yaml:14:58: error: `alpha` must be a probability above 0 and below 1, not `2`; the accepted probability of rolling back a good release, such as 1%
    shipway.yaml:14:72: error: `tolerance` must be a number above 1 and at most 100, not `1`; a hold ends early only when a factor of this size over stable is excluded, such as 2
    shipway.yaml:15:9: error: restarts can't be compared with stable, which has a different share of the traffic; set `max` or `min`
    shipway.yaml:16:47: error: `alpha` can't be used with limits, only with comparisons with stable; leave it out, or write a rule of its own: { metric: error-rate, worse_than: stable, alpha: … }
    shipway.yaml:17:37: error: `fast` is not a valid latency-p99: write a time, such as 500ms or 1.5s
    shipway.yaml:18:58: error: `unit` can't be used with latency-p99, only with error-rate and slow-rate
    shipway.yaml:19:57: error: `unit` must be one of users, requests, but this is `people`
    shipway.yaml:20:47: error: `group` can't be used with limits, only with judge `mann-whitney`; leave it out, or write a rule of its own: { metric: error-rate, judge: mann-whitney, group: … }
    shipway.yaml:21:13: error: `http://shop.example.com` is not a host name; write it without scheme and port: shop.example.com or *.shop.example.com
    shipway.yaml:22:5: error: database migrations is not supported yet; leave it out
    "#);
}

/// What is said about the rules of a canary.
fn said_of_rules(rules: &str) -> Vec<String> {
    problems(&format!(
        "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production:\n    strategy: canary\n    analysis: [{rules}]\n"
    ))
}

#[test]
fn the_default_judge_compares_with_stable() {
    let text = |rule: &str| {
        format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production:\n    analysis: [{{ {rule} }}]\n"
        )
    };
    let read = |rule: &str| {
        let source = SourceFile::new("shipway.yaml", text(rule));
        let (config, _) = parse(&source).unwrap();
        config.environments[0].analysis.clone()
    };
    assert_eq!(
        read("metric: error-rate"),
        read("metric: error-rate, worse_than: stable")
    );
    let restarts = said_of_rules("{ metric: restarts }").join("\n");
    assert!(restarts.contains("set `max` or `min`"), "{restarts}");
    let limit = said_of_rules("{ metric: error-rate, failure_limit: 2 }").join("\n");
    assert!(limit.contains("error-rate has no limit"), "{limit}");
}

#[test]
fn keys_of_another_judge_are_told_with_a_rule_that_would_take_them() {
    for (rule, said) in [
        (
            "{ metric: error-rate, worse_than: stable, max: 5% }",
            "`max` can't be used with comparisons with stable, only with limits; leave it out, or write a rule of its own: { metric: error-rate, max: … }",
        ),
        (
            "{ metric: cpu, judge: mann-whitney, interval: 1s }",
            "`interval` can't be used with judge `mann-whitney`, only with comparisons with stable, limits, conditions; leave it out, or write a rule of its own: { metric: cpu, worse_than: stable, interval: … }",
        ),
        (
            "{ metric: error-rate, max: 5%, interval: 0s }",
            "`interval` must be at least 100 ms",
        ),
    ] {
        let found = said_of_rules(rule);
        assert!(found.len() == 1 && found[0].ends_with(said), "{found:#?}");
    }
}

#[test]
fn without_analysis_the_default_rules_are_judged_for_every_strategy_and_none_judges_nothing() {
    let read = |strategy: &str, analysis: &str| {
        let text = format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ strategy: {strategy}{analysis} }}\n"
        );
        let (config, _) = parse(&SourceFile::new("shipway.yaml", text)).unwrap();
        let production = config.environments.into_iter().next().unwrap();
        (production.analysis, production.analysis_source)
    };
    // As docs/rollouts.md writes them out.
    let written = ", analysis: [{ metric: error-rate, worse_than: stable, max_without_stable: 5% }, { metric: slow-rate, over: auto, worse_than: stable, max_without_stable: 10% }, { metric: restarts, max: 0, worse_than: stable }, { metric: availability, min: 95%, worse_than: stable }]";
    for strategy in Strategy::WORDS {
        let (rules, source) = read(strategy, "");
        assert_eq!(source, AnalysisSource::Default);
        assert_eq!(rules, read(strategy, written).0, "{strategy}");
        let (none, source) = read(strategy, ", analysis: none");
        assert_eq!((none.is_empty(), source), (true, AnalysisSource::None));
    }
    assert_eq!(read("canary", written).1, AnalysisSource::File);
}

#[test]
fn limits_that_can_never_fail_and_shares_without_a_unit_are_refused() {
    for (rule, said) in [
        (
            "{ metric: error-rate, max: 1 }",
            "write a percentage, such as",
        ),
        ("{ metric: slow-rate, over: 1s, max: 2 }", "such as 2%"),
        ("{ metric: availability, min: 99 }", "such as 99%"),
        ("{ metric: error-rate, max: 100% }", "never above 100%"),
        ("{ metric: error-rate, min: 0%, max: 5% }", "never below 0"),
        ("{ metric: restarts, min: 0 }", "never below 0"),
        (
            "{ metric: error-rate, max: 5%, count: 3, failure_limit: 3 }",
            "can't fail more than 3 times",
        ),
        (
            "{ metric: error-rate, max: 5%, skip: 5m }",
            "never counts anything",
        ),
        ("{ metric: error-rate, skip: 5m }", "never counts anything"),
        (
            "{ metric: error-rate, max_without_stable: 100% }",
            "must be above 0% and below 100%",
        ),
        (
            "{ metric: cpu, max_without_stable: 5% }",
            "only with error-rate and slow-rate",
        ),
        (
            "{ metric: cpu, over: auto }",
            "`over` can't be used with cpu, only with slow-rate",
        ),
        (
            "{ metric: cpu, judge: threshold, max: 80%, worse_than: stable }",
            "is not compared with stable",
        ),
    ] {
        let found = said_of_rules(rule);
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{rule}: {found:#?}"
        );
    }
    for fine in [
        "{ metric: error-rate, max: 1% }",
        "{ metric: error-rate, max: 0.5 }",
        "{ metric: error-rate, max: 5%, skip: 4m }",
        "{ metric: availability, min: 99.5%, worse_than: stable }",
    ] {
        assert_eq!(said_of_rules(fine), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn an_analysis_that_is_neither_none_nor_rules_is_refused() {
    for analysis in ["[]", "nothing", "{ metric: error-rate }"] {
        let found = problems(&format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ analysis: {analysis} }}\n"
        ));
        let said = "`analysis` must be a list of rules, or `none`";
        assert!(found.len() == 1 && found[0].contains(said), "{found:#?}");
    }
}

#[test]
fn a_step_with_a_bad_weight_is_told_once() {
    let found = problems(
        "service: shop\nrun: { command: ./shop }\nenvironments:\n  production:\n    strategy: { canary: { steps: [{ weight: 101 }] } }\n",
    );
    assert!(
        found.len() == 1 && found[0].contains("is not a share"),
        "{found:#?}"
    );
}

#[test]
fn what_may_be_wrong_and_what_is_tolerated_are_in_their_ranges() {
    let told = |key: &str, value: &str| {
        problems(&format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production:\n    analysis: [{{ metric: error-rate, worse_than: stable, {key}: {value} }}]\n"
        ))
    };
    let wrong: [(&str, &[&str], &str); 3] = [
        (
            "alpha",
            &[
                "0", "0%", "1", "100%", "-1%", "2", ".nan", ".inf", "little", "1e400",
            ],
            "`alpha` must be a probability above 0 and below 1",
        ),
        (
            "tolerance",
            &["1", "0", "-2", "0.5", "101", ".nan", ".inf", "twice"],
            "`tolerance` must be a number above 1 and at most 100",
        ),
        (
            "margin",
            &["0", "0.9", "-1", ".nan", ".inf", "some"],
            "`margin` must be a number",
        ),
    ];
    for (key, values, words) in wrong {
        for value in values {
            let told = told(key, value);
            let is_told = told.len() == 1
                && told[0].contains(words)
                && told[0].starts_with("shipway.yaml:5:");
            assert!(is_told, "{key}: {value}: {told:#?}");
        }
    }
    for (key, value) in [
        ("alpha", "0.1%"),
        ("alpha", "0.5"),
        ("tolerance", "1.1x"),
        ("tolerance", "100"),
        ("margin", "1"),
    ] {
        assert_eq!(told(key, value), Vec::<String>::new(), "{key}: {value}");
    }
}

#[test]
fn empty_and_absent_parts_are_named() {
    assert_eq!(
        problems(""),
        [
            "shipway.yaml:1:1: error: shipway.yaml must be a mapping, but this is empty; its keys are service, branch, repository, workflow, artifact, run, reports, paths, environments, target, router"
        ]
    );
    let missing = problems("service: shop\n");
    assert_eq!(
        missing,
        [
            "shipway.yaml:1:1: error: `run` is missing in shipway.yaml",
            "shipway.yaml:1:1: error: `environments` is missing in shipway.yaml"
        ]
    );
}

#[test]
fn steps_rise_and_addresses_are_not_shared() {
    let file = |environments: &str| {
        format!("service: shop\nrun: {{ command: ./shop }}\nenvironments:\n{environments}")
    };
    let falling = problems(&file(
        "  p: { strategy: { canary: { steps: [{ weight: 10 }, { weight: 10 }] } } }\n",
    ));
    assert_eq!(
        falling,
        ["shipway.yaml:4:54: error: the weights of the steps must increase: 10% comes after 10%"]
    );
    let shared = problems(&file("  a: { port: 8081 }\n  b: { port: 8081 }\n"));
    assert_eq!(
        shared,
        [
            "shipway.yaml:5:3: error: a and b have the same address: port 8081; give each environment its own `hosts`, `path` or `port`"
        ]
    );
    let default = problems(&file("  a: {}\n  b: { hosts: [SHOP-a.localhost] }\n"));
    assert_eq!(
        default,
        [
            "shipway.yaml:5:3: error: a and b have the same address: shop-a.localhost; give each environment its own `hosts`, `path` or `port`"
        ]
    );
    let nothing_to_strip = problems(&file("  a: { strip_prefix: false }\n"));
    assert_eq!(
        nothing_to_strip,
        [
            "shipway.yaml:4:22: error: `strip_prefix` needs a `path`; write `path: /shop` beside it, or remove `strip_prefix`"
        ]
    );
}

#[test]
fn the_schema_has_every_key_that_is_read_and_no_other() {
    let schema = schema();
    let keys = |at: &serde_json::Value| {
        at["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
    };
    let read = |keys: &[&str], but: &[&str]| {
        keys.iter()
            .filter(|key| !but.contains(key))
            .map(|key| (*key).to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let defs = &schema["$defs"];
    assert_eq!(keys(&schema), read(decode::FILE_KEYS, &[]));
    assert_eq!(
        keys(&schema["properties"]["run"]),
        read(decode::RUN_KEYS, &[])
    );
    assert_eq!(
        keys(&schema["properties"]["reports"]),
        read(super::reports::REPORTS_KEYS, &[])
    );
    assert_eq!(
        keys(&defs["environment"]),
        read(environments::ENVIRONMENT_KEYS, &[])
    );
    assert_eq!(keys(&defs["health"]), read(checks::HEALTH_KEYS, &[]));
    assert_eq!(keys(&defs["smoke"]), read(checks::SMOKE_KEYS, &[]));
    assert_eq!(keys(&defs["metric"]), read(&metrics::metric_keys(), &[]));
    assert_eq!(
        keys(&defs["provider"]["oneOf"][1]),
        read(metrics::source::PROVIDER_KEYS, &[])
    );
}

#[test]
fn reports_are_named_by_patterns_that_stay_inside() {
    let text = |reports: &str| {
        format!(
            "service: shop\nrun: {{ command: ./shop }}\nreports: {reports}\nenvironments: {{ production: }}\n"
        )
    };
    let read = |reports: &str| parse(&SourceFile::new("shipway.yaml", text(reports)));
    let (config, _) =
        read("{ junit: './out/*.xml', coverage: [a.info, b.xml], minimum: 72.5% }").unwrap();
    assert_eq!(config.reports.paths.junit, ["out/*.xml"]);
    assert_eq!(config.reports.paths.coverage, ["a.info", "b.xml"]);
    assert_eq!(config.reports.minimum, Some(7_250));
    for (wrong, code) in [
        ("{ junit: ../x.xml }", "path-leaves"),
        ("{ minimum: 180% }", "bad-value"),
        ("{ minimum: most }", "bad-value"),
        ("{ junits: x }", "unknown-key"),
    ] {
        let problems = read(wrong).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.code == code),
            "{wrong}: {problems:?}"
        );
    }
}

#[test]
fn what_may_be_wrong_is_split_over_the_comparisons_that_do_not_say() {
    let text = "service: shop\nrun: { command: ./shop }\nenvironments:\n  production:\n    analysis:\n      - { metric: error-rate, worse_than: stable }\n      - { metric: error-rate, worse_than: stable, tolerance: 3x }\n      - { metric: error-rate, worse_than: stable, alpha: 5% }\n      - { metric: error-rate, max: 5% }\n";
    let (config, _) = parse(&SourceFile::new("shipway.yaml", text)).unwrap();
    let alphas: Vec<Option<f64>> = config.environments[0]
        .analysis
        .rules()
        .iter()
        .map(|rule| match rule {
            shipway_analysis::AnalysisRule::Sequential { sequential } => {
                Some(sequential.alpha.get())
            }
            _ => None,
        })
        .collect();
    assert_eq!(alphas, [Some(0.005), Some(0.005), Some(0.05), None]);
}

#[test]
fn what_a_canary_is_reached_by_is_read_and_mistakes_are_told() {
    let file = |strategy: &str| {
        format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production:\n    strategy: {{ {strategy} }}\n"
        )
    };
    let good = file(
        "canary: { match: [{ header: { X-Canary: \"1\" } }, { cookie: { beta: { prefix: eu- } } }, { header: { x-user: { regex: '[a-m].*' } }, cookie: { staff: { present: true } } }], mirror: { share: 5%, methods: all }, baseline: true, steps: [{ hold: 5m }, { weight: 10% }] }",
    );
    let (config, _) = parse(&SourceFile::new("shipway.yaml", good.as_str())).unwrap();
    let Strategy::Canary(canary) = &config.environments[0].strategy else {
        panic!("a canary")
    };
    let shown: Vec<String> = canary.matches.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "header x-canary: 1",
            "cookie beta=eu-…",
            "header x-user: /[a-m].*/ and cookie staff"
        ]
    );
    assert!(canary.baseline && canary.mirror.is_some() && canary.steps[0].weight.is_zero());
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(
        serde_json::from_str::<ServiceConfig>(&text).unwrap(),
        config
    );
    let wrong = [
        "canary: { steps: [{ hold: 5m }] }",
        "canary: { match: {}, steps: [{ weight: 10 }] }",
        "canary: { match: { header: { \"x canary\": 1 } } }",
        "canary: { match: { cookie: { beta: { exact: a } } } }",
        "canary: { match: { cookie: { beta: { prefix: a, regex: b } } } }",
        "canary: { match: { cookie: { beta: { regex: 'a(' } } } }",
        "canary: { match: { cookie: { beta: { regex: '(?=a)' } } } }",
        "canary: { match: { cookie: { beta: { regex: 'a)(b' } } } }",
        "canary: { match: { cookie: { beta: { regex: '(a{99}){99}' } } } }",
        "canary: { match: { cookie: { beta: { present: false } } } }",
        "canary: { mirror: 0% }",
        "canary: { mirror: { share: 10%, methods: most } }",
        "canary: { baseline: true, steps: [{ weight: 60% }] }",
        "blue-green: { bake: soon }",
    ];
    let told: Vec<String> = wrong
        .iter()
        .flat_map(|wrong| problems(&file(wrong)))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    shipway.yaml:5:35: error: this step sends no traffic to the canary, so nothing can be measured; set a weight above 0, or add `match` or `mirror` to the canary
    shipway.yaml:5:34: error: `match` needs at least one condition; for example `match: { header: { x-canary: "1" } }` or `match: { cookie: { beta: "yes" } }`
    shipway.yaml:5:46: error: `x canary` is not a valid name of a header
    shipway.yaml:5:52: error: the value to match is missing; write `{ prefix: eu- }`, `{ regex: "eu-[0-9]+" }` or `{ present: true }`, or the value
    shipway.yaml:5:54: error: unknown key `exact` in the value to match; the keys here are prefix, regex, present
    shipway.yaml:5:52: error: use only one of value, prefix, regex and present; write `{ prefix: eu- }`, `{ regex: "eu-[0-9]+" }` or `{ present: true }`, or the value
    shipway.yaml:5:61: error: `a(` can't be matched: unclosed group; the syntax is RE2's, as with Istio: no look-around, no back-references
    shipway.yaml:5:61: error: `(?=a)` can't be matched: look-around, including look-ahead and look-behind, is not supported; the syntax is RE2's, as with Istio: no look-around, no back-references
    shipway.yaml:5:61: error: `a)(b` can't be matched: unopened group; the syntax is RE2's, as with Istio: no look-around, no back-references
    shipway.yaml:5:61: error: `(a{99}){99}` can't be matched: its repetitions make it too large; the syntax is RE2's, as with Istio: no look-around, no back-references
    shipway.yaml:5:52: error: requests can't be matched by what they lack; requests that match no rule are split by weight
    shipway.yaml:5:35: error: a mirror with a share of 0 measures nothing; set a share above 0, or remove `mirror`
    shipway.yaml:5:58: error: `methods` must be one of safe, all, but this is `most`
    shipway.yaml:5:51: error: a baseline gets the same share of the traffic as the canary, so 60% is too much; go up to 50% by steps, or leave `baseline` out
    shipway.yaml:5:37: error: `bake` must be a duration, such as 250ms, 2s, 5m or 1h30m, but this is `soon`
    "#);
}

#[test]
fn ties_and_windows_are_read_and_mistakes_are_told() {
    let file = |keys: &str| {
        format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ {keys} }}\n"
        )
    };
    let good = file("promote_with: [cart, mail], rollback_window: { releases: 3, within: 24h }");
    let (config, _) = parse(&SourceFile::new("shipway.yaml", good.as_str())).unwrap();
    let production = &config.environments[0];
    assert_eq!(config.group(&production.name).len(), 3);
    assert_eq!(
        production.rollback_window.unwrap().to_string(),
        "the last 3 releases or 1 d"
    );
    let wrong = [
        "with: shop",
        "promote_with: [cart, cart]",
        "promote_with: [Cart]",
        "rollback_window: 3",
        "rollback_window: {}",
        "rollback_window: { releases: 0 }",
        "mirror: 10%",
        "match: { header: { a: b } }",
    ];
    let told: Vec<String> = wrong
        .iter()
        .flat_map(|wrong| problems(&file(wrong)))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    shipway.yaml:4:23: warning: `with` is now called `promote_with`; rename the key
    shipway.yaml:4:23: error: shop can't be promoted with itself; name other services
    shipway.yaml:4:38: error: cart is named twice; name each service once
    shipway.yaml:4:32: error: "Cart" is not a service name: 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit; name other services of this server
    shipway.yaml:4:34: error: rollback_window must be a mapping, but this is a number; its keys are releases, within
    shipway.yaml:4:34: error: `rollback_window` needs a limit; for example `rollback_window: { releases: 3 }` or `{ within: 24h }`
    shipway.yaml:4:46: error: `releases` must be a whole number from 1 to 10, but this is `0`
    shipway.yaml:4:17: error: `mirror` belongs to the strategy; write it below `strategy: { canary: { mirror: … } }`
    shipway.yaml:4:17: error: `match` belongs to the strategy; write it below `strategy: { canary: { match: … } }`
    "#);
}

#[test]
fn a_stop_signal_is_read_by_its_name_and_refused_otherwise() {
    let read = |signal: &str| {
        format!(
            "service: shop\nrun: {{ command: ./shop, stop_signal: {signal} }}\nenvironments: {{ production: {{}} }}"
        )
    };
    for name in ["SIGQUIT", "quit"] {
        let source = SourceFile::new("shipway.yaml", read(name));
        let (config, _) = parse(&source).unwrap();
        assert_eq!(config.run.stop_signal, StopSignal::SigQuit, "{name}");
    }
    let refused = problems(&read("SIGKILL")).join("\n");
    assert!(
        refused.contains("`stop_signal` can't be `SIGKILL`"),
        "{refused}"
    );
    assert!(refused.contains("use one of SIGTERM, SIGINT"), "{refused}");
}

#[test]
fn probes_send_headers_and_ask_for_the_environments_host() {
    let text = r#"
        service: shop
        run:
          command: ./shop
          health: { http: /health, headers: { X-Probe: yes }, liveness: { http: /live, headers: { Host: a.example.com } } }
        environments:
          staging: {}
          production: { hosts: ["*.example.com", shop.example.com] }
    "#;
    let text = text.replace("\n        ", "\n");
    let (config, _) = parse(&SourceFile::new("shipway.yaml", text)).unwrap();
    let headers = |probe: &HealthProbe| match probe {
        HealthProbe::Http { headers, .. } => headers.clone(),
        HealthProbe::Tcp | HealthProbe::Exec { .. } => panic!("{probe:?}"),
    };
    let health = &config.run.health;
    assert_eq!(headers(&health.readiness)["x-probe"], "yes");
    let liveness = headers(health.liveness.as_ref().unwrap());
    assert_eq!(liveness["host"], "a.example.com");
    assert_eq!(liveness.len(), 1, "its own replace those of readiness");
    let hosts: Vec<_> = (config.environments.iter())
        .map(|it| it.request_host())
        .collect();
    assert_eq!(hosts, [None, Some("shop.example.com")]);
    let bad = "service: shop\nrun: { command: ./shop, health: { http: /, headers: { \"a b\": x } } }\nenvironments: { production: {} }";
    let refused = problems(bad).join("\n");
    assert!(
        refused.contains("`a b` can't be sent as a header"),
        "{refused}"
    );
}
