//! Functions, the text form of values, and the availability of contexts.

use shipway_workflow::expr::{ExprSite, IfCondition};

use super::*;

#[test]
fn numbers_are_written_with_fifteen_digits_and_collections_as_their_kind() {
    texts(&[
        ("null", ""),
        ("true", "true"),
        ("false", "false"),
        ("0.1", "0.1"),
        ("123456.789", "123456.789"),
        ("+123456.789", "123456.789"),
        ("0.84551240822557006", "0.84551240822557"),
        ("n.big", "1.23456789012346E+16"),
        ("999999999999999", "999999999999999"),
        ("1000000000000000", "1E+15"),
        ("0.0001", "0.0001"),
        ("0.00001", "1E-05"),
        ("1e21", "1E+21"),
        ("-1.5e-7", "-1.5E-07"),
        ("a.empty", "Array"),
        ("a.three", "Array"),
        ("a.three.*", "Array"),
        ("o", "Object"),
        ("o.empty", "Object"),
    ]);
}

#[test]
fn contains_looks_in_texts_and_for_loosely_equal_items() {
    hold(&[
        "contains('Hello', 'ELL')",
        "contains('abc', '')",
        "contains('', '')",
        "contains(null, null)",
        "contains('abc', null)",
        "contains(1234, 23)",
        "contains(12.5, '.')",
        "contains(true, 'RU')",
        "contains('1e3', 1)",
        "contains(a.three, 'X')",
        "contains(a.one, '7')",
        "contains(a.one, ' 7.0 ')",
        "contains(a.mixed, true)",
        "contains(a.mixed, 'S')",
        "contains(a.mixed, null)",
        "contains(a.mixed, '')",
        "contains(a.mixed, 0)",
        "contains(a.nested, a.nested[0])",
    ]);
    fail(&[
        "contains('abc', 'x')",
        "contains('Array', a.three)",
        "contains('Object', o)",
        "contains(o, 'v')",
        "contains(o.empty, '')",
        "contains(a.empty, '')",
        "contains(a.three, 'xy')",
        "contains(a.mixed, NaN)",
        "contains(a.nested, fromJSON('[1,2]'))",
        "contains(null, 'a')",
    ]);
}

#[test]
fn starts_with_and_ends_with_take_all_but_collections_as_text() {
    hold(&[
        "startsWith('abcdef', 'ABC')",
        "startsWith('abc', '')",
        "startsWith('1234', 12)",
        "startsWith('true', true)",
        "startsWith('x', null)",
        "startsWith(1.5, '1.')",
        "startsWith(null, null)",
        "endsWith('abcdef', 'DEF')",
        "endsWith('1234', 34)",
        "endsWith('x', null)",
        "endsWith(false, 'SE')",
    ]);
    fail(&[
        "startsWith('abc', 'b')",
        "startsWith(a.three, 'A')",
        "startsWith('Array', a.three)",
        "startsWith(o, '')",
        "endsWith('abcdef', 'de')",
        "endsWith('Array', a.three)",
        "endsWith(a.empty, '')",
    ]);
}

