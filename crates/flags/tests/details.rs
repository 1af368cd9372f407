//! Shipway's own facts: prerequisites, segments, kinds, expiry; and sets that are replaced in use.

use std::sync::Arc;

use jiff::civil::date;
use serde_json::{Value, json};
use shipway_flags::{
    BucketingVersion, EvaluationContext, EvaluationReason, FlagFileError, FlagFileStrictness,
    FlagKind, FlagSet, FlagSetDetails, FlagSetHandle, FlagSetSource,
};

fn flag(targeting: Value) -> Value {
    json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on", "targeting": targeting})
}

fn read(flags: &Value, details: &Value) -> Result<FlagSet, FlagFileError> {
    let details = FlagSetDetails::parse(&details.to_string()).unwrap();
    FlagSet::read(&FlagSetSource {
        definitions: &json!({ "flags": flags }).to_string(),
        details: Some(&details),
        strictness: FlagFileStrictness::Strict,
    })
}

fn problem_of(flags: &Value, details: &Value) -> String {
    read(flags, details).unwrap_err().to_string()
}

#[test]
fn a_flag_whose_prerequisite_is_not_met_gives_its_unmet_variant() {
    let is_beta = json!({"if": [{"var": "beta"}, "on", "off"]});
    let flags =
        json!({"cart": flag(is_beta), "checkout": flag(json!({})), "payment": flag(json!({}))});
    let requires = |flag: &str| json!([{"flag": flag, "variants": ["on"]}]);
    let details = json!({"flags": {
        "checkout": {"prerequisites": requires("cart"), "unmetVariant": "off"},
        "payment": {"prerequisites": requires("checkout"), "unmetVariant": "off"},
    }});
    let set = read(&flags, &details).unwrap();
    let beta = EvaluationContext::new(0).with_attribute("beta", true);
    let met = set.evaluate("payment", &beta).unwrap();
    assert_eq!(
        (met.variant, met.reason),
        (Some("on"), EvaluationReason::Default)
    );
    assert_eq!(met.unmet_prerequisite, None);
    let others = EvaluationContext::new(0);
    let unmet = set.evaluate("payment", &others).unwrap();
    assert_eq!(
        (unmet.variant, unmet.reason),
        (Some("off"), EvaluationReason::Default)
    );
    assert_eq!(unmet.unmet_prerequisite, Some("checkout"));
    let checkout = set.evaluate("checkout", &others).unwrap();
    assert_eq!(checkout.unmet_prerequisite, Some("cart"));
}

#[test]
fn a_prerequisite_that_is_disabled_is_not_met() {
    let mut flags = json!({"a": flag(json!({})), "b": flag(json!({}))});
    flags["a"]["state"] = json!("DISABLED");
    let details = json!({"flags": {"b": {"prerequisites": [{"flag": "a", "variants": ["on"]}], "unmetVariant": "off"}}});
    let set = read(&flags, &details).unwrap();
    assert!(!set.value_or("b", &EvaluationContext::new(0), true));
}

#[test]
fn prerequisites_must_exist_and_lead_to_no_cycle() {
    let flags = json!({"a": flag(json!({})), "b": flag(json!({})), "c": flag(json!({}))});
    let one = |prerequisites: Value| json!({"flags": {"a": {"prerequisites": prerequisites}}});
    for (details, expected) in [
        (
            one(json!([{"flag": "bb", "variants": ["on"]}])),
            "details: /flags/a/prerequisites/0: there is no flag `bb`; did you mean `b`?",
        ),
        (
            one(json!([{"flag": "b", "variants": []}])),
            "details: /flags/a/prerequisites/0: a prerequisite must list the variants of `b` that meet it",
        ),
        (
            one(json!([{"flag": "b", "variants": ["no"]}])),
            "details: /flags/a/prerequisites/0: `no` is none of the flag's variants; did you mean `on`?",
        ),
        (
            one(json!([{"flag": "a", "variants": ["on"]}])),
            "details: /flags/a: prerequisites lead back to the flag itself: a → a",
        ),
        (
            json!({"flags": {"a": {"unmetVariant": "no"}}}),
            "details: /flags/a/unmetVariant: `no` is none of the flag's variants; did you mean `on`?",
        ),
        (
            json!({"flags": {"aa": {}}}),
            "details: /flags/aa: there is no flag `aa`; did you mean `a`?",
        ),
        (
            json!({"flags": {"a": {"kind": "release"}}}),
            "details: /flags/a: a release flag must expire; set `expires` to a date, or use another kind",
        ),
    ] {
        assert_eq!(problem_of(&flags, &details), expected);
    }
    let on = |flag: &str| json!({"prerequisites": [{"flag": flag, "variants": ["on"]}]});
    let cycle = json!({"flags": {"a": on("b"), "b": on("c"), "c": on("a")}});
    assert!(
        problem_of(&flags, &cycle)
            .contains("prerequisites lead back to the flag itself: a → b → c → a")
    );

    let chain = |length: usize| {
        let name = |number: usize| format!("flag-{number}");
        let flags: serde_json::Map<String, Value> = (0..length)
            .map(|number| (name(number), flag(json!({}))))
            .collect();
        let details: serde_json::Map<String, Value> = (1..length)
            .map(|number| (name(number), on(&name(number - 1))))
            .collect();
        read(&Value::Object(flags), &json!({ "flags": details }))
    };
    assert!(chain(16).is_ok());
    assert!(
        chain(17)
            .unwrap_err()
            .to_string()
            .contains("a chain of more than 16 flags")
    );
    assert!(
        chain(20_000)
            .unwrap_err()
            .to_string()
            .contains("a chain of more than 16 flags")
    );
}

