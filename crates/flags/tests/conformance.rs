//! flagd's public evaluator scenarios (open-feature/flagd-testbed, `evaluator/` and the `fractional-v3` vectors) as a table: facts only.
//! Its v1 bucketing, which flagd has given up, is not among them.

#![recursion_limit = "256"]

use serde_json::{Value, json};
use shipway_flags::{
    BucketingVersion, EvaluationContext, EvaluationErrorCode, EvaluationReason, FlagEvaluation,
    FlagFileStrictness, FlagSet, FlagSetDetails, FlagSetSource, FlagValue,
};

const NOW: i64 = 1_764_547_200;

fn text_flag(default: &str, targeting: Value, names: &[&str]) -> Value {
    let variants: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!(name)))
        .collect();
    json!({"state": "ENABLED", "variants": variants, "defaultVariant": default, "targeting": targeting})
}

fn static_flag(variants: Value, default: &str) -> Value {
    json!({"state": "ENABLED", "variants": variants, "defaultVariant": default})
}

fn suits(subject: Value) -> Value {
    let buckets = [
        ["clubs", "25"],
        ["diamonds", "25"],
        ["hearts", "25"],
        ["spades", "25"],
    ];
    let mut arguments = vec![subject];
    arguments.extend(buckets.iter().map(|[name, _]| json!([name, 25])));
    let names = ["clubs", "diamonds", "hearts", "spades", "wild"];
    text_flag("wild", json!({ "fractional": arguments }), &names)
}

fn condition_flag(condition: Value) -> Value {
    let names = ["true", "false", "fallback"];
    text_flag(
        "fallback",
        json!({"if": [condition, "true", "false"]}),
        &names,
    )
}

fn twenty_five_buckets() -> Value {
    let names: Vec<String> = (1..=25).map(|number| format!("bucket{number}")).collect();
    let mut arguments = vec![json!({"var": "input"})];
    arguments.extend(names.iter().map(|name| json!([name, 4])));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    text_flag("bucket1", json!({ "fractional": arguments }), &names)
}

fn split_flags() -> Value {
    let seeded = json!({"cat": ["shared-seed", {"var": "user.name"}]});
    let key = json!({"var": "targetingKey"});
    let is_premium = json!({"==": [{"var": "tier"}, "premium"]});
    json!({
        "fractional-flag": suits(json!({"cat": [{"var": "$flagd.flagKey"}, {"var": "user.name"}]})),
        "fractional-flag-shorthand": text_flag(
            "draw", json!({"fractional": [["heads"], ["tails", 1]]}), &["heads", "tails", "draw"]),
        "seed-a": suits(seeded.clone()),
        "seed-b": suits(seeded),
        "edge": text_flag(
            "lower", json!({"fractional": [key, ["lower", 50], ["upper", 50]]}), &["lower", "upper"]),
        "single": text_flag("other", json!({"fractional": [["single", 1]]}), &["single", "other"]),
        "nested-if": text_flag("fallback", json!({"fractional": [key,
            [{"if": [is_premium, "premium", "standard"]}, 50], ["standard", 50]]}), &["premium", "standard", "fallback"]),
        "nested-var": text_flag("fallback", json!({"fractional": [key, [{"var": "color"}, 50], ["blue", 50]]}),
            &["red", "green", "blue", "fallback"]),
        "nested-weight": text_flag("fallback", json!({"fractional": [key,
            ["red", {"if": [is_premium, 100, 0]}], ["blue", 10]]}), &["red", "blue", "fallback"]),
        "condition-true": condition_flag(json!({"fractional": [[false, 0], [true, 100]]})),
        "condition-false": condition_flag(json!({"fractional": [[false, 100], [true, 0]]})),
        "no-subject": condition_flag(json!({"fractional": [{"var": "missing"}, ["one", 50], ["two", 50]]})),
        "no-weights": condition_flag(json!({"fractional": [key, ["one", 0], ["two", 0]]})),
        "negative-weight": text_flag("fallback", json!({"fractional": [key, ["one", -50], ["two", 100]]}),
            &["one", "two", "fallback"]),
        "any-input": twenty_five_buckets(),
    })
}

