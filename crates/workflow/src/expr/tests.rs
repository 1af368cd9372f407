//! Every sentence of the contract on expressions, as tables: an expression and what it comes to, as JSON.

use proptest::prelude::*;

use super::*;

struct Workspace;

impl HashFiles for Workspace {
    fn hash_files(&self, patterns: &[String]) -> Result<String, HashFilesError> {
        Ok(if patterns == ["Cargo.lock"] {
            "5d1c".to_owned()
        } else {
            String::new()
        })
    }
}

fn contexts() -> Contexts<'static> {
    let json = r#"{
        "ref_name": "main", "Event": {"number": 7, "labels": [{"name": "bug"}, {"name": "ui"}, {"id": 3}, 5], "x-y": true},
        "list": [1, "two", null], "empty": {}, "none": [], "deep": [[1, 2], [3], {"a": 4}], "text": "Hello"
    }"#;
    let github: ExprValue = serde_json::from_str(json).unwrap();
    let mut env = ExprObject::new(PropertyNames::Exact);
    env.insert("Path", ExprValue::from("p"));
    Contexts::new()
        .with("github", github)
        .with("env", ExprValue::Object(Arc::new(env)))
        .with_status(StatusChecks::FINE)
        .with_files(&Workspace)
}

fn eval(text: &str) -> Result<ExprValue, String> {
    let expr = Expr::parse(text, 0).map_err(|error| error.one_line())?;
    expr.eval(&contexts()).map_err(|error| error.message)
}

/// Checks a table of expressions and their values as JSON text.
fn check(table: &[(&str, &str)]) {
    for (text, expected) in table {
        let json = eval(text).map(|value| serde_json::to_string(&value).unwrap());
        assert_eq!(json.as_deref(), Ok(*expected), "{text}");
    }
}

/// Checks a table of expressions and what is said about them.
fn check_errors(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(eval(text).unwrap_err(), *expected, "{text}");
    }
}