#[test]
fn a_shared_prerequisite_is_not_evaluated_without_end() {
    let name = |level: usize, side: usize| format!("f-{level}-{side}");
    let mut flags = serde_json::Map::new();
    let mut details = serde_json::Map::new();
    for level in 0..16 {
        for side in 0..30 {
            flags.insert(name(level, side), flag(json!({"if": [true, "on"]})));
            let below: Vec<Value> = (0..if level == 0 { 0 } else { 30 })
                .map(|side| json!({"flag": name(level - 1, side), "variants": ["on"]}))
                .collect();
            details.insert(
                name(level, side),
                json!({ "prerequisites": below, "unmetVariant": "off" }),
            );
        }
    }
    let set = read(&Value::Object(flags), &json!({ "flags": details })).unwrap();
    let context = EvaluationContext::new(0);
    assert!(set.evaluate(&name(2, 0), &context).unwrap().variant == Some("on"));
    let error = set.evaluate(&name(15, 0), &context).unwrap_err();
    assert!(error.message.contains("too many steps"), "{error}");
}

#[test]
fn segments_are_rules_that_flags_refer_to() {
    let rule = json!({"if": [{"$ref": "staff"}, "on", "off"]});
    let flags = json!({"a": flag(rule.clone())});
    let segments =
        json!({"segments": {"staff": {"ends_with": [{"var": "email"}, "@example.com"]}}});
    let set = read(&flags, &segments).unwrap();
    let staff = EvaluationContext::new(0).with_attribute("email", "ada@example.com");
    assert!(set.value_or("a", &staff, false));
    assert_eq!(
        problem_of(&flags, &json!({"segments": {"staff": {"end_with": []}}})),
        "details: /segments/staff/end_with: unknown operator `end_with`; did you mean `ends_with`?"
    );
    let file =
        json!({"flags": {"a": flag(rule)}, "$evaluators": {"staff": {"!": [false]}}}).to_string();
    let details = FlagSetDetails::parse(&segments.to_string()).unwrap();
    let source = FlagSetSource {
        definitions: &file,
        details: Some(&details),
        strictness: FlagFileStrictness::Strict,
    };
    let error = FlagSet::read(&source).unwrap_err();
    assert_eq!(
        error.to_string(),
        "details: /segments/staff: `staff` is an evaluator of the flag file too; rename the segment"
    );
}

#[test]
fn suggestions_cost_little_in_large_sets() {
    let flags: serde_json::Map<String, Value> = (0..20_000)
        .map(|number| (format!("flag-{number}"), flag(json!({}))))
        .collect();
    let details: serde_json::Map<String, Value> = (0..20_000)
        .map(|number| (format!("flog-{number}"), json!({})))
        .collect();
    let error = read(&Value::Object(flags), &json!({ "flags": details })).unwrap_err();
    assert_eq!(error.unreported, 20_000 - error.diagnostics.len());
    assert!(
        error
            .to_string()
            .contains("there is no flag `flog-0`; did you mean `flag-0`?")
    );
}

#[test]
fn details_are_read_strictly_and_written_back() {
    let text = r#"{"bucketing":"v2","flags":{"a":{"kind":"release","owner":"shop","expires":"2027-01-31"}}}"#;
    let details = FlagSetDetails::parse(text).unwrap();
    assert_eq!(details.bucketing, BucketingVersion::V2);
    let flag = &details.flags["a"];
    assert_eq!(
        (flag.kind, flag.owner.as_deref()),
        (Some(FlagKind::Release), Some("shop"))
    );
    assert!(!flag.is_expired(date(2027, 1, 31)));
    assert!(flag.is_expired(date(2027, 2, 1)));
    assert_eq!(serde_json::to_string(&details).unwrap(), text);
    for (text, expected) in [
        (
            "{\"flags\": {\n\"a\": {\"ownr\": \"x\"}}}",
            "2:12: invalid JSON: unknown field `ownr`",
        ),
        (r#"{"flags": {"a": {"expires": "soon"}}}"#, "invalid JSON"),
        (
            r#"{"flags": {"a": {}, "a": {}}}"#,
            "the key `a` is there twice",
        ),
        (r#"{"bucketing": "v1"}"#, "unknown variant `v1`"),
    ] {
        let error = FlagSetDetails::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_bad_file_and_another_bucketing_leave_the_last_good_set_in_use() {
    let file = |default: &str| {
        format!(
            r#"{{"flags": {{"a": {{"state": "ENABLED", "variants": {{"on": true, "off": false}}, "defaultVariant": "{default}"}}}}}}"#
        )
    };
    let handle = FlagSetHandle::new(FlagSet::parse(&file("off")).unwrap());
    let is_on = || {
        handle
            .current()
            .value_or("a", &EvaluationContext::new(0), false)
    };
    let request = handle.current();
    handle.reload(&source(&file("on"))).unwrap();
    assert!(is_on());
    assert!(
        !request.value_or("a", &EvaluationContext::new(0), true),
        "a request keeps its set"
    );
    for bad in ["", "{", &file("of"), &file("on")[..40]] {
        assert!(handle.reload(&source(bad)).is_err());
        assert!(is_on());
    }
    let details = FlagSetDetails {
        bucketing: BucketingVersion::V2,
        ..FlagSetDetails::default()
    };
    let good = file("off");
    let other = FlagSetSource {
        details: Some(&details),
        ..source(&good)
    };
    let error = handle.reload(&other).unwrap_err();
    assert!(
        error.to_string().contains("set `bucketing` to v3"),
        "{error}"
    );
    assert!(is_on());
    handle.replace(Arc::new(FlagSet::read(&other).unwrap()));
    assert!(!is_on());
}

fn source(definitions: &str) -> FlagSetSource<'_> {
    FlagSetSource {
        definitions,
        details: None,
        strictness: FlagFileStrictness::Strict,
    }
}
