//! What a flag file may hold, and what is said of the rest.

use serde_json::json;
use shipway_flags::{
    EvaluationContext, EvaluationErrorCode, FlagFileStrictness, FlagProblem, FlagSet,
    FlagSetSource,
    limits::{FLAGS_MAX, PROBLEMS_REPORTED_MAX, TARGETING_DEPTH_MAX},
};

/// A file with one flag of the variants `on` and `off`, and what follows them.
fn file_with(rest: &str) -> String {
    format!(
        r#"{{"flags": {{"f": {{"state": "ENABLED", "variants": {{"on": true, "off": false}}, {rest}}}}}}}"#
    )
}

fn problems_of(file: &str) -> Vec<String> {
    match FlagSet::parse(file) {
        Ok(_) => Vec::new(),
        Err(error) => error.diagnostics.iter().map(ToString::to_string).collect(),
    }
}

fn only_problem_of(file: &str) -> String {
    let problems = problems_of(file);
    assert_eq!(problems.len(), 1, "{problems:#?}\n{file}");
    problems[0].clone()
}

#[test]
fn each_problem_has_its_place_and_the_word_that_was_meant() {
    for (rest, expected) in [
        (
            r#""defaultVariant": "offf""#,
            "1:96: /flags/f/defaultVariant: `offf` is none of the flag's variants; did you mean `off`?",
        ),
        (
            r#""defaultVariant": true"#,
            "1:96: /flags/f/defaultVariant: `defaultVariant` must be the name of a variant or null, but this is a boolean",
        ),
        (
            r#""defaultVarient": "on""#,
            "1:78: /flags/f/defaultVarient: `defaultVarient` has no meaning here; did you mean `defaultVariant`?",
        ),
        (
            r#""metadata": {"a": []}"#,
            "1:96: /flags/f/metadata/a: `a` must be a string, a number or a boolean, but this is an array",
        ),
        (
            r#""metadata": 1"#,
            "1:90: /flags/f/metadata: `metadata` must be an object, but this is a number",
        ),
        (
            r#""targeting": "on""#,
            "1:91: /flags/f/targeting: `targeting` must be a rule, but this is a string",
        ),
        (
            r#""targeting": {"iff": [true, "on"]}"#,
            "1:92: /flags/f/targeting/iff: unknown operator `iff`; did you mean `if`?",
        ),
        (
            r#""targeting": {"if": [true, "onn"]}"#,
            "1:105: /flags/f/targeting/if/1: `onn` is none of the flag's variants; did you mean `on`?",
        ),
        (
            r#""targeting": {"if": [true, 1]}"#,
            "1:105: /flags/f/targeting/if/1: targeting must give the name of a variant or null, but this is a number",
        ),
        (
            r#""targeting": {"if": [true, true]}"#,
            "1:105: /flags/f/targeting/if/1: `true` is none of the flag's variants",
        ),
        (
            r#""targeting": {"if": [{"==": [1]}, "on"]}"#,
            "1:106: /flags/f/targeting/if/0/==: `==` takes 2 arguments, but here are 1",
        ),
        (
            r#""targeting": {"if": [{"<": [1]}, "on"]}"#,
            "1:105: /flags/f/targeting/if/0/<: `<` takes 2 or 3 arguments, but here are 1",
        ),
        (
            r#""targeting": {"if": [{"or": []}, "on"]}"#,
            "1:106: /flags/f/targeting/if/0/or: `or` takes 1 argument or more, but here are 0",
        ),
        (
            r#""targeting": {"if": [{"max": 1}, "on"]}"#,
            "1:107: /flags/f/targeting/if/0/max: `max` needs an array of arguments here, but this is a number",
        ),
        (
            r#""targeting": {"if": [{"!": [1], "or": [1]}, "on"]}"#,
            "1:99: /flags/f/targeting/if/0: a rule must be an object with one operator, but this has 2 keys",
        ),
        (
            r#""targeting": {"if": [{}, "on"]}"#,
            "1:99: /flags/f/targeting/if/0: a rule must be an object with one operator, but this has 0 keys",
        ),
        (
            r#""targeting": {"if": [{"$ref": "x"}, "on"]}"#,
            "1:108: /flags/f/targeting/if/0/$ref: `$ref` names `x`, but there is no such evaluator or segment",
        ),
        (
            r#""targeting": {"if": [{"$ref": 1}, "on"]}"#,
            "1:108: /flags/f/targeting/if/0/$ref: `$ref` needs the name of an evaluator here, but this is a number",
        ),
        (
            r#""targeting": {"if": [{"starts_with": [{"var": "a"}, 1]}, "on"]}"#,
            "1:130: /flags/f/targeting/if/0/starts_with/1: `starts_with` needs a string or a rule here, but this is a number",
        ),
        (
            r#""targeting": {"if": [{"sem_ver": [{"var": "v"}, "=>", "1.0.0"]}, "on"]}"#,
            "1:126: /flags/f/targeting/if/0/sem_ver/1: `sem_ver` compares with =, !=, <, <=, >, >=, ^ or ~, not with `=>`; did you mean `=`?",
        ),
        (
            r#""targeting": {"if": [{"sem_ver": [{"var": "v"}, "=", "1.x"]}, "on"]}"#,
            "1:131: /flags/f/targeting/if/0/sem_ver/2: `1.x` is not a semantic version such as 1.4.0",
        ),
        (
            r#""targeting": {"if": [{"var": "$flagd.flagkey"}, "on"]}"#,
            "1:107: /flags/f/targeting/if/0/var: `$flagd.flagkey` is unknown: evaluations have `$flagd.flagKey` and `$flagd.timestamp`; did you mean `$flagd.flagKey`?",
        ),
        (
            r#""targeting": {"fractional": [["on", 1], ["offf", 1]]}"#,
            "1:119: /flags/f/targeting/fractional/1/0: `offf` is none of the flag's variants; did you mean `off`?",
        ),
        (
            r#""targeting": {"fractional": [["on", 0.5]]}"#,
            "1:114: /flags/f/targeting/fractional/0/1: a weight must be a whole number from 0 on, but this is 0.5",
        ),
        (
            r#""targeting": {"fractional": [["on", -1]]}"#,
            "1:114: /flags/f/targeting/fractional/0/1: a weight must be a whole number from 0 on, but this is -1",
        ),
        (
            r#""targeting": {"fractional": [["on", "5"]]}"#,
            "1:114: /flags/f/targeting/fractional/0/1: a weight must be a whole number from 0 on, but this is a string",
        ),
        (
            r#""targeting": {"fractional": [["on", 1e300]]}"#,
            "1:114: /flags/f/targeting/fractional/0/1: the weights add up to 18446744073709551615, above the limit of 2147483647; use smaller ones of the same ratio",
        ),
        (
            r#""targeting": {"fractional": [["on", 2147483647], ["off", 1]]}"#,
            "1:106: /flags/f/targeting/fractional: the weights add up to 2147483648, above the limit of 2147483647; use smaller ones of the same ratio",
        ),
        (
            r#""targeting": {"fractional": [{"var": "a"}]}"#,
            "1:106: /flags/f/targeting/fractional: `fractional` takes 1 bucket or more, but here are 0",
        ),
        (
            r#""targeting": {"fractional": [["on", 1, 2]]}"#,
            "1:107: /flags/f/targeting/fractional/0: a bucket must be [variant, weight] or [variant]",
        ),
        (
            r#""targeting": {"fractional": [{"var": "a"}, "on"]}"#,
            "1:121: /flags/f/targeting/fractional/1: a bucket must be [variant, weight] or [variant]",
        ),
    ] {
        assert_eq!(only_problem_of(&file_with(rest)), expected, "{rest}");
    }
}