fn rule_flags() -> Value {
    let version = |operator: &str, expected: &str| json!({"sem_ver": [{"var": "version"}, operator, expected]});
    let email =
        |present: &str, absent: &str| json!({"if": [{"$ref": "is_director"}, present, absent]});
    let numbers = |targeting: Value| json!({"state": "ENABLED", "variants": {"one": 1, "two": 2}, "defaultVariant": "two", "targeting": targeting});
    let words = |targeting: Value| json!({"state": "ENABLED", "variants": {"false": 1, "true": 2}, "defaultVariant": "false", "targeting": targeting});
    json!({
        "boolean": static_flag(json!({"on": true, "off": false}), "on"),
        "string": static_flag(json!({"greeting": "hi", "parting": "bye"}), "greeting"),
        "integer": static_flag(json!({"one": 1, "ten": 10}), "ten"),
        "float": static_flag(json!({"tenth": 0.1, "half": 0.5}), "half"),
        "object": static_flag(json!({"empty": {}, "template": {"title": "Pictures", "count": 100}}), "template"),
        "zero-boolean": static_flag(json!({"zero": false, "other": true}), "zero"),
        "zero-string": static_flag(json!({"zero": "", "other": "x"}), "zero"),
        "zero-integer": static_flag(json!({"zero": 0, "other": 1}), "zero"),
        "zero-float": static_flag(json!({"zero": 0.0, "other": 1.0}), "zero"),
        "large": static_flag(json!({"large": 2_147_483_647}), "large"),
        "huge": static_flag(json!({"huge": 9_007_199_254_740_991u64}), "huge"),
        "integral-float": static_flag(json!({"ten": 10.0}), "ten"),
        "disabled": {"state": "DISABLED", "variants": {"on": true}, "defaultVariant": "on"},
        "null-default": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": null},
        "no-default": {"state": "ENABLED", "variants": {"small": 10}},
        "no-default-null": {"state": "ENABLED", "variants": {"special": "CEO"},
            "targeting": {"if": [{"==": ["jobs@example.com", {"var": ["email"]}]}, "special", null]}},
        "no-default-open": {"state": "ENABLED", "variants": {"special": "CEO"},
            "targeting": {"if": [{"==": ["jobs@example.com", {"var": ["email"]}]}, "special"]}},
        "targeting-key": text_flag("miss", json!({"if": [{"==": [{"var": "targetingKey"}, "5c3d"]}, "hit", null]}), &["miss", "hit"]),
        "edges": text_flag("none", json!({"if": [{"starts_with": [{"var": "id"}, "abc"]}, "prefix",
            {"if": [{"ends_with": [{"var": "id"}, "xyz"]}, "postfix", "none"]}]}), &["prefix", "postfix", "none"]),
        "start-of-number": condition_flag(json!({"starts_with": [{"var": "num"}, "abc"]})),
        "end-of-number": condition_flag(json!({"ends_with": [{"var": "num"}, "abc"]})),
        "start-of-nothing": condition_flag(json!({"starts_with": ["abc"]})),
        "end-of-nothing": condition_flag(json!({"ends_with": ["abc"]})),
        "version-order": text_flag("none", json!({"if": [version("=", "2.0.0"), "equal", version(">", "2.0.0"), "greater",
            version("<", "2.0.0"), "lesser", "none"]}), &["equal", "greater", "lesser", "none"]),
        "version-range": text_flag("none", json!({"if": [version("~", "3.0.0"), "minor", version("^", "3.0.0"), "major", "none"]}),
            &["minor", "major", "none"]),
        "version-prefix": condition_flag(version("=", "v1.0.0")),
        "version-partial": condition_flag(version("^", "1")),
        "version-number": condition_flag(version(">=", "1.2")),
        "version-build": condition_flag(version("=", "1.0.0+build")),
        "version-invalid": condition_flag(version("=", "1.0.0")),
        "version-operator": condition_flag(version("===", "1.0.0")),
        "version-arguments": condition_flag(json!({"sem_ver": [{"var": "version"}, "="]})),
        "ref-1": text_flag("none", email("hi", "bye"), &["hi", "bye", "none"]),
        "ref-2": text_flag("none", email("yes", "no"), &["yes", "no", "none"]),
        "ref-unknown": text_flag("none", json!({"if": [{"$ref": "nonexistent"}, "hi", "bye"]}), &["hi", "bye", "none"]),
        "time": {"state": "ENABLED", "variants": {"past": -1, "future": 1, "none": 0}, "defaultVariant": "none",
            "targeting": {"if": [{">": [{"var": "$flagd.timestamp"}, {"var": "time"}]}, "past",
                {"<": [{"var": "$flagd.timestamp"}, {"var": "time"}]}, "future", "none"]}},
        "null-variant": numbers(json!({"if": [true, null, "one"]})),
        "unknown-operator": numbers(json!({"invalid": ["x"]})),
        "missing-variant": numbers(json!({"if": [true, "three", "one"]})),
        "null-targeting": numbers(json!(null)),
        "boolean-variant": words(json!({"if": [true, true, false]})),
        "empty-targeting": words(json!({})),
    })
}

