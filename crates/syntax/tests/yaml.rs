//! What YAML is read as, and what is refused.

use proptest::prelude::*;
use shipway_syntax::{Source, Value, parse};

fn read(text: &str) -> Result<shipway_syntax::Node, String> {
    let source = Source::new("t.yaml", text);
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
        Value::Number { number: 31.0, .. }
    ));
    assert!(matches!(
        tree.get("quoted").unwrap().value,
        Value::String { .. }
    ));
    assert!(tree.get("empty").unwrap().is_null());
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, expected) in [
        (
            "a: 1\nb: 2\na: 3\n",
            "t.yaml:3:1: error: `a` is here twice; the first is on line 1",
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
    let source = Source::new("t.yaml", "ä: ö\nkey: wert\n");
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
    assert!(read(&text).unwrap_err().contains("nodes"));
    assert!(read(&"[".repeat(5_000)).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_place_inside_it(text in "(?s)[ -~\n\tä€&*:\\[\\]{}|>'\"#-]{0,200}") {
        let source = Source::new("t", text.clone());
        if let Err(problems) = parse(&source) {
            for span in problems.iter().filter_map(|problem| problem.span) {
                prop_assert!(span.start <= span.end && span.end <= text.len() && text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
            }
        }
    }
}
