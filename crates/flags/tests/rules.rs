//! JsonLogic's operators, by what they give for a context; and what no input may do.

use proptest::prelude::*;
use serde_json::{Value, json};
use shipway_flags::{
    BucketingVersion, EvaluationContext, EvaluationErrorCode, EvaluationReason, FlagFileStrictness,
    FlagSet, FlagSetDetails, FlagSetSource,
};

fn read_leniently(definitions: &str) -> Option<FlagSet> {
    FlagSet::read(&FlagSetSource {
        definitions,
        details: None,
        strictness: FlagFileStrictness::Lenient,
    })
    .ok()
}

fn rule_file(rule: &Value) -> String {
    json!({"flags": {"f": {"state": "ENABLED", "variants": {"true": 1, "false": 2}, "targeting": rule}}}).to_string()
}

/// Whether `rule` gives `expected` for `data`.
fn gives(rule: &Value, data: &Value, expected: &Value) -> bool {
    let set = read_leniently(&rule_file(&json!({"===": [rule, expected]}))).unwrap();
    let context = EvaluationContext::from_value(data.clone(), 1_000).unwrap();
    set.evaluate("f", &context).unwrap().variant == Some("true")
}

#[test]
fn operators_compute_as_json_logic_says() {
    let data = json!({"a": 1, "b": {"c": "x", "d": [10, {"e": 7}]}, "n": null, "s": "Ärger", "list": [1, 2, 3, 4],
        "people": [{"name": "Ada", "age": 36}, {"name": "Max", "age": 17}]});
    for (rule, expected) in [
        (json!({"var": "a"}), json!(1)),
        (json!({"var": ["b.c"]}), json!("x")),
        (json!({"var": "b.d.1.e"}), json!(7)),
        (json!({"var": ["z", 26]}), json!(26)),
        (json!({"var": ["n", 26]}), json!(null)),
        (json!({"var": {"cat": ["b", ".", "c"]}}), json!("x")),
        (json!({"!!": [{"var": [{"var": "z"}, 1]}]}), json!(true)),
        (json!({"missing": ["a", "z", "n"]}), json!(["z", "n"])),
        (json!({"missing": {"merge": [["a"], "q"]}}), json!(["q"])),
        (json!({"missing_some": [1, ["a", "z"]]}), json!([])),
        (
            json!({"missing_some": [2, ["a", "y", "z"]]}),
            json!(["y", "z"]),
        ),
        (json!({"if": [false, 1, 0, 2, "", 3, 4]}), json!(4)),
        (json!({"if": ["x"]}), json!("x")),
        (json!({"if": [[], 1, 2]}), json!(2)),
        (json!({"if": ["0", 1, 2]}), json!(1)),
        (json!({"and": [1, "", 3]}), json!("")),
        (json!({"or": [0, "", "z"]}), json!("z")),
        (json!({"!": [[]]}), json!(true)),
        (json!({"!!": "false"}), json!(true)),
        (json!({"==": [1, "1"]}), json!(true)),
        (json!({"!==": [1, "1"]}), json!(true)),
        (json!({"<": [1, 5, 10]}), json!(true)),
        (json!({"<=": [1, 11, 10]}), json!(false)),
        (json!({">": ["b", "a"]}), json!(true)),
        (json!({">": ["10", 9]}), json!(true)),
        (json!({"<": ["x", 9]}), json!(false)),
        (json!({"+": [1, "2", "3.5kg"]}), json!(6.5)),
        (json!({"+": ["x"]}), json!(null)),
        (json!({"-": [2]}), json!(-2)),
        (json!({"-": ["5", 3]}), json!(2)),
        (json!({"*": [2, 3, 4]}), json!(24)),
        (json!({"/": [1, 0]}), json!(null)),
        (json!({"%": [101, 2]}), json!(1)),
        (json!({"max": [1, "7", 3]}), json!(7)),
        (json!({"min": [{"var": "list"}, 1]}), json!(null)),
        (json!({"in": ["Spring", "Springfield"]}), json!(true)),
        (json!({"in": ["x", ["x", "y"]]}), json!(true)),
        (json!({"in": [1, ["1"]]}), json!(false)),
        (json!({"in": ["x", 5]}), json!(false)),
        (
            json!({"cat": ["a", 1, null, true, [1, [2]]]}),
            json!("a1true1,2"),
        ),
        (json!({"substr": [{"var": "s"}, -3]}), json!("ger")),
        (json!({"substr": [{"var": "s"}, 1, 2]}), json!("rg")),
        (json!({"substr": [{"var": "s"}, 0, -2]}), json!("Ärg")),
        (json!({"substr": ["abc", 9, 1]}), json!("")),
        (json!({"lower": "ÄBC"}), json!("Äbc")),
        (json!({"upper": ["äbc"]}), json!("äBC")),
        (json!({"merge": [[1, 2], 3, [[4]]]}), json!([1, 2, 3, [4]])),
        (
            json!({"map": [{"var": "list"}, {"*": [{"var": ""}, 2]}]}),
            json!([2, 4, 6, 8]),
        ),
        (
            json!({"filter": [{"var": "list"}, {"%": [{"var": ""}, 2]}]}),
            json!([1, 3]),
        ),
        (
            json!({"reduce": [{"var": "list"}, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 0]}),
            json!(10),
        ),
        (
            json!({"all": [{"var": "people"}, {">": [{"var": "age"}, 18]}]}),
            json!(false),
        ),
        (
            json!({"some": [{"var": "people"}, {">": [{"var": "age"}, 18]}]}),
            json!(true),
        ),
        (
            json!({"none": [{"var": "people"}, {">": [{"var": "age"}, 99]}]}),
            json!(true),
        ),
        (json!({"all": [[], true]}), json!(false)),
        (json!({"none": [{"var": "z"}, true]}), json!(true)),
        (json!({"var": "$flagd.timestamp"}), json!(1000)),
        (json!({"var": "$flagd.flagKey"}), json!("f")),
    ] {
        assert!(
            gives(&rule, &data, &expected),
            "{rule} should give {expected}"
        );
    }
}