fn read(flags: &Value, bucketing: BucketingVersion) -> FlagSet {
    let definitions = json!({
        "flags": flags,
        "$evaluators": {"is_director": {"==": ["director@example.com", {"var": ["email"]}]}},
    })
    .to_string();
    let details = FlagSetDetails {
        bucketing,
        ..FlagSetDetails::default()
    };
    FlagSet::read(&FlagSetSource {
        definitions: &definitions,
        details: Some(&details),
        strictness: FlagFileStrictness::Lenient,
    })
    .unwrap()
}

fn context(attributes: Value) -> EvaluationContext {
    EvaluationContext::from_value(attributes, NOW).unwrap()
}

fn variant_of(set: &FlagSet, flag: &str, attributes: Value) -> String {
    let context = context(attributes);
    match set.evaluate(flag, &context) {
        Ok(evaluation) => evaluation.variant.unwrap_or("<none>").to_owned(),
        Err(error) => error.code.to_string(),
    }
}

#[test]
fn values_of_each_type_are_resolved_unchanged() {
    let set = read(&rule_flags(), BucketingVersion::V2);
    for (flag, value) in [
        ("boolean", json!(true)),
        ("string", json!("hi")),
        ("integer", json!(10)),
        ("float", json!(0.5)),
        ("object", json!({"title": "Pictures", "count": 100})),
        ("zero-boolean", json!(false)),
        ("zero-string", json!("")),
        ("zero-integer", json!(0)),
        ("zero-float", json!(0.0)),
        ("large", json!(2_147_483_647)),
        ("huge", json!(9_007_199_254_740_991u64)),
        ("integral-float", json!(10.0)),
    ] {
        let evaluation = set.evaluate(flag, &EvaluationContext::new(NOW)).unwrap();
        assert_eq!(evaluation.value, Some(&value), "{flag}");
        assert_eq!(
            evaluation.value.map(Value::to_string),
            Some(value.to_string())
        );
        assert_eq!(evaluation.reason, EvaluationReason::Static, "{flag}");
    }
}

/// The code of asking for the flag as `T`.
fn typed_code<'f, T: FlagValue<'f>>(set: &'f FlagSet, flag: &str) -> Option<EvaluationErrorCode> {
    let evaluation: Result<FlagEvaluation<'f>, _> =
        set.evaluate(flag, &EvaluationContext::new(NOW));
    evaluation
        .and_then(|evaluation| evaluation.typed_value::<T>())
        .err()
        .map(|error| error.code)
}

#[test]
fn a_value_of_another_type_is_an_error() {
    let set = read(&rule_flags(), BucketingVersion::V2);
    let mismatch = Some(EvaluationErrorCode::TypeMismatch);
    for flag in ["boolean", "integer", "float", "object"] {
        assert_eq!(typed_code::<&str>(&set, flag), mismatch, "{flag} as string");
    }
    for flag in ["boolean", "string", "object", "float"] {
        assert_eq!(typed_code::<i64>(&set, flag), mismatch, "{flag} as integer");
    }
    for flag in ["boolean", "string", "object"] {
        assert_eq!(typed_code::<f64>(&set, flag), mismatch, "{flag} as float");
    }
    for flag in ["string", "integer", "float", "object"] {
        assert_eq!(
            typed_code::<bool>(&set, flag),
            mismatch,
            "{flag} as boolean"
        );
    }
    assert_eq!(typed_code::<i64>(&set, "integral-float"), None);
    assert_eq!(typed_code::<f64>(&set, "integer"), None);
    assert_eq!(typed_code::<bool>(&set, "disabled"), None);
    let missing = Some(EvaluationErrorCode::FlagNotFound);
    assert_eq!(typed_code::<bool>(&set, "missing"), missing);
}