#[test]
fn format_puts_values_into_places_and_takes_doubled_braces_for_one() {
    values(&[
        ("format('')", r#""""#),
        ("format(null, 1)", r#""""#),
        ("format(12)", r#""12""#),
        ("format('a{0}b{0}c{1}', 'x', 'y')", r#""axbxcy""#),
        ("format('{1}{0}', 'x', 'y')", r#""yx""#),
        ("format('{{0}}', 'x')", r#""{0}""#),
        ("format('{{{0}}}', 'x')", r#""{x}""#),
        ("format('{{{{0}}}}', 'x')", r#""{{0}}""#),
        ("format('}}{{}}')", r#""}{}""#),
        ("format('{00}', 'x')", r#""x""#),
        ("format('{0:}', 'x')", r#""x""#),
        ("format('{0}', '{1}')", r#""{1}""#),
        ("format('{0}', -0)", r#""0""#),
        ("format('{0}|{1}', a, o)", r#""Object|Object""#),
    ]);
    let bad = "`{` without `{number}`";
    refused(&[
        ("format('{')", bad),
        ("format('{}', 1)", bad),
        ("format('{0', '')", bad),
        ("format('{ 0 }', '')", bad),
        ("format('{-1}', '')", bad),
        ("format('{256}', '')", bad),
        ("format('{0}{', '')", bad),
        ("format('{a}', '')", bad),
        ("format('}')", "a lone `}`"),
        ("format('0}', '')", "a lone `}`"),
        ("format('{0}}', '')", "a lone `}`"),
        ("format('{{0}', '')", "a lone `}`"),
        ("format('}{0}', '')", "a lone `}`"),
        ("format('{0}')", "uses {0}, but no value is given"),
        (
            "format('{0}{2}', 'a', 'b')",
            "uses {2}, but 2 values are given",
        ),
        ("format('{0:N2}', 1)", "format specifiers after `:`"),
        ("format(o.Key || '', 1) == format('{0', 1)", bad),
    ]);
}

#[test]
fn join_writes_items_with_a_comma_or_what_is_given() {
    values(&[
        ("join(null)", r#""""#),
        ("join(true)", r#""true""#),
        ("join(123.456)", r#""123.456""#),
        ("join('abc', '-')", r#""abc""#),
        ("join(a.empty)", r#""""#),
        ("join(a.empty, 'x')", r#""""#),
        ("join(o)", r#""""#),
        ("join(a.mixed)", r#"",true,1.5,s,Array,Object""#),
        ("join(a.three, null)", r#""xyz""#),
        ("join(a.three, '')", r#""xyz""#),
        ("join(a.three, true)", r#""xtrueytruez""#),
        ("join(a.three, 1.5)", r#""x1.5y1.5z""#),
        ("join(a.three, ' | ')", r#""x | y | z""#),
        ("join(a.three, a)", r#""x,y,z""#),
        ("join(a.three, o)", r#""x,y,z""#),
    ]);
    refused(&[
        ("join()", "takes 1 to 2 values"),
        ("join(1, 2, 3)", "takes 1 to 2 values"),
    ]);
}

#[test]
fn to_json_is_written_as_the_runner_writes_it() {
    let json = |text: &str| {
        let value = eval(&format!("toJSON({text})")).unwrap();
        serde_json::from_str::<String>(&value).unwrap()
    };
    for (text, expected) in [
        ("null", "null"),
        ("-0", "0"),
        ("1234.5", "1234.5"),
        ("n.big", "1.23456789012346E+16"),
        ("'abc''d\"e'", r#""abc'd\"e""#),
        ("'a/b\t\n'", r#""a/b\t\n""#),
        (
            "'\u{1}\u{7f}\u{85}\u{2028}é😀'",
            "\"\\u0001\u{7f}\\u0085\\u2028é😀\"",
        ),
        ("a.empty", "[]"),
        ("o.empty", "{}"),
        ("a.one", "[\n  7\n]"),
        (
            "n",
            "{\n  \"one\": 1,\n  \"half\": 0.5,\n  \"neg\": -1,\n  \"big\": 1.23456789012346E+16\n}",
        ),
        (
            "a.mixed",
            "[\n  null,\n  true,\n  1.5,\n  \"s\",\n  [],\n  {}\n]",
        ),
        (
            "a.nested",
            "[\n  [\n    1,\n    2\n  ],\n  [\n    3,\n    4\n  ]\n]",
        ),
        ("list.*.id", "[\n  1,\n  2,\n  3\n]"),
    ] {
        assert_eq!(json(text), expected, "{text}");
    }
}

#[test]
fn from_json_reads_numbers_as_doubles_and_the_last_of_equal_names() {
    values(&[
        ("fromJSON('null')", "null"),
        ("fromJSON('-0')", "0"),
        ("fromJSON(' 1234.5 ')", "1234.5"),
        (
            "fromJSON('12345678901234567890') == 12345678901234567890",
            "true",
        ),
        ("fromJSON('1e400') == Infinity", "true"),
        ("fromJSON('\"abc''def\"')", r#""abc'def""#),
        ("fromJSON('\"\\u0041\"')", r#""A""#),
        (
            "fromJSON('[[1], [true, null], {}]')",
            "[[1],[true,null],{}]",
        ),
        (
            "fromJSON('{\"a\": 1, \"b\": 2, \"a\": 3}')",
            r#"{"a":3,"b":2}"#,
        ),
        ("fromJSON('{\"a\": 1, \"A\": 2}')", r#"{"a":2}"#),
        ("fromJSON('{\"a\": 1}').A", "1"),
        ("fromJSON('[\"a\", \"b\",]')", r#"["a","b"]"#),
        ("fromJSON(true)", "true"),
        ("fromJSON(toJSON(o)) == o", "false"),
        ("toJSON(fromJSON(toJSON(list))) == toJSON(list)", "true"),
    ]);
    refused(&[
        ("fromJSON(null)", "an empty string is not JSON"),
        ("fromJSON('')", "an empty string is not JSON"),
        ("fromJSON('abc')", "is not JSON"),
        ("fromJSON('{')", "is not JSON"),
        ("fromJSON(a)", "is not JSON"),
    ]);
}

#[test]
fn case_gives_the_first_value_whose_condition_is_true() {
    values(&[
        ("case(true, 'a', 'z')", r#""a""#),
        ("case(false, 'a', 'z')", r#""z""#),
        ("case(false, 'a', true, 'b', 'z')", r#""b""#),
        ("case(1 == 1, 1, 2)", "1"),
        ("case(true, '', 'z')", r#""""#),
        ("case(true, a.one, 1)", "[7]"),
        ("CASE(false, 1, null)", "null"),
    ]);
    let kind = "a condition must be a boolean";
    refused(&[
        ("case('true', 1, 2)", kind),
        ("case(1, 1, 2)", kind),
        ("case(null, 1, 2)", kind),
        ("case(a, 1, 2)", kind),
        ("case()", "takes pairs"),
        ("case(true)", "takes pairs"),
        ("case(true, 1)", "takes pairs"),
        ("case(true, 1, false, 2)", "takes pairs"),
    ]);
}

#[test]
fn functions_take_as_many_values_as_github_says() {
    let many = |count: usize| vec!["'x'"; count].join(", ");
    assert!(Expr::parse(&format!("format({})", many(255)), 0).is_ok());
    assert!(Expr::parse(&format!("format({})", many(256)), 0).is_err());
    assert!(Expr::parse(&format!("hashFiles({})", many(255)), 0).is_ok());
    assert!(Expr::parse(&format!("hashFiles({})", many(256)), 0).is_err());
    refused(&[
        ("contains('a')", "takes 2 values, but got 1"),
        ("contains('a', 'b', 'c')", "takes 2 values, but got 3"),
        ("startsWith()", "takes 2 values"),
        ("toJSON()", "takes 1 value"),
        ("toJSON(1, 2)", "takes 1 value"),
        ("hashFiles()", "takes at least 1 value"),
        ("cancelled(1)", "takes nothing"),
        ("upper('a')", "unknown function"),
        ("format", "unknown name"),
    ]);
}

#[test]
fn success_and_failure_may_ask_for_some_jobs_in_the_if_of_a_job() {
    hold(&[
        "success('good')",
        "failure('bad')",
        "failure('good', 'BAD')",
    ]);
    fail(&[
        "success('good', 'bad')",
        "success('none')",
        "failure('none')",
        "success('unknown')",
    ]);
    let expr = Expr::parse("success('good')", 0).unwrap();
    assert!(expr.check(ExprSite::JobIf).is_ok());
    assert_eq!(
        expr.check(ExprSite::StepIf).unwrap_err().message,
        "`success` takes no arguments here"
    );
}

#[test]
fn a_lone_literal_in_an_if_is_the_text_of_the_condition() {
    let holds = |text: &str| {
        IfCondition::parse(text, 0)
            .unwrap()
            .holds(&contexts())
            .unwrap()
    };
    assert!(!holds("${{ 'false' }}"));
    assert!(holds("'false'"));
    assert!(holds("${{ ('false') }}"));
    assert!(holds("${{ '' }}"));
    assert!(
        IfCondition::parse("${{ 'always()' }}", 0)
            .unwrap()
            .calls_status()
    );
    assert!(!IfCondition::parse("'always()'", 0).unwrap().calls_status());
}

/// The row of each place: what can be seen, as GitHub's table has it.
#[test]
fn every_place_sees_what_githubs_table_says() {
    let base = "github inputs vars";
    let matrix = "github inputs vars needs strategy matrix";
    let runner = "github inputs vars needs strategy matrix steps job runner env";
    let with = |base: &str, more: &str| format!("{base} {more}");
    let rows = [
        (ExprSite::RunName, base.to_owned()),
        (ExprSite::Concurrency, base.to_owned()),
        (ExprSite::CallInput, base.to_owned()),
        (ExprSite::Env, with(base, "secrets")),
        (ExprSite::CallOutput, with(base, "jobs")),
        (
            ExprSite::JobIf,
            with(base, "needs always success failure cancelled"),
        ),
        (ExprSite::Strategy, with(base, "needs")),
        (ExprSite::Job, matrix.to_owned()),
        (
            ExprSite::SnapshotIf,
            with(matrix, "always success failure cancelled"),
        ),
        (ExprSite::JobSecrets, with(matrix, "secrets")),
        (ExprSite::JobEnv, with(matrix, "secrets")),
        (ExprSite::JobDefaults, with(matrix, "env")),
        (ExprSite::Credentials, with(matrix, "secrets env")),
        (ExprSite::EnvironmentUrl, runner.to_owned()),
        (ExprSite::JobOutputs, with(runner, "secrets")),
        (ExprSite::ContainerEnv, with(runner, "secrets")),
        (
            ExprSite::StepIf,
            with(runner, "always success failure cancelled hashFiles"),
        ),
        (ExprSite::Step, with(runner, "secrets hashFiles")),
        (ExprSite::Nowhere, String::new()),
    ];
    let contexts = "github inputs vars needs strategy matrix secrets steps job runner env jobs";
    for (place, seen) in rows {
        for name in contexts.split(' ') {
            let expr = Expr::parse(&format!("{name}.x"), 0).unwrap();
            let may = seen.split(' ').any(|it| it == name);
            assert_eq!(expr.check(place).is_ok(), may, "{name} in {place:?}");
        }
        for name in ["always", "success", "failure", "cancelled", "hashFiles"] {
            let given = if name == "hashFiles" { "'x'" } else { "" };
            let expr = Expr::parse(&format!("{name}({given})"), 0).unwrap();
            let may = seen.split(' ').any(|it| it == name);
            assert_eq!(expr.check(place).is_ok(), may, "{name} in {place:?}");
        }
        let general = Expr::parse("fromJSON(format(join('a')))", 0).unwrap();
        assert!(general.check(place).is_ok());
    }
}

#[test]
fn expressions_that_explode_end_with_a_clear_error() {
    let large = "the result is larger than the limit of 10 MiB";
    let mut doubled =
        "join(a.three, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')".to_owned();
    for _ in 0..20 {
        doubled = format!("format('{{0}}{{0}}', {doubled})");
    }
    refused(&[(&doubled, large), (&format!("toJSON({doubled})"), large)]);
    let row = vec!["a.nested.*.*"; 40].join(" && ");
    assert!(eval(&row).is_ok());
    // Many pieces together count too, not only one.
    let mega = format!("'{}'", "y".repeat(1000));
    let piece = format!("format('{}', {mega})", "{0}".repeat(1000));
    let all = vec![piece; 3].join(" == ");
    assert!(eval(&all).is_ok());
    let mut contexts = contexts();
    contexts.set("text", ExprValue::from("z".repeat(6 << 20)));
    let twice = Expr::parse("format('{0}{0}', text)", 0).unwrap();
    assert!(twice.eval(&contexts).unwrap_err().message.contains(large));
    let quoted = Expr::parse("toJSON(fromJSON(toJSON(text)))", 0).unwrap();
    assert!(quoted.eval(&contexts).unwrap_err().message.contains(large));
}