#[test]
fn a_caller_sends_no_flagd_properties() {
    let data = json!({"$flagd": {"flagKey": "x", "timestamp": 5, "other": 1}});
    for (path, expected) in [
        ("$flagd.timestamp", json!(1000)),
        ("$flagd.flagKey", json!("f")),
        ("$flagd.other", json!(null)),
    ] {
        assert!(gives(&json!({"var": [path]}), &data, &expected), "{path}");
    }
}

#[test]
fn a_rule_that_explodes_ends_with_an_error() {
    let doubled = json!({"cat": [{"var": "accumulator"}, {"var": "accumulator"}]});
    let merged = json!({"merge": [{"var": "accumulator"}, {"var": "accumulator"}]});
    let squared = json!({"map": [{"var": "many"}, {"map": [[1, 2, 3, 4, 5, 6, 7, 8, 9], 1]}]});
    let mut evaluators = serde_json::Map::new();
    evaluators.insert("0".to_owned(), json!(false));
    for number in 1..30 {
        let reference = json!({"$ref": (number - 1).to_string()});
        evaluators.insert(number.to_string(), json!({"or": [reference, reference]}));
    }
    for rule in [
        json!({"reduce": [{"var": "many"}, doubled, "x"]}),
        json!({"reduce": [{"var": "many"}, merged, [1]]}),
        squared,
        json!({"or": [{"$ref": "29"}]}),
    ] {
        let file = json!({"$evaluators": evaluators, "flags": {"f": {"state": "ENABLED", "variants": {"on": 1}, "targeting": rule}}});
        let set = read_leniently(&file.to_string()).unwrap();
        let many = json!({"many": vec![0; 100_000]});
        let context = EvaluationContext::from_value(many, 0).unwrap();
        let error = set.evaluate("f", &context).unwrap_err();
        assert_eq!(error.code, EvaluationErrorCode::General, "{rule}");
        assert!(
            error.message.contains("too many steps"),
            "{rule}: {}",
            error.message
        );
    }
}

/// What a loop reads is paid for by its size, not by how often it is named.
#[test]
fn large_values_in_loops_end_an_evaluation_soon() {
    let accumulator = json!({"var": "accumulator"});
    let long = json!({"cat": [{"var": "long"}, "x"]});
    let is_same = json!({"==": [accumulator, accumulator]});
    for rule in [
        json!({"reduce": [{"var": "many"}, accumulator, long]}),
        json!({"reduce": [{"var": "many"}, {"if": [is_same, accumulator, 0]}, {"var": "many"}]}),
        json!({"reduce": [{"var": "many"}, {"if": [is_same, accumulator, 0]}, {"merge": [{"var": "many"}, 1]}]}),
        json!({"reduce": [{"var": "many"}, {"merge": [[accumulator]]}, {"map": [{"var": "many"}, [1]]}]}),
        json!({"reduce": [{"var": "many"}, {"if": [{"missing": [accumulator]}, accumulator, accumulator]}, long]}),
    ] {
        let set = read_leniently(&rule_file(&rule)).unwrap();
        let data = json!({"many": vec![0; 50_000], "long": "x".repeat(400_000)});
        let context = EvaluationContext::from_value(data, 0).unwrap();
        let error = set.evaluate("f", &context).unwrap_err();
        assert!(
            error.message.contains("too many steps"),
            "{rule}: {}",
            error.message
        );
    }
}