#[test]
fn a_disabled_flag_and_one_without_default_leave_the_value_to_the_caller() {
    let set = read(&rule_flags(), BucketingVersion::V2);
    for (flag, email, variant, reason) in [
        ("disabled", "", None, EvaluationReason::Disabled),
        ("null-default", "", None, EvaluationReason::Default),
        ("no-default", "", None, EvaluationReason::Default),
        (
            "no-default-null",
            "wozniak@example.com",
            None,
            EvaluationReason::Default,
        ),
        (
            "no-default-open",
            "wozniak@example.com",
            None,
            EvaluationReason::Default,
        ),
        (
            "no-default-null",
            "jobs@example.com",
            Some("special"),
            EvaluationReason::TargetingMatch,
        ),
    ] {
        let context = context(json!({ "email": email }));
        let evaluation = set.evaluate(flag, &context).unwrap();
        assert_eq!(
            (evaluation.variant, evaluation.reason),
            (variant, reason),
            "{flag}"
        );
        assert_eq!(evaluation.value.is_some(), variant.is_some());
    }
    assert!(!set.value_or("boolean-that-is-missing", &context(json!({})), false));
    assert_eq!(set.value_or("no-default", &context(json!({})), 100), 100);
}

#[test]
fn rules_give_the_variants_that_flagd_gives() {
    let set = read(&rule_flags(), BucketingVersion::V2);
    for (flag, attributes, expected) in [
        ("targeting-key", json!({"targetingKey": "5c3d"}), "hit"),
        ("targeting-key", json!({"targetingKey": "f20b"}), "miss"),
        ("edges", json!({"id": "abcdef"}), "prefix"),
        ("edges", json!({"id": "uvwxyz"}), "postfix"),
        ("edges", json!({"id": "abcxyz"}), "prefix"),
        ("edges", json!({"id": "lmnopq"}), "none"),
        ("edges", json!({"id": "3"}), "none"),
        ("start-of-number", json!({"num": 123}), "fallback"),
        ("end-of-number", json!({"num": 123}), "fallback"),
        ("start-of-nothing", json!({}), "fallback"),
        ("end-of-nothing", json!({}), "fallback"),
        ("version-order", json!({"version": "2.0.0"}), "equal"),
        ("version-order", json!({"version": "2.1.0"}), "greater"),
        ("version-order", json!({"version": "1.9.0"}), "lesser"),
        ("version-order", json!({"version": "2.0.0-alpha"}), "lesser"),
        ("version-order", json!({"version": "2.0.0.0"}), "none"),
        ("version-range", json!({"version": "3.0.1"}), "minor"),
        ("version-range", json!({"version": "3.1.0"}), "major"),
        ("version-range", json!({"version": "4.0.0"}), "none"),
        ("version-prefix", json!({"version": "1.0.0"}), "true"),
        ("version-prefix", json!({"version": "v1.0.0"}), "true"),
        ("version-prefix", json!({"version": "V1.0.0"}), "true"),
        ("version-prefix", json!({"version": "2.0.0"}), "false"),
        ("version-partial", json!({"version": "1.5.0"}), "true"),
        ("version-partial", json!({"version": "1.0"}), "true"),
        ("version-partial", json!({"version": "1"}), "true"),
        ("version-partial", json!({"version": 1}), "true"),
        ("version-partial", json!({"version": 1.2}), "true"),
        ("version-partial", json!({"version": "2.0.0"}), "false"),
        ("version-number", json!({"version": 1.2}), "true"),
        ("version-number", json!({"version": 1.1}), "false"),
        ("version-number", json!({"version": 2}), "true"),
        ("version-number", json!({"version": 1}), "false"),
        ("version-number", json!({"version": "1.2"}), "true"),
        ("version-build", json!({"version": "1.0.0"}), "true"),
        ("version-build", json!({"version": "1.0.0+other"}), "true"),
        ("version-build", json!({"version": "2.0.0"}), "false"),
        (
            "version-invalid",
            json!({"version": "not-a-version"}),
            "fallback",
        ),
        ("version-operator", json!({"version": "1.0.0"}), "fallback"),
        ("version-arguments", json!({"version": "1.0.0"}), "fallback"),
        ("ref-1", json!({"email": "director@example.com"}), "hi"),
        ("ref-2", json!({"email": "director@example.com"}), "yes"),
        ("ref-1", json!({"email": "user@example.com"}), "bye"),
        ("ref-unknown", json!({}), "PARSE_ERROR"),
        ("time", json!({"time": 1}), "past"),
        ("time", json!({"time": 4_133_980_802u64}), "future"),
        (
            "time",
            json!({"time": 1, "$flagd": {"timestamp": 0, "flagKey": "x"}}),
            "past",
        ),
        ("null-variant", json!({}), "two"),
        ("unknown-operator", json!({}), "PARSE_ERROR"),
        ("missing-variant", json!({}), "GENERAL"),
        ("null-targeting", json!({}), "two"),
        ("boolean-variant", json!({}), "true"),
        ("empty-targeting", json!({}), "false"),
    ] {
        let shown = attributes.to_string();
        assert_eq!(
            variant_of(&set, flag, attributes),
            expected,
            "{flag} {shown}"
        );
    }
}

