//! Conformance of GitHub's expressions, rule by rule: each test is a rule, each row an expression and its value as JSON, or its
//! error. The rows record what the runner's own lexer, parser and functions do, corner cases included.

use shipway_workflow::expr::{Contexts, Expr, ExprValue, StatusChecks};

mod functions;
mod language;

/// The contexts that the rows evaluate against.
fn contexts() -> Contexts<'static> {
    let json = r#"{
        "n": {"one": 1, "half": 0.5, "neg": -1, "big": 12345678901234567},
        "a": {"empty": [], "one": [7], "three": ["x", "y", "z"], "nested": [[1, 2], [3, 4]], "mixed": [null, true, 1.5, "s", [], {}]},
        "o": {"empty": {}, "Key": "v", "null": "n", "true": "t", "NaN": "nan", "format": "f", "a-b": "dash", "_": "under", "1": "one", "": "blank", "1.5": "half"},
        "list": [{"id": 1, "tags": [{"k": "a"}, {"k": "b"}]}, {"id": 2, "tags": []}, {"ID": 3}, 4, null]
    }"#;
    let needs = r#"{"good": {"result": "success"}, "bad": {"result": "failure"}, "none": {"result": "skipped"}}"#;
    let mut contexts = Contexts::new().with_status(StatusChecks::FINE);
    let ExprValue::Object(object) = serde_json::from_str(json).unwrap() else {
        panic!("an object")
    };
    for (name, value) in object.iter() {
        contexts.set(name, value.clone());
    }
    contexts.with("needs", serde_json::from_str(needs).unwrap())
}

fn eval(text: &str) -> Result<String, String> {
    let expr = Expr::parse(text, 0).map_err(|error| error.message)?;
    let value = expr.eval(&contexts()).map_err(|error| error.message)?;
    Ok(serde_json::to_string(&value).unwrap())
}

fn values(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        assert_eq!(eval(text).as_deref(), Ok(*expected), "{text}");
    }
}

fn texts(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        let text = format!("format('{{0}}', {text})");
        let expected = serde_json::to_string(expected).unwrap();
        assert_eq!(eval(&text).as_deref(), Ok(&*expected), "{text}");
    }
}

fn hold(rows: &[&str]) {
    for text in rows {
        assert_eq!(eval(text).as_deref(), Ok("true"), "{text}");
    }
}

fn fail(rows: &[&str]) {
    for text in rows {
        assert_eq!(eval(text).as_deref(), Ok("false"), "{text}");
    }
}

fn refused(rows: &[(&str, &str)]) {
    for (text, said) in rows {
        let error = eval(text).expect_err(text);
        assert!(error.contains(said), "{text}: {error}");
    }
}
