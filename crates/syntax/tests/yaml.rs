//! What YAML is read as, and what is refused.

use proptest::prelude::*;
use shipway_syntax::{SourceFile, YamlValue, parse};

fn read(text: &str) -> Result<shipway_syntax::YamlNode, String> {
    let source = SourceFile::new("t.yaml", text);
    parse(&source).map_err(|problems| problems[0].one_line(&source))
}

#[test]
fn only_true_and_false_are_booleans_and_texts_stay_as_written() {
    let tree =
        read("on: push\nyes: no\nversion: 3.10\nhex: 0x1F\nflag: true\nempty:\nquoted: '1'\n")
            .unwrap();
    let text = |key: &str| tree.get(key).unwrap().as_scalar_text().map(str::to_owned);
    assert_eq!(text("on"), Some("push".into()));
    assert_eq!(text("yes"), Some("no".into()));
    assert_eq!(text("version"), Some("3.10".into()));
    assert!(matches!(
        tree.get("hex").unwrap().value,
        YamlValue::Number { number: 31.0, .. }
    ));
    assert!(matches!(
        tree.get("quoted").unwrap().value,
        YamlValue::String { .. }
    ));
    assert!(tree.get("empty").unwrap().is_null());
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, expected) in [
        (
            "a: 1\nb: 2\na: 3\n",
            "t.yaml:3:1: error: duplicate key `a` (first on line 1)",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "t.yaml:3:1: error: a second document; one file holds one; remove the `---` line",
        ),
        (
            "x: &a {b: 1}\ny:\n  <<: *a\n",
            "t.yaml:3:3: error: merge keys (`<<`) are not part of YAML 1.2; repeat the keys, or use an alias for the whole value",
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), expected);
    }
    assert!(read("a: [1, 2").unwrap_err().starts_with("t.yaml:"));
    assert!(read("a:\n\t- b").unwrap_err().contains("tab"));
}

#[test]
fn places_count_characters_before_and_bytes_inside() {
    let source = SourceFile::new("t.yaml", "ä: ö\nkey: wert\n");
    let tree = parse(&source).unwrap();
    let span = tree.get("key").unwrap().span;
    assert_eq!(&source.text[span.start..span.end], "wert");
    assert_eq!(source.position(span.start), (2, 6));
}