#[test]
fn fallbacks_say_default_and_matches_say_which() {
    let set = read(&rule_flags(), BucketingVersion::V2);
    for (flag, attributes, reason) in [
        (
            "version-invalid",
            json!({"version": "x"}),
            EvaluationReason::Default,
        ),
        (
            "start-of-number",
            json!({"num": 123}),
            EvaluationReason::Default,
        ),
        (
            "targeting-key",
            json!({"targetingKey": "f20b"}),
            EvaluationReason::Default,
        ),
        (
            "targeting-key",
            json!({"targetingKey": "5c3d"}),
            EvaluationReason::TargetingMatch,
        ),
        ("empty-targeting", json!({}), EvaluationReason::Static),
    ] {
        let context = context(attributes);
        assert_eq!(
            set.evaluate(flag, &context).unwrap().reason,
            reason,
            "{flag}"
        );
    }
    let split = read(&split_flags(), BucketingVersion::V2);
    let user = context(json!({"targetingKey": "user"}));
    let evaluation = split.evaluate("single", &user).unwrap();
    assert_eq!(evaluation.reason, EvaluationReason::Split);
    let nobody = context(json!({}));
    let evaluation = split.evaluate("single", &nobody).unwrap();
    assert_eq!(
        (evaluation.variant, evaluation.reason),
        (Some("other"), EvaluationReason::Default)
    );
}

#[test]
fn version_2_of_bucketing_hashes_strings() {
    let set = read(&split_flags(), BucketingVersion::V2);
    let name = |name: &str| json!({"user": {"name": name}});
    let key = |key: &str| json!({ "targetingKey": key });
    let tier = |key: &str, tier: &str| json!({"targetingKey": key, "tier": tier});
    let color = |key: &str, color: &str| json!({"targetingKey": key, "color": color});
    for (flag, attributes, expected) in [
        ("fractional-flag", name("jack"), "hearts"),
        ("fractional-flag", name("queen"), "spades"),
        ("fractional-flag", name("ten"), "clubs"),
        ("fractional-flag", name("nine"), "diamonds"),
        ("fractional-flag", name("3"), "clubs"),
        ("fractional-flag-shorthand", key("jon@company.com"), "heads"),
        (
            "fractional-flag-shorthand",
            key("jane@company.com"),
            "tails",
        ),
        ("seed-a", name("seven"), "hearts"),
        ("seed-a", name("eight"), "diamonds"),
        ("seed-b", name("nine"), "clubs"),
        ("seed-b", name("two"), "spades"),
        ("edge", key("ejOoVL"), "lower"),
        ("edge", key("bY9fO-"), "lower"),
        ("edge", key("SI7p-"), "lower"),
        ("edge", key("6LvT0"), "upper"),
        ("edge", key("ceQdGm"), "upper"),
        ("single", key("some-targeting-key"), "single"),
        ("nested-if", tier("jon@company.com", "premium"), "premium"),
        ("nested-if", tier("jon@company.com", "basic"), "standard"),
        ("nested-if", tier("user1", "premium"), "standard"),
        ("nested-var", color("jon@company.com", "red"), "red"),
        ("nested-var", color("jon@company.com", "green"), "green"),
        ("nested-var", color("user1", "red"), "blue"),
        // In flagd's scenarios the caller's default is `fallback` as well: the error and the default look alike there.
        ("nested-var", color("jon@company.com", "yellow"), "GENERAL"),
        ("nested-var", key("jon@company.com"), "fallback"),
        ("nested-weight", tier("jon@company.com", "premium"), "red"),
        ("nested-weight", tier("jon@company.com", "basic"), "blue"),
        ("nested-weight", tier("user1", "premium"), "red"),
        ("nested-weight", tier("user1", "basic"), "blue"),
        ("condition-true", key("some-targeting-key"), "true"),
        ("condition-false", key("some-targeting-key"), "false"),
        ("no-subject", json!({}), "fallback"),
        ("no-weights", key("any-user"), "fallback"),
        ("negative-weight", key("any-user"), "two"),
        ("edge", key(""), "lower"),
        ("any-input", json!({"input": 5}), "bucket1"),
    ] {
        let shown = attributes.to_string();
        assert_eq!(
            variant_of(&set, flag, attributes),
            expected,
            "{flag} {shown}"
        );
    }
}

