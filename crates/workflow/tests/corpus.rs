//! A corpus of small files and what is said about each: `corpus/*.txt`, where a case is `=== what it is about`, the file, and
//! the diagnostics as lines with `> ` before them. A file that says nothing of `on` or `jobs` is given plain ones.
//!
//! `SHIPWAY_BLESS=1 cargo nextest run -p shipway-workflow --test corpus` writes what is said now; look at the difference.

#![allow(
    clippy::disallowed_methods,
    reason = "the corpus is files; the crate itself reads none"
)]

use std::{fmt::Write as _, fs, path::Path};

use shipway_syntax::SourceFile;

struct Case<'t> {
    title: &'t str,
    file: String,
    said: Vec<&'t str>,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("=== ") {
            cases.push(Case {
                title,
                file: String::new(),
                said: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("the file begins with a case");
        match line.strip_prefix("> ") {
            Some(said) => case.said.push(said),
            None => writeln!(case.file, "{line}").expect("a String takes everything"),
        }
    }
    cases
}

/// With plain `on` and `jobs`, where the case has none.
fn completed(file: &str) -> String {
    let mut text = format!("{}\n", file.trim_end());
    if file.starts_with(['-', '[']) {
        return text;
    }
    for (key, line) in [
        ("on:", "on: push\n"),
        (
            "jobs:",
            "jobs: { a: { runs-on: x, steps: [{ run: a }] } }\n",
        ),
    ] {
        if !file
            .lines()
            .any(|line| line.replace('"', "").starts_with(key))
        {
            text.push_str(line);
        }
    }
    text
}

fn diagnostics(case: &Case<'_>) -> Vec<String> {
    let source = SourceFile::new("w.yml", completed(&case.file));
    let parsed = shipway_workflow::parse(&source);
    let refused = parsed
        .diagnostics
        .iter()
        .any(shipway_syntax::Diagnostic::is_error);
    assert_eq!(parsed.workflow.is_none(), refused, "{}", case.title);
    parsed
        .diagnostics
        .iter()
        .map(|problem| problem.one_line(&source))
        .collect()
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    let text = fs::read_to_string(&path).unwrap();
    let cases = cases(&text);
    if std::env::var_os("SHIPWAY_BLESS").is_some() {
        let mut out = String::new();
        for case in &cases {
            let said = diagnostics(case)
                .iter()
                .map(|line| format!("> {line}\n"))
                .collect::<String>();
            write!(out, "=== {}\n{}\n{said}", case.title, case.file.trim_end()).unwrap();
        }
        fs::write(&path, out).unwrap();
        return;
    }
    for case in &cases {
        assert_eq!(
            diagnostics(case),
            case.said,
            "{name}: {}\n{}",
            case.title,
            case.file
        );
    }
}

/// Nothing is said about what GitHub takes.
#[test]
fn what_github_takes_is_taken_without_a_word() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/accepted.txt"))
            .unwrap();
    for case in cases(&text) {
        assert_eq!(
            diagnostics(&case),
            Vec::<String>::new(),
            "{}\n{}",
            case.title,
            case.file
        );
    }
}

#[test]
fn mistakes_in_triggers_are_told() {
    check("triggers.txt");
}

#[test]
fn mistakes_in_jobs_and_steps_are_told() {
    check("jobs.txt");
}

#[test]
fn mistakes_in_the_whole_are_told() {
    check("whole.txt");
}