#[test]
fn files_that_are_not_flag_files_are_refused() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let variants = |variants: &str| {
        format!(r#"{{"flags": {{"f": {{"state": "ENABLED", "variants": {variants}}}}}}}"#)
    };
    for (file, expected) in [
        ("", "invalid JSON: EOF while parsing"),
        ("{\"flags\": {", "1:11: invalid JSON: EOF while parsing"),
        (&deep, "recursion limit exceeded"),
        ("[]", "`the file` must be an object"),
        ("{}", "`flags` is missing"),
        (
            r#"{"flag": {}, "flags": {}}"#,
            "1:2: /flag: `flag` has no meaning here; did you mean `flags`?",
        ),
        (
            r#"{"flags": []}"#,
            "1:11: /flags: `flags` must be an object of flags by their keys, but this is an array",
        ),
        (
            r#"{"flags": {"f": 1}}"#,
            "`a flag` must be an object, but this is a number",
        ),
        (
            r#"{"flags": {"a": {}, "a": {}}}"#,
            "the key `a` is there twice",
        ),
        (
            r#"{"flags": {"f": {"variants": {"a": 1}}}}"#,
            "`state` is missing",
        ),
        (
            r#"{"flags": {"f": {"state": "ENABLE", "variants": {"a": 1}}}}"#,
            "but is `ENABLE`; did you mean `ENABLED`?",
        ),
        (
            r#"{"flags": {"f": {"state": true, "variants": {"a": 1}}}}"#,
            "`state` must be `ENABLED` or `DISABLED`, but this is a boolean",
        ),
        (
            r#"{"flags": {"f": {"state": "ENABLED"}}}"#,
            "`variants` is missing",
        ),
        (
            r#"{"flags": {"": {"state": "ENABLED", "variants": {"a": 1}}}}"#,
            "a name must have 1 to 256 bytes, but this has 0",
        ),
        (
            &variants("{}"),
            "a flag must have 1 to 1000 variants, but this has 0",
        ),
        (
            &variants("[]"),
            "`variants` must be an object of values by their names, but this is an array",
        ),
        (
            &variants(r#"{"a": 1, "b": "x"}"#),
            "variant `b` is a string, but `a` is a number; all variants of a flag must be of one type",
        ),
        (
            &variants(r#"{"a": null}"#),
            "`a` must be a boolean, a string, a number or an object, but this is null",
        ),
        (
            &variants(r#"{"a": [1]}"#),
            "`a` must be a boolean, a string, a number or an object, but this is an array",
        ),
        (
            &variants(r#"{"a": 9007199254740992}"#),
            "the integer is beyond ±9007199254740991",
        ),
        (
            &variants(r#"{"a": -1e16}"#),
            "the integer is beyond ±9007199254740991",
        ),
        (
            r#"{"flags": {}, "$evaluators": []}"#,
            "`$evaluators` must be an object of rules by their names",
        ),
        (
            r#"{"flags": {}, "$evaluators": {"x": {"nope": 1}}}"#,
            "/$evaluators/x/nope: unknown operator `nope`",
        ),
        (
            r#"{"flags": {}, "metadata": []}"#,
            "`metadata` must be an object",
        ),
    ] {
        let problem = only_problem_of(file);
        assert!(problem.contains(expected), "{problem}\n{expected}");
    }
}

#[test]
fn files_with_everything_in_them_are_read() {
    let file = json!({
        "$schema": "https://example.com/schema/v0/flags.json",
        "metadata": {"team": "shop"},
        "$evaluators": {"inner": {"var": "a"}, "outer": {"!!": [{"$ref": "inner"}]}, "unused": {}},
        "flags": {"f": {"state": "ENABLED", "variants": {"on": {"x": 1}, "off": {}}, "defaultVariant": null, "description": "",
            "targeting": {"if": [{"$ref": "outer"}, {"fractional": [{"var": "k"}, ["on", {"var": "w"}], ["off"]]}]}}},
    });
    let without_empty_evaluator = file.to_string().replace(",\"unused\":{}", "");
    assert_eq!(problems_of(&without_empty_evaluator), Vec::<String>::new());
}

#[test]
fn evaluators_that_lead_to_themselves_are_refused() {
    let file = r#"{"flags": {}, "$evaluators": {"a": {"!": {"$ref": "b"}}, "b": {"or": [{"$ref": "c"}]}, "c": {"!!": {"$ref": "b"}}}}"#;
    assert_eq!(
        only_problem_of(file),
        "1:109: /$evaluators/c/!!/$ref: `$ref` leads back to itself: b → c → b"
    );
}

#[test]
fn rules_nest_to_a_limit_evaluators_included() {
    let nested = |levels: usize| (0..levels).fold(json!(true), |inner, _| json!({ "!": inner }));
    let file = |rule: serde_json::Value, evaluators: serde_json::Value| {
        json!({"$evaluators": evaluators, "flags": {"f": {"state": "ENABLED", "variants": {"true": 1, "false": 2}, "targeting": rule}}}).to_string()
    };
    let fits = file(nested(TARGETING_DEPTH_MAX - 1), json!({}));
    assert_eq!(problems_of(&fits), Vec::<String>::new());
    let too_deep = file(nested(TARGETING_DEPTH_MAX), json!({}));
    assert!(only_problem_of(&too_deep).contains("targeting nests deeper than 64 levels"));

    let mut chain = serde_json::Map::new();
    chain.insert("0".to_owned(), nested(40));
    for number in 1..1000 {
        chain.insert(
            number.to_string(),
            json!({"!": {"$ref": (number - 1).to_string()}}),
        );
    }
    let chained = file(
        json!({"!": {"$ref": "999"}}),
        serde_json::Value::Object(chain),
    );
    let problems = problems_of(&chained);
    assert!(
        problems
            .iter()
            .all(|problem| problem.contains("targeting nests deeper")),
        "{problems:#?}"
    );
    assert!(!problems.is_empty());
}

#[test]
fn a_file_of_many_problems_names_the_first_and_counts_the_others() {
    let flags: serde_json::Map<String, serde_json::Value> = (0..200)
        .map(|number| (format!("flag-{number}"), json!({})))
        .collect();
    let error = FlagSet::parse(&json!({ "flags": flags }).to_string()).unwrap_err();
    assert_eq!(error.diagnostics.len(), PROBLEMS_REPORTED_MAX);
    assert_eq!(error.unreported, 400 - PROBLEMS_REPORTED_MAX);
    assert!(error.to_string().ends_with("and 350 more"));
    assert!(matches!(
        error.diagnostics[0].problem,
        FlagProblem::MissingProperty { name: "state" }
    ));

    let flag = json!({"state": "ENABLED", "variants": {"on": true}});
    let flags: serde_json::Map<String, serde_json::Value> = (0..=FLAGS_MAX)
        .map(|number| (number.to_string(), flag.clone()))
        .collect();
    assert!(
        only_problem_of(&json!({ "flags": flags }).to_string())
            .contains("above the limit of 100000")
    );
}

#[test]
fn a_lenient_reader_confines_a_bad_rule_to_its_flag() {
    let file = r#"{
  "flags": {
    "bad": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on", "targeting": {"iff": [true, "on"]}},
    "good": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"}
  }
}"#;
    let read = |strictness| {
        FlagSet::read(&FlagSetSource {
            definitions: file,
            details: None,
            strictness,
        })
    };
    assert!(read(FlagFileStrictness::Strict).is_err());
    let set = read(FlagFileStrictness::Lenient).unwrap();
    let warnings: Vec<String> = set.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["3:97: /flags/bad/targeting/iff: unknown operator `iff`; did you mean `if`?"]
    );
    let context = EvaluationContext::new(0);
    let error = set.evaluate("bad", &context).unwrap_err();
    assert_eq!(error.code, EvaluationErrorCode::ParseError);
    assert!(set.value_or("good", &context, false));
    let results: Vec<bool> = set
        .evaluate_all(&context)
        .map(|(_, result)| result.is_ok())
        .collect();
    assert_eq!(results, [false, true]);
}
