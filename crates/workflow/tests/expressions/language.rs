//! Literals, operators, comparisons, properties and filters.

use super::*;

#[test]
fn number_literals_have_the_forms_of_the_runners_lexer() {
    texts(&[
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("+0", "0"),
        ("007", "7"),
        ("+1", "1"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5"),
        ("-2.0", "-2"),
        ("1e3", "1000"),
        ("1.25E+2", "125"),
        ("1.2e-2", "0.012"),
        ("1e-400", "0"),
        ("0xfF", "255"),
        ("0x7FFFFFFF", "2147483647"),
        ("0x80000000", "-2147483648"),
        ("0o17", "15"),
        ("0o37777777777", "-1"),
        ("1e400", "Infinity"),
        ("-1e400", "-Infinity"),
        ("-Infinity", "-Infinity"),
        ("+Infinity", "Infinity"),
        ("Infinity", "Infinity"),
        ("NaN", "NaN"),
    ]);
    let bad = "is not a number";
    refused(&[
        ("1e", bad),
        ("1e+", bad),
        ("1.2.3", bad),
        ("0x", bad),
        ("0xg", bad),
        ("0X1", bad),
        ("0x100000000", bad),
        ("0o8", bad),
        ("-0x1", bad),
        ("1_000", bad),
        ("+", bad),
        ("-", bad),
        ("--1", bad),
        ("1-1", bad),
        ("+NaN", bad),
        ("-NaN", bad),
        ("1a", bad),
        ("١", "unexpected"),
        ("1 + 1", bad),
        ("1 +1", "expected an operator"),
        ("-n.one", bad),
    ]);
}

#[test]
fn words_are_names_whatever_their_case_and_constants_only_as_written() {
    values(&[
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("O.KEY", r#""v""#),
        ("FORMAT('x')", r#""x""#),
        ("toJson(1)", r#""1""#),
        ("format ( 'x' )", r#""x""#),
        ("o . Key", r#""v""#),
        ("\n\to\n.Key", r#""v""#),
        ("o\u{a0}.Key", r#""v""#),
    ]);
    refused(&[
        ("True", "unknown name"),
        ("NULL", "unknown name"),
        ("nan", "unknown name"),
        ("infinity", "unknown name"),
        ("é", "unexpected"),
        ("o.é", "unexpected"),
        ("#", "unexpected"),
        ("o.Key;", "unexpected"),
        ("`a`", "unexpected"),
        ("-a", "is not a number"),
        ("o.-b", "not a number"),
    ]);
}

#[test]
fn texts_are_in_single_quotes_and_double_them_inside() {
    values(&[
        ("''", r#""""#),
        ("''''", r#""'""#),
        ("'a''b'", r#""a'b""#),
        ("'\\n'", r#""\\n""#),
        ("'${{ }}'", r#""${{ }}""#),
        ("'\n'", r#""\n""#),
    ]);
    refused(&[
        ("'", "is not closed"),
        ("'a''", "is not closed"),
        ("\"a\"", "unexpected"),
        ("'a' 'b'", "expected an operator"),
    ]);
}

#[test]
fn operators_bind_and_group_as_in_the_runner() {
    hold(&[
        "3 < 2 < 1",
        "3 < 2 <= 1",
        "3 <= 2 < 1",
        "0 > 0 < 1",
        "2 > (2 > 0)",
        "2 <= 3 == true",
        "2 == 2 == 1",
        "2 == 2 != 0",
        "!2 < 3",
        "!o.none",
        "!!o.Key",
        "! ! true",
        "!(2 < 1)",
        "1 == 1 && 'b' == 'B'",
        "3 > n.one",
        "n['one'] < 2",
    ]);
    fail(&[
        "3 < (2 < 1)",
        "2 > 2 > 0",
        "2 <= (3 == true)",
        "2 == (2 == 1)",
        "2 == (2 != 0)",
        "1 == (1 && 2)",
        "'a' == ('a' && 'b')",
        "!(2 < 3)",
        "!o.Key",
    ]);
    values(&[
        ("1 || 2 && 3", "1"),
        ("(1 || 2) && 3", "3"),
        ("false && 0 || null", "null"),
        ("false && (0 || null)", "false"),
        ("0 || 0 || 2 || 3", "2"),
        ("false || '' || 'a' || 'b'", r#""a""#),
        ("false || ''", r#""""#),
        ("1 && 2 && 3", "3"),
        ("1 && 0 && 3", "0"),
        ("null && 1", "null"),
        ("'' && 1", r#""""#),
        ("((((1))))", "1"),
        ("(!o).Key", "null"),
    ]);
    refused(&[
        ("1 ==", "found the end"),
        ("== 1", "expected a value"),
        ("1 === 1", "is not an operator"),
        ("1 =! 1", "is not an operator"),
        ("1 <> 1", "expected a value"),
        ("true & true", "is not an operator"),
        ("true | true", "is not an operator"),
        ("1 !1", "expected an operator"),
        ("not true", "expected an operator"),
        ("()", "expected a value"),
        ("o.Key o.Key", "expected an operator"),
        ("1 ? 2 : 3", "unexpected `?`"),
        ("1 % 2", "unexpected `%`"),
    ]);
}

#[test]
fn what_need_not_be_asked_is_not_asked() {
    values(&[
        ("false && fromJSON('broken')", "false"),
        ("1 || fromJSON('broken')", "1"),
        ("case(true, 1, fromJSON('broken'), 2, 3)", "1"),
        ("case(false, fromJSON('broken'), 3)", "3"),
        ("format('{1}', fromJSON('broken'), 'b')", r#""b""#),
        ("format('', fromJSON('broken'))", r#""""#),
        ("join(a.one, fromJSON('broken'))", r#""7""#),
        ("join(o, fromJSON('broken'))", r#""""#),
        ("contains(o, fromJSON('broken'))", "false"),
        ("contains(a.empty, fromJSON('broken'))", "false"),
        ("startsWith(o, fromJSON('broken'))", "false"),
        ("o.Key[fromJSON('broken')]", "null"),
    ]);
}

#[test]
fn different_kinds_are_compared_as_numbers() {
    hold(&[
        "null == false",
        "null == 0",
        "null == ''",
        "null == ' '",
        "false == 0",
        "true == 1",
        "true == '1'",
        "false == ''",
        "0 == ''",
        "0 == ' 0 '",
        "255 == '0xff'",
        "8 == '0o10'",
        "'1e1' == 10",
        "'-Infinity' == -Infinity",
        "'INFINITY' == Infinity",
        "'+1.0' == 1",
        "null == null",
        "null >= null",
        "null <= 0",
        "'' <= null",
        "-1 < null",
        "'-1' < null",
        "null < true",
        "null < ' 1 '",
        "false < Infinity",
        "-Infinity < false",
        "0 < true",
        "'0' < true",
        "true > false",
        "true >= '1'",
        "a.one == a.one",
        "o == o",
        "a.one <= a.one",
        "o >= o",
        "NaN != NaN",
        "a.one != a.three",
        "o != null",
        "1.0 == 1",
    ]);
    fail(&[
        "true == 'true'",
        "1 == '1 1'",
        "0 == 'abc'",
        "null == 'null'",
        "NaN == NaN",
        "NaN < 1",
        "NaN > 1",
        "NaN <= NaN",
        "1 == NaN",
        "'NaN' == NaN",
        "a.empty == ''",
        "a.one == 7",
        "o == 'Object'",
        "a.one < a.one",
        "o > o",
        "a.empty < 1",
        "0 < o",
        "'' < a.one",
        "null < null",
        "null < false",
        "fromJSON('[]') == fromJSON('[]')",
        "true < true",
        "'a' < 1",
        "'a' > 1",
        "'1_0' == 10",
    ]);
}

#[test]
fn texts_are_compared_in_upper_case_by_their_units() {
    hold(&[
        "'abcxyz' == 'ABCXYZ'",
        "'A' < '['",
        "'a' < '['",
        "'Z' < '_'",
        "'b' > 'A'",
        "'10' < '9'",
        "'a' < 'ab'",
        "'ς' == 'Σ'",
        "'σ' == 'ς'",
        "'ü' == 'Ü'",
        "'Ç' >= 'ç'",
        "'i' != 'İ'",
        "'i' < 'İ'",
        "'ı' != 'I'",
        "'I' < 'ı'",
        "'абвэюя' == 'АБВЭЮЯ'",
        "'ß' != 'SS'",
        // By UTF-16 unit: a surrogate comes before U+FF01.
        "'😀' < '！'",
        "endsWith('x_ς', 'Σ')",
        "startsWith('Ünder', 'ü')",
        "contains('xÇx', 'ç')",
    ]);
    fail(&[
        "'a' < 'A'",
        "'a' > 'A'",
        "'ß' == 'ẞ'",
        "endsWith('x_İ', 'i')",
        "contains('I', 'ı')",
    ]);
}

#[test]
fn properties_are_found_by_any_name_and_items_by_whole_numbers() {
    values(&[
        ("o.KEY", r#""v""#),
        ("o['key']", r#""v""#),
        ("o.null", r#""n""#),
        ("o.true", r#""t""#),
        ("o.NaN", r#""nan""#),
        ("o.format", r#""f""#),
        ("o.a-b", r#""dash""#),
        ("o._", r#""under""#),
        ("o[1]", r#""one""#),
        ("o['1']", r#""one""#),
        ("o[1.5]", r#""half""#),
        ("o[true]", r#""t""#),
        ("o[null]", r#""blank""#),
        ("o[a.one]", "null"),
        ("o.nothing.at.all[3]", "null"),
        ("o.Key.length", "null"),
        ("o.Key[0]", "null"),
        ("a.three[0]", r#""x""#),
        ("a.three[1.9]", r#""y""#),
        ("a.three[0.5]", r#""x""#),
        ("a.three['1']", r#""y""#),
        ("a.three['0x2']", r#""z""#),
        ("a.three[true]", r#""y""#),
        ("a.three[null]", r#""x""#),
        ("a.three['']", r#""x""#),
        ("a.three[-0.5]", "null"),
        ("a.three[-1]", "null"),
        ("a.three[3]", "null"),
        ("a.three[1e10]", "null"),
        ("a.three[NaN]", "null"),
        ("a.three[Infinity]", "null"),
        ("a.three['x']", "null"),
        ("a.three[o]", "null"),
        ("a.three.length", "null"),
        ("a.nested[1][0]", "3"),
        ("(a.three)[1]", r#""y""#),
        ("fromJSON('[5]')[0]", "5"),
        ("fromJSON('{\"x\": {\"y\": 1}}').x.y", "1"),
        ("a[format('{0}', 'one')]", "[7]"),
    ]);
    refused(&[
        ("o.1", "expected the name"),
        ("o.", "expected the name"),
        ("o..a", "expected the name"),
        ("o.'a'", "expected the name"),
        ("'a'.b", "a literal has no properties"),
        ("1[0]", "a literal has no properties"),
        ("true.a", "a literal has no properties"),
        ("o[", "found the end"),
        ("o[]", "expected a value"),
        ("o['a'", "is never closed"),
        ("o.b@r", "unexpected"),
        ("o.format('x')", "expected an operator"),
        ("unknown.a", "unknown name"),
    ]);
}

#[test]
fn stars_give_what_is_inside_and_look_into_each_of_it() {
    values(&[
        ("a.three.*", r#"["x","y","z"]"#),
        ("a.three[*]", r#"["x","y","z"]"#),
        ("a.three[ * ]", r#"["x","y","z"]"#),
        ("a.empty.*", "[]"),
        ("o.Key.*", "[]"),
        ("o.none.*", "[]"),
    ]);
    values(&[
        ("list.*.id", "[1,2,3]"),
        ("list.*['ID']", "[1,2,3]"),
        ("list.*.tags", r#"[[{"k":"a"},{"k":"b"}],[]]"#),
        ("list.*.tags.*", r#"[{"k":"a"},{"k":"b"}]"#),
        ("list.*.tags.*.k", r#"["a","b"]"#),
        ("list.*.tags[0]", r#"[{"k":"a"}]"#),
        ("list.*.none.*", "[]"),
        ("list[*].id", "[1,2,3]"),
        ("a.nested.*.*", "[1,2,3,4]"),
        ("a.nested.*['1']", "[2,4]"),
        ("(list.*).id", "[1,2,3]"),
        ("(false || list.*).id", "[1,2,3]"),
        ("case(true, list.*, 1).id", "[1,2,3]"),
        ("list.id", "null"),
        ("join(list.*.id)", r#""1,2,3""#),
        ("contains(list.*.tags.*.k, 'B')", "true"),
        ("fromJSON(toJSON(list.*)).id", "null"),
    ]);
    refused(&[
        ("*", "expected a value"),
        ("a.three*", "unexpected `three*`"),
        ("a.three *", "expected an operator"),
        ("a.three[*", "expected `]`"),
        ("a.three[*.x]", "expected `]`"),
        ("format(*)", "expected a value"),
        ("null.*", "a literal has no properties"),
    ]);
}