#[test]
fn a_billion_laughs_and_a_deep_nest_end_early() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (this, before) in ('b'..='i').zip('a'..) {
        text.push_str(&format!("{this}: &{this} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"));
    }
    assert!(read(&text).unwrap_err().contains("aliases expanded"));
    assert!(read(&"[".repeat(5_000)).is_err());
    // A long text many times over is as much, with few nodes.
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        "*a, ".repeat(1_000)
    );
    assert!(
        read(&long)
            .unwrap_err()
            .contains("32 MiB, aliases expanded")
    );
    // Each anchor around the one before.
    let around = format!("{}x{}", "[&x ".repeat(90), "]".repeat(90));
    assert!(read(&around).is_ok());
    // Aliases within aliases are as deep as what they stand for.
    let mut deep = "a0: &a0 [x]\n".to_owned();
    for level in 1..200 {
        deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(
        read(&deep)
            .unwrap_err()
            .contains("nested deeper than 100 levels")
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_place_inside_it(text in "(?s)[ -~\n\tä€&*:\\[\\]{}|>'\"#-]{0,200}") {
        let source = SourceFile::new("t", text.clone());
        if let Err(problems) = parse(&source) {
            for span in problems.iter().filter_map(|problem| problem.span) {
                prop_assert!(span.start <= span.end && span.end <= text.len() && text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
            }
        }
    }
}

#[test]
fn tags_say_what_a_scalar_is() {
    let kind =
        |text: &str| read(&format!("a: {text}\n")).map(|tree| tree.get("a").unwrap().value.clone());
    assert!(matches!(kind("!!str 3.10"), Ok(YamlValue::String { text, .. }) if text == "3.10"));
    assert!(matches!(kind("!!str true"), Ok(YamlValue::String { text, .. }) if text == "true"));
    assert!(matches!(kind("! 12"), Ok(YamlValue::String { text, .. }) if text == "12"));
    assert!(matches!(
        kind("!!int 12"),
        Ok(YamlValue::Number { number: 12.0, .. })
    ));
    assert!(matches!(kind("!!bool True"), Ok(YamlValue::Bool(true))));
    assert!(matches!(kind("!!null ~"), Ok(YamlValue::Null)));
    for (text, said) in [
        (
            "!!int 1.5",
            "t.yaml:1:4: error: `1.5` doesn't fit its tag `!!int`",
        ),
        (
            "!!bool yes",
            "t.yaml:1:4: error: `yes` doesn't fit its tag `!!bool`",
        ),
        (
            "!!int '1'",
            "t.yaml:1:4: error: `1` doesn't fit its tag `!!int`",
        ),
        (
            "!secret x",
            "t.yaml:1:4: error: unknown tag `!secret`; leave it out",
        ),
        (
            "!!binary x",
            "t.yaml:1:4: error: unknown tag `!!binary`; leave it out",
        ),
    ] {
        assert_eq!(kind(text).unwrap_err(), said, "{text}");
    }
}

#[test]
fn marks_line_ends_and_comments_of_every_editor_are_read() {
    for text in [
        "\u{feff}a: 1\nb: x\n",
        "a: 1\r\nb: x\r\n",
        "a: 1\rb: x\r",
        "---\na: 1\nb: x\n...\n",
        "%YAML 1.2\n---\na: 1\nb: x\n",
        "# first\n\na: 1 # one\n\n\nb: x # two",
        "{\"a\": 1, \"b\": \"x\"}",
        "{\n  a: 1, # one\n  b: x,\n}\n",
        "? a\n: 1\n? b\n: x\n",
        "a:   1\t\nb: \tx\n",
    ] {
        let tree = read(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(
            matches!(
                tree.get("a").unwrap().value,
                YamlValue::Number { number: 1.0, .. }
            ),
            "{text:?}"
        );
        assert_eq!(tree.get("b").unwrap().as_str(), Some("x"), "{text:?}");
    }
    for empty in ["", "\n\n", "# nothing\n", "---\n", "\u{feff}", "~"] {
        assert!(read(empty).unwrap().is_null(), "{empty:?}");
    }
}

#[test]
fn what_yaml_forbids_is_refused_with_its_place() {
    for (text, place) in [
        ("a: b: c\n", "t.yaml:1:5"),
        ("a:\n\t- b\n", "t.yaml:2:2"),
        ("a: [1, 2\nb: 3\n", "t.yaml:2:2"),
        ("a: 'open\n", "t.yaml:1:4"),
        ("a: \"\\q\"\n", "t.yaml:1:4"),
        ("a: @x\n", "t.yaml:1:4"),
        ("a: `x`\n", "t.yaml:1:4"),
        ("a: %x\n", "t.yaml:1:4"),
        ("- a\nb: c\n", "t.yaml:2:1"),
        ("a: *none\n", "t.yaml:1:4"),
        ("a: &x\n  b: *x\n", "t.yaml:2:6"),
        ("? [a, b]\n: c\n", "t.yaml:1:3"),
        ("a: 1\n---\nb: 2\n", "t.yaml:3:1"),
        ("a: 1\nA: 2\na: 3\n", "t.yaml:3:1"),
        ("a\0b\n", "t.yaml:1:2"),
        ("a: |x\n  y\n", "t.yaml:1:4"),
        ("  a: 1\n b: 2\n", "t.yaml:2:2"),
    ] {
        let error = read(text).expect_err(text);
        assert!(
            error.starts_with(&format!("{place}: error: ")),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn numbers_are_those_of_the_core_schema() {
    let value = |text: &str| {
        read(&format!("a: {text}\n"))
            .unwrap()
            .get("a")
            .unwrap()
            .value
            .clone()
    };
    for (text, number) in [
        ("0", 0.0),
        ("-1", -1.0),
        ("+1", 1.0),
        ("007", 7.0),
        ("0x1F", 31.0),
        ("0o17", 15.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e1", -5.0),
        ("1E+3", 1000.0),
        (".inf", f64::INFINITY),
        ("-.INF", f64::NEG_INFINITY),
    ] {
        assert!(
            matches!(value(text), YamlValue::Number { number: it, .. } if it == number),
            "{text}"
        );
    }
    for text in [
        "1_000",
        "0b1",
        "0X1F",
        "1:30",
        "1.2.3",
        "1e",
        "inf",
        "NaN",
        "+",
        ".",
        "0x",
        "0xg",
        "1 2",
        "12e03x",
        "-0x1",
        "2026-11-21",
    ] {
        assert!(
            matches!(value(text), YamlValue::String { .. }),
            "{text}: {:?}",
            value(text)
        );
    }
    for text in [
        "yes", "no", "on", "off", "Yes", "y", "n", "tRUE", "nULL", "None",
    ] {
        assert!(matches!(value(text), YamlValue::String { .. }), "{text}");
    }
}

#[test]
fn a_tab_where_spaces_belong_is_called_a_tab() {
    let help = "; there is a tab here: write spaces";
    for text in ["a:\n\t- b\n", "a:\n\tb: c\n"] {
        let error = read(text).expect_err(text);
        assert!(error.ends_with(help), "{text:?}: {error}");
    }
}
