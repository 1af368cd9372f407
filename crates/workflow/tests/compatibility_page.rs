//! `docs/workflows.md`: each row of its tables has one of three verdicts, a reason where GitHub differs, and tests that exist.

#![allow(
    clippy::disallowed_methods,
    reason = "the page and the sources are files; the crate itself reads none"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// All Rust sources below a folder, without built ones.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// The names in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_row_has_a_verdict_a_reason_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/workflows.md")).unwrap();
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    let texts: Vec<String> = files.iter().flat_map(fs::read_to_string).collect();
    let functions: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| text.split("fn ").skip(1))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let mut mistakes = Vec::new();
    let mut rows = 0;
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [feature, verdict, reason, tests] = cells.as_slice() else {
            mistakes.push(format!("not four cells: {line}"));
            continue;
        };
        if *feature == "GitHub" || feature.starts_with("---") {
            continue;
        }
        rows += 1;
        if !["same", "different", "not there"].contains(verdict) {
            mistakes.push(format!("{feature}: the verdict {verdict:?}"));
        }
        if *verdict != "same" && reason.is_empty() {
            mistakes.push(format!("{feature}: no reason"));
        }
        let tests = quoted(tests);
        if *verdict != "not there" && tests.is_empty() {
            mistakes.push(format!("{feature}: no test"));
        }
        let missing = tests.iter().filter(|test| !functions.contains(**test));
        mistakes.extend(missing.map(|test| format!("{feature}: there is no test {test}")));
        if let Some((_, code)) = reason.split_once("reported as `") {
            let code = format!("\"{}\"", code.split('`').next().unwrap_or_default());
            if !texts.iter().any(|text| text.contains(&code)) {
                mistakes.push(format!("{feature}: nothing is reported as {code}"));
            }
        }
    }
    assert!(rows > 40, "{rows} rows");
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}
