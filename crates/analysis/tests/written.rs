//! The format of rules, observations and states in the log: a change of it breaks this test.

use std::time::Duration;

use shipway_analysis::{
    Analysis, ConditionRule, MeasurementPolicy, Metric, Observation, SequentialComparison,
    evidence::Alpha, threshold::MeasurementState,
};

#[test]
fn rules_observations_and_states_are_read_and_written_to_the_letter() {
    let rules = r#"[
        {"sequential":{"metric":"error-rate","alpha":0.01,"beta":0.05,"test":{"margin":1.0,"tolerance":2.0},"min_requests":100,"estimator":"v1"}},
        {"metric":"latency-p99","bound":{"max":500.0},"interval":{"secs":5,"nanos":0},"count":null,"failure_limit":0,"consecutive_error_limit":4,"inconclusive_limit":null,"min_requests":100},
        {"expression":{"metric":{"value":"conversion"},"pass":"value >= 0.95 * stable","fail":null,"interval":{"secs":5,"nanos":0},"count":3,"failure_limit":1,"consecutive_error_limit":4,"inconclusive_limit":2,"min_requests":50,"skip":{"secs":30,"nanos":0}}}
    ]"#;
    let analysis: Analysis = serde_json::from_str(rules).unwrap();
    let share = |value| Alpha::new(value).unwrap();
    let comparison =
        SequentialComparison::new(Metric::ErrorRate, share(0.01), share(0.05), 1.0, 2.0).unwrap();
    assert_eq!(analysis.rules()[0], comparison.into());
    let condition = "value >= 0.95 * stable".parse().unwrap();
    let conversion = Metric::Value("conversion".parse().unwrap());
    let expression = ConditionRule {
        counting: MeasurementPolicy {
            count: Some(3),
            failure_limit: 1,
            inconclusive_limit: Some(2),
            min_requests: 50,
            skip: Duration::from_secs(30),
            ..MeasurementPolicy::default()
        },
        ..ConditionRule::new(conversion, Some(condition), None).unwrap()
    };
    assert_eq!(analysis.rules()[2], expression.into());
    // And is written as it was, to the letter: the digest of a configuration is made of it.
    let written: Vec<String> = analysis
        .rules()
        .iter()
        .map(|rule| serde_json::to_string(rule).unwrap())
        .collect();
    let lines = rules.lines().map(|line| line.trim().trim_end_matches(','));
    let objects: Vec<&str> = lines.filter(|line| line.starts_with('{')).collect();
    assert_eq!(written, objects);
    let seen = r##"{"at":"2026-11-21T09:00:00Z","canary":{"release":"#4","sample":{"requests":7,"errors":1,"latency":null,"cpu":0.5,"memory_bytes":null,"restarts":0}},"stable":null}"##;
    let read: Observation = serde_json::from_str(seen).unwrap();
    assert_eq!(read.canary.sample.as_ref().unwrap().requests, 7);
    // What isn't known is left out: there are many of these in a log.
    let short = seen
        .replace("\"latency\":null,", "")
        .replace("\"memory_bytes\":null,", "");
    assert_eq!(serde_json::to_string(&read).unwrap(), short);
    let state = r#"{"canary":{"closed":{"requests":5,"errors":1,"restarts":0},"mark":{"at":"2026-11-21T09:00:00Z","requests":5,"errors":1,"restarts":0}},"stable":{"closed":{"requests":0,"errors":0,"restarts":0},"mark":null},"measured_at":null,"tally":{"count":0,"successful":0,"failed":0,"inconclusive":0,"error":0,"consecutive_error":0},"latest":null,"settled":null}"#;
    let read: MeasurementState = serde_json::from_str(state).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), state);
}
