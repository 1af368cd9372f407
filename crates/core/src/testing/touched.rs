//! Whether a change touches a test. Tools name tests after files in many ways, and a false "no" would excuse a test that the
//! change has just broken: in doubt, the test is touched.

use super::{TestCase, TestId};

/// Stems of file names that occur in every folder and so identify nothing.
const EVERYWHERE: [&str; 6] = ["mod", "lib", "main", "index", "__init__", "conftest"];

/// What test files have before or after the name of what they test.
const AFFIXES: [&str; 8] = [
    "test_", "_test", ".test", ".spec", "_spec", "tests", "test", "spec",
];

/// Whether one of the `changed` paths may be the file that contains the test.
///
/// `tests.test_shop.TestCart` is in `tests/test_shop.py`; `com.example.CartTest` in `src/test/java/com/example/CartTest.java`;
/// `example.com/shop/cart` in any file of `cart/`; `nx/cart::tests::adds` in `src/cart.rs`.
///
/// If neither a file is given nor the class resembles a path, any test file may be the one.
#[must_use]
pub fn is_touched(case: &TestCase, changed: &[String]) -> bool {
    let is_placed = case.file.is_some() || case.id.class.contains(['.', '/', '\\', ':']);
    changed
        .iter()
        .any(|path| touches(path, case) || !is_placed && holds_tests(path))
}

fn holds_tests(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    path.contains("test") || path.contains("spec")
}

fn touches(path: &str, case: &TestCase) -> bool {
    if let Some(file) = &case.file
        && (is_end(path, file) || is_end(file, path))
    {
        return true;
    }
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = folder.rsplit('/').next().unwrap_or(folder);
    let stem = file.split('.').next().unwrap_or(file);
    // For such a stem the folder identifies the test.
    let meant = if EVERYWHERE.contains(&stem) {
        folder
    } else {
        stem
    };
    let is_go = file.ends_with(".go");
    let words = name_parts(&case.id);
    words.iter().any(|word| {
        !meant.is_empty() && (*word == meant || word.eq_ignore_ascii_case(bare(meant)))
            || is_go && !folder.is_empty() && *word == folder
    })
}

/// A file's stem without what says that it is a test; the stem where nothing else is left.
fn bare(stem: &str) -> &str {
    let cut = AFFIXES.iter().find_map(|affix| {
        let cut = stem
            .strip_prefix(affix)
            .or_else(|| stem.strip_suffix(affix));
        cut.filter(|cut| cut.len() > 2)
    });
    cut.unwrap_or(stem)
}

/// The words of a test's suite, class and the modules before its name.
fn name_parts(id: &TestId) -> Vec<&str> {
    let separators = |c: char| matches!(c, '.' | '/' | '\\' | ':' | '$' | ' ');
    let modules = id.name.rsplit_once("::").map_or("", |(modules, _)| modules);
    [id.suite.as_str(), id.class.as_str(), modules]
        .into_iter()
        .flat_map(|part| part.split(separators))
        .filter(|word| !word.is_empty())
        .collect()
}

/// Whether `path` ends in `end`, in whole steps.
fn is_end(path: &str, end: &str) -> bool {
    let end = end.trim_start_matches("./");
    let rest = path.strip_suffix(end);
    !end.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}