#[test]
fn version_3_of_bucketing_hashes_cbor() {
    let set = read(&split_flags(), BucketingVersion::V3);
    let name = |name: &str| json!({"user": {"name": name}});
    let key = |key: Value| json!({ "targetingKey": key });
    for (flag, attributes, expected) in [
        ("fractional-flag", name("jack"), "diamonds"),
        ("fractional-flag", name("queen"), "diamonds"),
        ("fractional-flag", name("ten"), "clubs"),
        ("fractional-flag", name("nine"), "clubs"),
        ("fractional-flag", name("3"), "spades"),
        ("seed-a", name("seven"), "hearts"),
        ("seed-a", name("eight"), "hearts"),
        ("seed-b", name("nine"), "diamonds"),
        ("seed-b", name("two"), "diamonds"),
        (
            "fractional-flag-shorthand",
            key(json!("jon@company.com")),
            "tails",
        ),
        (
            "fractional-flag-shorthand",
            key(json!("jane@company.com")),
            "tails",
        ),
        ("fractional-flag-shorthand", key(json!("user-1")), "heads"),
        ("fractional-flag-shorthand", key(json!("user-2")), "tails"),
        ("fractional-flag-shorthand", key(json!("user-3")), "heads"),
        (
            "fractional-flag-shorthand",
            json!({"irrelevant": "none"}),
            "draw",
        ),
        ("no-subject", json!({}), "fallback"),
    ] {
        let shown = attributes.to_string();
        assert_eq!(
            variant_of(&set, flag, attributes),
            expected,
            "{flag} {shown}"
        );
    }
    // A client can't send these: `EvaluationContext::from_value` refuses them.
    for targeting_key in [json!(12345), json!(true)] {
        let context = EvaluationContext::new(NOW).with_attribute("targetingKey", targeting_key);
        let evaluation = set.evaluate("fractional-flag-shorthand", &context).unwrap();
        assert_eq!(evaluation.variant, Some("draw"));
    }
}

#[test]
fn version_3_of_bucketing_takes_any_value_but_an_array() {
    let set = read(&split_flags(), BucketingVersion::V3);
    let vectors = include_str!("bucketing_v3_vectors.txt");
    let mut count = 0;
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        let (bucket, input) = line.split_once(' ').unwrap();
        let input: Value = serde_json::from_str(input).unwrap();
        let context = EvaluationContext::new(NOW).with_attribute("input", input);
        let evaluation = set.evaluate("any-input", &context).unwrap();
        assert_eq!(
            evaluation.variant,
            Some(format!("bucket{bucket}").as_str()),
            "{line}"
        );
        assert_eq!(evaluation.reason, EvaluationReason::Split, "{line}");
        count += 1;
    }
    assert!(count >= 95, "{count}");
    let array = EvaluationContext::new(NOW).with_attribute("input", json!([1]));
    let evaluation = set.evaluate("any-input", &array).unwrap();
    assert_eq!(evaluation.reason, EvaluationReason::Default);
}

#[test]
fn metadata_of_a_flag_wins_over_its_sets() {
    let file = json!({
        "metadata": {"team": "shop", "rank": 1, "beta": false},
        "flags": {
            "own": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on", "metadata": {"rank": 2, "ratio": 0.1}},
            "plain": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"},
        },
    });
    let set = FlagSet::parse(&file.to_string()).unwrap();
    let metadata = |flag| {
        let evaluation = set.evaluate(flag, &EvaluationContext::new(NOW)).unwrap();
        Value::Object(evaluation.metadata.clone())
    };
    assert_eq!(
        metadata("own"),
        json!({"team": "shop", "rank": 2, "beta": false, "ratio": 0.1})
    );
    assert_eq!(
        metadata("plain"),
        json!({"team": "shop", "rank": 1, "beta": false})
    );
}