#[test]
fn literals_are_read_as_github_reads_them() {
    check(&[
        ("null", "null"),
        ("true", "true"),
        ("'it''s'", r#""it's""#),
        ("0xff", "255"),
        ("0o17", "15"),
        ("-2.5e3", "-2500"),
        ("+.5", "0.5"),
        ("5.", "5"),
        ("0xFFFFFFFF", "-1"),
        ("toJSON(NaN)", r#""NaN""#),
        ("toJSON(-Infinity)", r#""-Infinity""#),
        ("toJSON(1e400)", r#""Infinity""#),
    ]);
    check_errors(&[
        (
            "1-2",
            "`1-2` is not a number; expressions have no arithmetic; numbers look like 1, -2.5, 1e3, 0xff or 0o17",
        ),
        (
            "-0x1",
            "`-0x1` is not a number; expressions have no arithmetic; numbers look like 1, -2.5, 1e3, 0xff or 0o17",
        ),
        (
            r#""text""#,
            r#"unexpected `"text"`; write strings in single quotes: 'like this'"#,
        ),
        (
            "'open",
            "the string that starts here is not closed; close it with '; a ' inside is written ''",
        ),
        (
            "True",
            "unknown name `true` (the known ones are `env` and `github`)",
        ),
    ]);
}

#[test]
fn only_null_false_zero_nan_and_the_empty_text_are_falsy() {
    for falsy in ["null", "false", "0", "-0", "NaN", "''"] {
        check(&[
            (&format!("!{falsy}"), "true"),
            (&format!("{falsy} || 'other'"), r#""other""#),
        ]);
    }
    for truthy in [
        "true",
        "1",
        "-1",
        "Infinity",
        "' '",
        "'0'",
        "'false'",
        "github.none",
        "github.empty",
    ] {
        check(&[
            (&format!("!{truthy}"), "false"),
            (&format!("{truthy} && 'other'"), r#""other""#),
        ]);
    }
}

#[test]
fn and_and_or_give_the_value_that_decided() {
    check(&[
        ("1 && 'b'", r#""b""#),
        ("0 && 'b'", "0"),
        ("'' || null", "null"),
        ("'a' || b", r#""a""#),
        ("1 && 2 && 3", "3"),
        ("false && unknown", "false"),
    ]);
}

#[test]
fn equality_is_loose() {
    let truths = [
        "null == 0",
        "null == ''",
        "true == 1",
        "false == ''",
        "'1' == 1",
        "' 1 ' == 1",
        "'0x1F' == 31",
        "'0o17' == 15",
        "'Infinity' == Infinity",
        "'-Infinity' == -Infinity",
        "'' == 0",
        "'ABC' == 'abc'",
        "'ς' == 'Σ'",
        "'Ü' == 'ü'",
        "'a' != 'b'",
        "NaN != NaN",
        "'x' != 1",
        "github == github",
        "github.list == github.list",
        "github.list != github.deep",
        "github.list != 'Array'",
        "fromJSON('[]') != fromJSON('[]')",
        "github.none != 0",
        "'true' != true",
        "'' == false",
        "null == null",
        "'i' != 'İ'",
        "'ı' != 'I'",
    ];
    for text in truths {
        check(&[(text, "true")]);
    }
}

#[test]
fn order_is_loose_and_chains_to_the_left() {
    let truths = [
        "3 < 2 < 1",
        "!(3 < (2 < 1))",
        "0 > 0 < 1",
        "!(2 > 2 > 0)",
        "2 <= 3 == true",
        "'A' < '['",
        "'a' < '['",
        "'b' > 'A'",
        "'10' > 9",
        "'10' < '9'",
        "true > false",
        "null <= 0",
        "null >= null",
        "!(null < null)",
        "!(NaN < 1)",
        "!(NaN >= NaN)",
        "!('a' < 1)",
        "!(github.list < 1)",
        "!(github.list <= 1)",
        "github.list <= github.list",
        "1 == 1 && 2 == 2",
        "2 == 2 == 1",
        "2 == 2 != 0",
        "!false == true",
        "!2 < 3",
    ];
    for text in truths {
        check(&[(text, "true")]);
    }
    check(&[
        ("1 || 2 && 3", "1"),
        ("(1 || 2) && 3", "3"),
        ("false && 0 || null", "null"),
    ]);
}

#[test]
fn numbers_become_text_with_fifteen_digits_and_collections_their_kind() {
    check(&[
        (
            "format('{0}', 0.84551240822557006)",
            r#""0.84551240822557""#,
        ),
        ("format('{0}', 1e15)", r#""1E+15""#),
        ("format('{0}', -0.00001)", r#""-1E-05""#),
        ("format('{0}', -0)", r#""0""#),
        (
            "format('{0}{1}{2}', github.list, github.empty, null)",
            r#""ArrayObject""#,
        ),
    ]);
}

#[test]
fn properties_ignore_case_except_in_env_and_missing_ones_are_null() {
    check(&[
        ("github.REF_NAME", r#""main""#),
        ("GitHub['Ref_Name']", r#""main""#),
        ("github.event.x-y", "true"),
        ("env.Path", r#""p""#),
        ("env.PATH", "null"),
        ("github.nothing.at.all", "null"),
        ("github.list[1.9]", r#""two""#),
        ("github.list['1']", r#""two""#),
        ("github.list[-1]", "null"),
        ("github.list[9]", "null"),
        ("github.list['x']", "null"),
        ("github.list[null]", "1"),
        ("github.text.length", "null"),
        ("github[github.list]", "null"),
        ("fromJSON('{\"true\": 1}').true", "1"),
        ("(github).text", r#""Hello""#),
        (" github . text ", r#""Hello""#),
    ]);
    check_errors(&[
        (
            "'a'.b",
            "a literal has no properties; use fromJSON('…') to make an object or an array",
        ),
        ("github.1", "expected the name of a property after `.`"),
        ("gihub.sha", "unknown name `gihub` (did you mean `github`?)"),
    ]);
}

#[test]
fn filters_look_into_every_item() {
    check(&[
        ("github.event.labels.*.name", r#"["bug","ui"]"#),
        ("github.event.labels[*].NAME", r#"["bug","ui"]"#),
        ("github.deep.*", r#"[[1,2],[3],{"a":4}]"#),
        ("github.deep.*.*", "[1,2,3,4]"),
        ("github.deep.*[0]", "[1,3]"),
        ("github.deep.*.a", "[4]"),
        ("(github.event.labels.* || 1).name", r#"["bug","ui"]"#),
        ("github.event.labels.name", "null"),
        ("github.text.*", "[]"),
        ("null == github.x.*", "false"),
        (
            "github.event.*",
            r#"[7,[{"name":"bug"},{"name":"ui"},{"id":3},5],true]"#,
        ),
        ("contains(github.event.labels.*.name, 'BUG')", "true"),
    ]);
}

#[test]
fn functions_answer_as_githubs_do() {
    check(&[
        ("contains('Hello', 'ELL')", "true"),
        ("contains('Hello', '')", "true"),
        ("contains(123, 2)", "true"),
        ("contains(github.list, '1')", "true"),
        ("contains(github.list, 0)", "true"),
        ("contains(github.empty, 'a')", "false"),
        ("contains('Array', github.list)", "false"),
        ("startsWith('Hello', 'he')", "true"),
        ("startsWith(12, 1)", "true"),
        ("STARTSWITH(github.list, 'Arr')", "false"),
        ("endsWith('Hello', 'LO')", "true"),
        ("format('{{0}} {0}{1}{0}', 'a', 1)", r#""{0} a1a""#),
        ("format(null, 1)", r#""""#),
        ("join(github.list)", r#""1,two,""#),
        ("join(github.list, ' - ')", r#""1 - two - ""#),
        ("join(github.list, github.none)", r#""1,two,""#),
        ("join('one', ',')", r#""one""#),
        ("join(github.empty)", r#""""#),
        ("toJSON('a\"b')", r#""\"a\\\"b\"""#),
        ("toJSON(github.none)", r#""[]""#),
        (
            "toJSON(fromJSON('{\"b\":[1,{}],\"a\":null}'))",
            r#""{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": null\n}""#,
        ),
        ("fromJSON('[1.5, true]')", "[1.5,true]"),
        ("fromJSON(1)", "1"),
        ("hashFiles('Cargo.lock')", r#""5d1c""#),
        ("hashFiles('nothing/**')", r#""""#),
        ("case(false, 1, true, 2, 3)", "2"),
        ("case(false, fromJSON('broken'), 3)", "3"),
        ("success()", "true"),
        ("failure()", "false"),
        ("cancelled()", "false"),
        ("always()", "true"),
    ]);
    check_errors(&[
        (
            "contians('a', 'b')",
            "unknown function `contians`; did you mean `contains`?",
        ),
        ("contains('a')", "`contains` takes 2 values, but got 1"),
        ("join()", "`join` takes 1 to 2 values, but got 0"),
        ("format()", "`format` takes at least 1 value, but got 0"),
        ("always('x')", "`always` takes nothing, but got 1"),
        (
            "case(true, 1)",
            "`case` takes pairs of a condition and a value, followed by a default value, but got 2",
        ),
        (
            "case(1, 2, 3)",
            "case: a condition must be a boolean, but this is number",
        ),
        (
            "format('{0}{1}', 'a')",
            "format: '{0}{1}' uses {1}, but 1 value is given",
        ),
        (
            "format('{0', 'a')",
            "format: a `{` without `{number}` in '{0'; write `{{` for the character itself",
        ),
        ("format('a}')", "format: a lone `}` in 'a}'; write `}}`"),
        (
            "format('{0:x}', 1)",
            "format: format specifiers after `:` are not supported, in '{0:x}'",
        ),
        ("fromJSON('')", "fromJSON: an empty string is not JSON"),
        (
            "fromJSON('{')",
            "fromJSON: '{' is not JSON: EOF while parsing an object at line 1 column 1",
        ),
    ]);
}

#[test]
fn mistakes_are_named_where_they_are() {
    let table = [
        ("", 0..0, "an expression is missing here"),
        ("a ==", 3..4, "expected a value, found the end"),
        ("a b", 2..3, "expected an operator or the end, found `b`"),
        ("(a", 0..1, "`(` is never closed"),
        ("a)", 1..2, "`)` closes nothing"),
        ("a[0)", 3..4, "expected `]`, found `)`"),
        ("f(a", 0..1, "unknown function `f`"),
        ("a = b", 2..3, "`=` is not an operator"),
        ("a & b", 2..3, "`&` is not an operator"),
        (
            "a, b",
            1..2,
            "`,` is only allowed between the arguments of a function",
        ),
        ("a * b", 2..3, "expected an operator or the end, found `*`"),
        ("a[*.b", 2..3, "expected `]` after `*`"),
        ("join(a,)", 7..8, "expected a value, found `)`"),
        ("a.", 1..2, "expected the name of a property after `.`"),
        ("a.b@r", 2..5, "unexpected `b@r`"),
    ];
    for (text, at, message) in table {
        let error = Expr::parse(text, 0).unwrap_err();
        assert_eq!((error.message.as_str(), error.at), (message, at), "{text}");
    }
    let error = Expr::parse("github.x || fromJSON('{')", 100)
        .unwrap()
        .eval(&contexts())
        .unwrap_err();
    assert_eq!(
        error.snippet(),
        "github.x || fromJSON('{')\n            ^^^^^^^^^^^^^"
    );
}

#[test]
fn fifty_levels_and_21000_characters_are_the_limit() {
    assert!(Expr::parse(&format!("{}true", "!".repeat(49)), 0).is_ok());
    assert_eq!(
        Expr::parse(&format!("{}true", "!".repeat(50)), 0)
            .unwrap_err()
            .message,
        "the expression is nested deeper than 50 levels"
    );
    assert!(Expr::parse(&format!("a{}", ".b".repeat(49)), 0).is_ok());
    assert!(Expr::parse(&format!("a{}", ".b".repeat(50)), 0).is_err());
    // Brackets and chains of `&&` are free.
    assert!(
        Expr::parse(
            &format!("{}true{}", "(".repeat(10_000), ")".repeat(10_000)),
            0
        )
        .is_ok()
    );
    assert!(Expr::parse(&vec!["a"; 4_000].join(" && "), 0).is_ok());
    assert!(Expr::parse(&format!("'{}'", "a".repeat(20_998)), 0).is_ok());
    assert_eq!(
        Expr::parse(&format!("'{}'", "a".repeat(20_999)), 0)
            .unwrap_err()
            .message,
        "an expression may have at most 21000 characters"
    );
}

#[test]
fn what_one_expression_makes_is_bounded() {
    let mut text = "github.text".to_owned();
    for _ in 0..12 {
        text = format!("format('{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}', {text})");
    }
    assert_eq!(
        eval(&text).unwrap_err(),
        "format: the result is larger than the limit of 10 MiB"
    );
}

#[test]
fn status_functions_count_only_where_they_are_called() {
    for (text, calls) in [
        ("always()", true),
        ("!(Failure() && x)", true),
        ("'always()'", false),
        ("github.success", false),
        ("contains('success()', 's')", false),
    ] {
        assert_eq!(
            Expr::parse(text, 0).unwrap().calls_status(),
            calls,
            "{text}"
        );
    }
}

#[test]
fn conditions_ask_for_success_unless_they_say_otherwise() {
    let failed = contexts().with_status(StatusChecks {
        success: false,
        failure: true,
        cancelled: false,
    });
    let holds = |text: &str, contexts: &Contexts<'_>| {
        IfCondition::parse(text, 0)
            .unwrap()
            .holds(contexts)
            .unwrap()
    };
    for (text, after_success, after_failure) in [
        ("", true, false),
        ("true", true, false),
        ("${{ true }}", true, false),
        ("false", false, false),
        ("failure()", false, true),
        ("${{ always() }}", true, true),
        ("always() && github.ref_name == 'main'", true, true),
        ("github.ref_name == 'main'", true, false),
        ("!cancelled()", true, true),
        ("'always()'", true, false),
        // GitHub's trap: text around `${{ }}` is a text, and so true.
        ("${{ false }} && false", true, false),
        ("${{ false && always() }} x", true, true),
    ] {
        assert_eq!(
            (holds(text, &contexts()), holds(text, &failed)),
            (after_success, after_failure),
            "{text:?}"
        );
    }
    assert!(
        IfCondition::parse("${{ false }} && x", 0)
            .unwrap()
            .is_text()
    );
}

#[test]
fn a_lone_expression_keeps_its_kind_and_others_become_text() {
    let resolve = |text: &str| {
        Template::parse(text, 0)
            .unwrap()
            .resolve(&contexts())
            .unwrap()
    };
    assert_eq!(resolve("${{ 1 }}"), ExprValue::Number(1.0));
    assert_eq!(resolve(" ${{ 1 }}"), ExprValue::from(" 1"));
    assert_eq!(
        resolve("a ${{ github.list }} ${{ null }}b ${{ '}}' }}"),
        ExprValue::from("a Array b }}")
    );
    assert_eq!(
        resolve("$HOME {{ x }} }}"),
        ExprValue::from("$HOME {{ x }} }}")
    );
    let error = |text: &str| Template::parse(text, 10).unwrap_err();
    assert_eq!(
        (error("a ${{ b").message.as_str(), error("a ${{ b").at),
        ("`${{` is never closed", 12..15)
    );
    assert_eq!(error("x ${{ }}").at, 12..18);
    assert_eq!(error("x ${{  a b }}").at, 19..20);
    assert!(Template::parse(&format!("${{{{ 1 }}}}{}", "x".repeat(21_000)), 0).is_err());
    assert!(Template::parse(&"x".repeat(30_000), 0).is_ok());
}

#[test]
fn what_can_be_seen_depends_on_the_place() {
    let check = |text: &str, place| {
        Expr::parse(text, 0)
            .unwrap()
            .check(place)
            .map_err(|error| error.one_line())
    };
    assert_eq!(check("secrets.A", ExprSite::Step), Ok(()));
    assert_eq!(
        check("github.x && (a || secrets.A)", ExprSite::StepIf).unwrap_err(),
        "unknown name `a`; the known ones are `github`, `inputs`, `vars`, `needs`, `strategy`, `matrix`, `steps`, `job`, `runner` and `env`"
    );
    assert_eq!(
        check("secrets.A", ExprSite::JobIf).unwrap_err(),
        "`secrets` can't be used here; available here: `github`, `inputs`, `vars` and `needs`"
    );
    assert_eq!(
        check("hashFiles('x')", ExprSite::JobIf).unwrap_err(),
        "`hashFiles` can't be used here; it can only be used in steps, where there is a workspace"
    );
    assert_eq!(
        check("always()", ExprSite::Step).unwrap_err(),
        "`always` can't be used here; it can only be used in the `if` of a job or a step"
    );
}

#[test]
fn templates_and_conditions_survive_serde() {
    let template = Template::parse("a ${{ github.ref }}", 0)
        .unwrap()
        .at_line(3);
    let json = serde_json::to_string(&template).unwrap();
    assert_eq!(json, r#"{"text":"a ${{ github.ref }}","line":3}"#);
    assert_eq!(serde_json::from_str::<Template>(&json).unwrap(), template);
    let plain = Template::literal("${{ not meant }}");
    assert_eq!(
        serde_json::from_str::<Template>(&serde_json::to_string(&plain).unwrap()).unwrap(),
        plain
    );
    let condition = IfCondition::parse("${{ failure() }}", 0).unwrap();
    assert_eq!(
        serde_json::from_str::<IfCondition>(&serde_json::to_string(&condition).unwrap()).unwrap(),
        condition
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"[ -~é\n]{0,60}"#) {
        let _ = eval(&text);
        let _ = IfCondition::parse(&text, 7);
        let _ = Template::parse(&text, 7).map(|template| template.resolve(&contexts()));
    }

    #[test]
    fn no_order_of_tokens_makes_it_panic(tokens in prop::collection::vec(prop::sample::select(vec![
        "github", "a", "(", ")", "[", "]", ",", ".", "*", "!", "==", "<", "&&", "||", "'x'", "1", "format(", "'{0}'", "fromJSON(", "case(", "true", ".*", "toJSON(",
    ]), 0..40)) {
        let _ = eval(&tokens.join(" "));
        let _ = eval(&tokens.concat());
    }

    #[test]
    fn places_in_errors_are_within_the_text(text in r#"[a-z0-9 ()\[\].,*!=<>&|'é]{0,40}"#) {
        if let Err(error) = Expr::parse(&text, 0) {
            prop_assert!(error.at.start <= error.at.end && error.at.end <= text.len(), "{:?}", error);
            prop_assert!(text.get(error.at.clone()).is_some(), "{:?}", error);
        }
    }

    #[test]
    fn written_numbers_read_back_to_fifteen_digits(number in prop::num::f64::NORMAL) {
        let back = ExprValue::from(ExprValue::Number(number).to_text().to_string()).to_number();
        prop_assert!((back - number).abs() <= number.abs() * 1e-14, "{number} {back}");
    }

    #[test]
    fn equality_is_symmetric_and_order_antisymmetric(left in any_value(), right in any_value()) {
        prop_assert_eq!(left.loosely_equals(&right), right.loosely_equals(&left));
        prop_assert_eq!(left.loosely_compare(&right), right.loosely_compare(&left).map(std::cmp::Ordering::reverse));
    }
}

fn any_value() -> impl Strategy<Value = ExprValue> {
    prop_oneof![
        Just(ExprValue::Null),
        any::<bool>().prop_map(ExprValue::Bool),
        any::<f64>().prop_map(ExprValue::Number),
        "[aA1 .-]{0,3}".prop_map(ExprValue::from),
        Just(ExprValue::array([])),
    ]
}