#[test]
fn a_bulk_evaluation_has_a_bound_of_its_own() {
    let rule = json!({"some": [{"var": "many"}, {"==": [{"var": ""}, 1]}]});
    let flag = json!({"state": "ENABLED", "variants": {"true": 1, "false": 2}, "targeting": rule});
    let flags: serde_json::Map<String, Value> = (0..1_000)
        .map(|number| (number.to_string(), flag.clone()))
        .collect();
    let set = FlagSet::parse(&json!({ "flags": flags }).to_string()).unwrap();
    let context = EvaluationContext::from_value(json!({"many": vec![0; 50_000]}), 0).unwrap();
    let results: Vec<bool> = set
        .evaluate_all(&context)
        .map(|(_, result)| result.is_ok())
        .collect();
    assert_eq!(results.len(), 1_000);
    assert!(results[0] && !results[999]);
    assert!(set.evaluate("999", &context).is_ok());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-5..5i64).prop_map(Value::from),
        "[a-z$. 0-9é]{0,6}".prop_map(Value::from),
        prop_oneof![
            Just("targetingKey"),
            Just("a.b"),
            Just("1.2.3"),
            Just("^"),
            Just("$flagd.flagKey"),
            Just("r")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let operator = prop::sample::select(vec![
            "var",
            "missing",
            "missing_some",
            "if",
            "and",
            "or",
            "!",
            "!!",
            "==",
            "!=",
            "===",
            "!==",
            "<",
            "<=",
            ">",
            ">=",
            "+",
            "-",
            "*",
            "/",
            "%",
            "min",
            "max",
            "in",
            "cat",
            "substr",
            "merge",
            "map",
            "filter",
            "all",
            "some",
            "none",
            "reduce",
            "starts_with",
            "ends_with",
            "lower",
            "upper",
            "sem_ver",
            "fractional",
            "$ref",
            "nope",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            (operator, prop::collection::vec(inner.clone(), 0..5))
                .prop_map(|(name, arguments)| json!({ name: arguments })),
            prop::collection::vec(("[a-c]", inner), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_rule_and_no_context_panics(rule in json_value(), named in json_value(), data in json_value(), key in ".{0,8}") {
        let file = json!({"$evaluators": {"r": named}, "flags": {"f": {"state": "ENABLED", "variants": {"true": 1}, "targeting": rule}}}).to_string();
        let _ = FlagSet::parse(&file).map_err(|error| error.to_string());
        for bucketing in [BucketingVersion::V2, BucketingVersion::V3] {
            let details = FlagSetDetails { bucketing, ..FlagSetDetails::default() };
            let source = FlagSetSource { definitions: &file, details: Some(&details), strictness: FlagFileStrictness::Lenient };
            let Ok(set) = FlagSet::read(&source) else { continue };
            let context = EvaluationContext::new(7).with_attribute("a", data.clone()).with_attribute("targetingKey", key.clone());
            let first = set.evaluate("f", &context);
            prop_assert_eq!(&first, &set.evaluate("f", &context));
        }
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}\",:a-f0-9 \\n\\\\é$.-]{0,80}", cut in 0usize..400) {
        let _ = FlagSet::parse(&text).map_err(|error| error.to_string());
        let file = rule_file(&json!({"if": [{"==": [{"var": "é"}, "\n\"x"]}, {"fractional": [["true", 10], ["false", 90]]}, null]}));
        let half: String = file.chars().take(cut).collect();
        let _ = FlagSet::parse(&half).map_err(|error| error.to_string());
        let _ = FlagSetDetails::parse(&text).map_err(|error| error.to_string());
        let _ = EvaluationContext::from_json(text.as_bytes(), 0);
    }

    /// Raising the share of the first variant only adds users, and lowering it takes back those that were added last.
    #[test]
    fn raising_a_percentage_only_adds_users(user in ".{1,40}", low in 0u32..=10_000, high in 0u32..=10_000, is_v2 in any::<bool>()) {
        let (low, high) = (low.min(high), low.max(high));
        let is_on = |share: u32| {
            let file = rule_file(&json!({"fractional": [["true", share], ["false", 10_000 - share]]}));
            let bucketing = if is_v2 { BucketingVersion::V2 } else { BucketingVersion::V3 };
            let details = FlagSetDetails { bucketing, ..FlagSetDetails::default() };
            let source = FlagSetSource { definitions: &file, details: Some(&details), strictness: FlagFileStrictness::Strict };
            let set = FlagSet::read(&source).unwrap();
            let context = EvaluationContext::new(0).with_targeting_key(user.clone());
            let evaluation = set.evaluate("f", &context).unwrap();
            assert_eq!(evaluation.reason, EvaluationReason::Split);
            evaluation.variant == Some("true")
        };
        prop_assert!(!is_on(low) || is_on(high));
        prop_assert!(!is_on(0) && is_on(10_000));
    }
}
