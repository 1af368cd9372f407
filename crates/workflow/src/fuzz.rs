//! Properties that hold for any input: the fuzz targets of `fuzz/`, which ordinary tests also run briefly. Each takes
//! bytes, parses them, and panics when a property doesn't hold. Not part of the crate's interface.

use shipway_syntax::{Diagnostic, SourceFile};

use crate::{
    cron::CronSchedule,
    expr::{
        Contexts, EvalError, Expr, ExprSite, ExprValue, HashFiles, HashFilesError, IfCondition,
        StatusChecks, Template,
    },
    glob::GlobPattern,
    lint,
    model::FilterPattern,
};

/// YAML: read or refused, with places inside the text.
pub fn yaml(data: &[u8]) {
    let source = SourceFile::new("fuzz.yml", String::from_utf8_lossy(data).into_owned());
    match shipway_syntax::parse(&source) {
        Ok(tree) => {
            let json = serde_json::to_string(&tree);
            assert!(json.is_ok(), "a tree is plain data");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal says why");
            assert_spans_inside(&source, &problems);
        }
    }
}

/// Workflow and action files: all problems have places inside the text, and a model survives being written down.
pub fn files(data: &[u8]) {
    let source = SourceFile::new("fuzz.yml", String::from_utf8_lossy(data).into_owned());
    let parsed = crate::parse(&source);
    assert_spans_inside(&source, &parsed.diagnostics);
    let refused = parsed.diagnostics.iter().any(Diagnostic::is_error);
    assert_eq!(
        parsed.workflow.is_none(),
        refused,
        "a file is taken, or refused with a reason"
    );
    if let Some(workflow) = parsed.workflow {
        let json = serde_json::to_string(&workflow).expect("a model is plain data");
        let back = serde_json::from_str(&json).expect("what was written can be read");
        assert_eq!(workflow, back, "a model survives being written down");
    }
    assert_spans_inside(&source, &lint::check_workflow(&source));
    assert_spans_inside(&source, &lint::check_action(&source));
}

/// Expressions, alone, in text, and as conditions: read and evaluated, or refused with a place inside the text.
pub fn expressions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Expr::parse(&text, 0) {
        Ok(expr) => {
            let first = evaluated(&expr);
            assert_eq!(first, evaluated(&expr), "the same comes out twice");
            for path in expr.paths() {
                assert!(text.get(path.at).is_some(), "a path stands in the text");
            }
            let _ = (
                expr.is_constant(),
                expr.check(ExprSite::Step),
                expr.check(ExprSite::JobIf),
            );
        }
        Err(error) => {
            assert!(
                text.get(error.at.clone()).is_some(),
                "{:?} is inside {text:?}",
                error.at
            );
            assert!(!error.one_line().is_empty(), "a refusal says why");
        }
    }
    if let Ok(template) = Template::parse(&text, 0) {
        let _ = template.resolve(&contexts());
        let json = serde_json::to_string(&template).expect("a template is plain data");
        let back: Template = serde_json::from_str(&json).expect("what was written can be read");
        assert_eq!(template, back, "a template survives being written down");
    }
    if let Ok(condition) = IfCondition::parse(&text, 0) {
        let _ = condition.holds(&contexts());
    }
}

fn evaluated(expr: &Expr) -> Result<String, EvalError> {
    match expr.eval(&contexts()) {
        Ok(value) => {
            let json = value.to_json();
            let read = Contexts::new().with("x", ExprValue::from(json.as_str()));
            let back = Expr::parse("fromJSON(x)", 0).expect("it is an expression");
            // Deeper than JSON may be is the only thing that can't be read back.
            if let Ok(back) = back.eval(&read) {
                assert_eq!(back.kind(), value.kind(), "{json}");
            }
            Ok(json)
        }
        Err(error) => {
            assert!(!error.snippet().is_empty(), "an error can be shown");
            Err(error)
        }
    }
}

/// Patterns and times: the first line is the pattern, the rest its input.
pub fn patterns(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, names) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(glob) = GlobPattern::parse(pattern) {
        for name in names.lines().take(8) {
            let _ = glob.matches(name);
        }
        assert_eq!(glob.as_str(), pattern, "a pattern is kept as written");
    }
    let _ = pattern.parse::<FilterPattern>();
    if let Ok(cron) = CronSchedule::parse(pattern) {
        let start = jiff::civil::date(2026, 2, 28).at(23, 59, 30, 0);
        match cron.next(start) {
            Some(next) => {
                assert!(next > start, "the next time is later");
                assert!(
                    cron.next(next).is_some_and(|after| after > next),
                    "and so on"
                );
            }
            None => assert!(cron.never(), "only what never comes has no next time"),
        }
    }
}

fn assert_spans_inside(source: &SourceFile, problems: &[Diagnostic]) {
    for problem in problems {
        let span = problem.span.unwrap_or_default();
        let text = &source.text;
        assert!(
            span.start <= span.end && span.end <= text.len(),
            "{problem:?}"
        );
        assert!(text.is_char_boundary(span.start), "{problem:?}");
        assert!(
            !problem.one_line(source).is_empty(),
            "a problem can be shown"
        );
    }
}

struct NoFiles;

impl HashFiles for NoFiles {
    fn hash_files(&self, patterns: &[String]) -> Result<String, HashFilesError> {
        Ok(patterns.join(""))
    }
}

fn contexts() -> Contexts<'static> {
    const GITHUB: &str = r#"{"a": [1, "two", null, [true, {"b": 1.5}]], "text": "Hello", "o": {"k": "v", "K2": {}}, "n": -0.5}"#;
    let github: ExprValue = serde_json::from_str(GITHUB).expect("it is JSON");
    let names = [
        "github", "env", "vars", "needs", "steps", "matrix", "inputs", "a", "o",
    ];
    let contexts = names.iter().fold(Contexts::new(), |contexts, name| {
        contexts.with(name, github.clone())
    });
    contexts
        .with_status(StatusChecks::FINE)
        .with_files(&NoFiles)
}
