//! Problem matchers: patterns that setup actions register (`::add-matcher::FILE`) to turn a tool's output into
//! annotations.
//!
//! The patterns are written for JavaScript's backtracking engine. The `regex` crate takes linear time, and lines are
//! bounded in length, so no pattern can stall a job. Lookaround and backreferences are not supported and rejected
//! with that reason.

use std::{borrow::Cow, fs, path::Path, sync::Arc};

use regex::bytes::{Captures, Regex};
use serde::{Deserialize, Serialize};
use shipway_workflow::job::AnnotationLevel;

use crate::{
    matcher_error::{
        DefinitionProblem, FILE_BYTES_MAX, MATCHERS_MAX, MatcherFileError, MatcherProblem,
        PATTERNS_MAX,
    },
    matcher_regex::compile_pattern,
};

/// Longer lines are not matched.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The active problem matchers, the newest first.
#[derive(Clone, Default)]
pub(crate) struct ProblemMatchers(Vec<ProblemMatcher>);

#[derive(Clone)]
struct ProblemMatcher {
    owner: String,
    severity: Option<String>,
    patterns: Vec<MatcherPattern>,
    /// For each pattern except the last: what it matched in the preceding lines.
    found: Vec<Option<MatchedFields>>,
    /// The definition as JSON, for the resume state.
    text: Arc<str>,
}

#[derive(Clone)]
struct MatcherPattern {
    regex: Regex,
    wanted: GroupIndices,
    repeats: bool,
}

/// Indices of capture groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct GroupIndices {
    file: Option<usize>,
    #[serde(rename = "fromPath")]
    from_path: Option<usize>,
    line: Option<usize>,
    column: Option<usize>,
    severity: Option<usize>,
    code: Option<usize>,
    message: Option<usize>,
}

/// Fields matched so far.
#[derive(Clone, Debug, Default)]
struct MatchedFields {
    file: Option<String>,
    from_path: Option<String>,
    line: Option<String>,
    column: Option<String>,
    severity: Option<String>,
    code: Option<String>,
    message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatchedProblem {
    pub(crate) level: AnnotationLevel,
    pub(crate) message: String,
    /// Joined to the folder of `from_path`, if there is one.
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) code: Option<String>,
}

#[derive(Deserialize)]
struct MatcherFile {
    #[serde(rename = "problemMatcher", default)]
    matchers: Vec<MatcherDefinition>,
}

#[derive(Serialize, Deserialize)]
struct MatcherDefinition {
    #[serde(default)]
    owner: String,
    #[serde(default)]
    severity: Option<String>,
    #[serde(default)]
    pattern: Vec<PatternDefinition>,
}

#[derive(Serialize, Deserialize)]
struct PatternDefinition {
    #[serde(default)]
    regexp: String,
    #[serde(default, rename = "loop")]
    repeats: bool,
    #[serde(flatten)]
    wanted: GroupIndices,
}

impl ProblemMatchers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the matchers of a file, replacing those with the same owner.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<(), MatcherFileError> {
        let failed = |problem| MatcherFileError {
            path: path.to_owned(),
            problem,
        };
        for file in read_definitions(path).map_err(failed)? {
            let matcher = ProblemMatcher::from_parts(file).map_err(failed)?;
            self.remove_owner(&matcher.owner);
            if self.0.len() >= MATCHERS_MAX {
                return Err(failed(MatcherProblem::TooManyMatchers));
            }
            self.0.insert(0, matcher);
        }
        Ok(())
    }

    /// The definitions as JSON, the newest first.
    pub(crate) fn definitions(&self) -> Vec<Arc<str>> {
        self.0.iter().map(|it| Arc::clone(&it.text)).collect()
    }

    /// Restores matchers from [`Self::definitions`]; ignores invalid ones.
    pub(crate) fn from_definitions<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let matchers = texts.into_iter().filter_map(|text| {
            let file = serde_json::from_str(text).ok()?;
            ProblemMatcher::from_parts(file).ok()
        });
        Self(matchers.take(MATCHERS_MAX).collect())
    }

    /// Removes the matcher with this owner.
    pub(crate) fn remove_owner(&mut self, owner: &str) {
        self.0.retain(|it| !it.owner.eq_ignore_ascii_case(owner));
    }

    /// Removes the matchers whose owners are in a file.
    pub(crate) fn remove_file(&mut self, path: &Path) -> Result<(), MatcherFileError> {
        let files = read_definitions(path);
        let files = files.map_err(|problem| MatcherFileError {
            path: path.to_owned(),
            problem,
        })?;
        files.iter().for_each(|file| self.remove_owner(&file.owner));
        Ok(())
    }

    /// Matches a line; returns the problem that it completes.
    pub(crate) fn match_line(&mut self, line: &[u8]) -> Option<MatchedProblem> {
        if line.len() > LINE_BYTES_MAX {
            return None;
        }
        let line = strip_colours(line);
        for at in 0..self.0.len() {
            let Some(found) = self.0[at].match_line(&line) else {
                continue;
            };
            let others = self
                .0
                .iter_mut()
                .enumerate()
                .filter(|(other, _)| *other != at);
            others.for_each(|(_, other)| other.found.fill(None));
            if let Some(problem) = found.into_problem() {
                return Some(problem);
            }
        }
        None
    }
}

fn read_definitions(path: &Path) -> Result<Vec<MatcherDefinition>, MatcherProblem> {
    let size = fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(MatcherProblem::TooLarge { size });
    }
    let text = fs::read(path)?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let file: MatcherFile = serde_json::from_slice(text)?;
    Ok(file.matchers)
}

impl ProblemMatcher {
    fn from_parts(file: MatcherDefinition) -> Result<Self, MatcherProblem> {
        // Can't fail: the definition consists of strings and numbers.
        let text = serde_json::to_string(&file).unwrap_or_default();
        let owner = file.owner;
        if owner.is_empty() {
            return Err(MatcherProblem::NoOwner);
        }
        let failed = |problem| MatcherProblem::Definition {
            owner: owner.clone(),
            problem,
        };
        if let Some(severity) = file
            .severity
            .as_deref()
            .filter(|it| parse_severity(it).is_none())
        {
            let severity = severity.to_owned();
            return Err(failed(DefinitionProblem::UnknownSeverity(severity)));
        }
        let count = file.pattern.len();
        if count == 0 || count > PATTERNS_MAX {
            return Err(failed(DefinitionProblem::PatternCount { count }));
        }
        let (mut patterns, mut set) = (Vec::new(), Vec::new());
        for (index, pattern) in file.pattern.into_iter().enumerate() {
            let is_last = index + 1 == count;
            if pattern.repeats && (!is_last || count == 1 || pattern.wanted.message.is_none()) {
                return Err(failed(DefinitionProblem::InvalidLoop));
            }
            let regex = compile_pattern(&pattern.regexp).map_err(&failed)?;
            for (name, group) in pattern.wanted.named_groups() {
                if set.contains(&name) {
                    return Err(failed(DefinitionProblem::DuplicateField(name)));
                }
                if group >= regex.captures_len() {
                    return Err(failed(DefinitionProblem::UnknownGroup {
                        field: name,
                        group,
                        regexp: pattern.regexp.clone(),
                    }));
                }
                set.push(name);
            }
            patterns.push(MatcherPattern {
                regex,
                wanted: pattern.wanted,
                repeats: pattern.repeats,
            });
        }
        if !set.contains(&"message") {
            return Err(failed(DefinitionProblem::NoMessage));
        }
        Ok(Self {
            owner,
            severity: file.severity,
            patterns,
            found: vec![None; count - 1],
            text: text.into(),
        })
    }

    /// Matches a line. With several patterns each must match the line after that of the previous one; a last pattern
    /// with `loop` may match repeatedly.
    fn match_line(&mut self, line: &[u8]) -> Option<MatchedFields> {
        let last = self.patterns.len() - 1;
        for (index, pattern) in self.patterns.iter().enumerate().rev() {
            let before = match index {
                0 => None,
                index => match &self.found[index - 1] {
                    Some(before) => Some(before.clone()),
                    None => continue,
                },
            };
            let captures = pattern.regex.captures(line);
            let found = captures.map(|captures| {
                MatchedFields::from_parts(before.as_ref(), &pattern.wanted, &captures)
            });
            match found {
                Some(mut found) if index == last => {
                    self.found.fill(None);
                    if pattern.repeats {
                        self.found[index - 1] = before;
                    }
                    found.severity = found.severity.filter(|it| !it.is_empty());
                    found.severity = found.severity.or_else(|| self.severity.clone());
                    return Some(found);
                }
                // A line that doesn't match ends the loop.
                None if index == last && last > 0 => self.found[index - 1] = None,
                found if index < last => self.found[index] = found,
                _ => {}
            }
        }
        None
    }
}

impl GroupIndices {
    fn named_groups(&self) -> impl Iterator<Item = (&'static str, usize)> {
        [
            ("file", self.file),
            ("fromPath", self.from_path),
            ("line", self.line),
            ("column", self.column),
            ("severity", self.severity),
            ("code", self.code),
            ("message", self.message),
        ]
        .into_iter()
        .filter_map(|(name, group)| Some((name, group?)))
    }
}

impl MatchedFields {
    fn from_parts(before: Option<&Self>, wanted: &GroupIndices, captures: &Captures<'_>) -> Self {
        let pick = |of: fn(&Self) -> &Option<String>, group: Option<usize>| {
            let known = before.and_then(|before| of(before).clone());
            // A group that didn't participate in the match is empty.
            let text = |group: usize| captures.get(group).map_or(&b""[..], |it| it.as_bytes());
            known.or_else(|| Some(String::from_utf8_lossy(text(group?)).into_owned()))
        };
        Self {
            file: pick(|it| &it.file, wanted.file),
            from_path: pick(|it| &it.from_path, wanted.from_path),
            line: pick(|it| &it.line, wanted.line),
            column: pick(|it| &it.column, wanted.column),
            severity: pick(|it| &it.severity, wanted.severity),
            code: pick(|it| &it.code, wanted.code),
            message: pick(|it| &it.message, wanted.message),
        }
    }

    /// `None` if the message is empty or the severity unknown.
    fn into_problem(self) -> Option<MatchedProblem> {
        let message = self.message.filter(|it| !it.trim().is_empty())?;
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let file = self.file.filter(|file| !file.trim().is_empty());
        let file = file.map(|file| match &self.from_path {
            Some(from) if !file.starts_with('/') => {
                let folder = Path::new(from).parent().unwrap_or(Path::new(""));
                folder.join(file).display().to_string()
            }
            _ => file,
        });
        Some(MatchedProblem {
            level: match self.severity.as_deref() {
                None => AnnotationLevel::Error,
                Some(word) => parse_severity(word)?,
            },
            message,
            file,
            line: number(self.line),
            column: number(self.column),
            code: self
                .code
                .map(|code| code.trim().to_owned())
                .filter(|it| !it.is_empty()),
        })
    }
}

fn parse_severity(word: &str) -> Option<AnnotationLevel> {
    Some(match word.to_ascii_lowercase().as_str() {
        "" | "error" => AnnotationLevel::Error,
        "warning" => AnnotationLevel::Warning,
        "notice" => AnnotationLevel::Notice,
        _ => return None,
    })
}

/// Removes ANSI colour codes.
pub(crate) fn strip_colours(line: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(line, b"\x1b[").is_none() {
        return Cow::Borrowed(line);
    }
    let (mut out, mut rest) = (Vec::with_capacity(line.len()), line);
    while let Some(at) = memchr::memmem::find(rest, b"\x1b[") {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 2..];
        let code = |b: &&u8| b.is_ascii_digit() || **b == b';';
        rest = &rest[rest.iter().take_while(code).count()..];
        rest = rest.strip_prefix(b"m").unwrap_or(rest);
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with(matcher: &Value) -> Result<ProblemMatchers, MatcherFileError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        fs::write(&path, json!({ "problemMatcher": [matcher] }).to_string()).unwrap();
        let mut matchers = ProblemMatchers::default();
        matchers.add_file(&path).map(|()| matchers)
    }

    fn problems(matchers: &mut ProblemMatchers, text: &str) -> Vec<String> {
        let lines = text
            .lines()
            .filter_map(|line| matchers.match_line(line.as_bytes()));
        lines
            .map(|it| {
                let number = |n: Option<u32>| n.map_or("-".to_owned(), |n| n.to_string());
                let (line, column) = (number(it.line), number(it.column));
                let file = it.file.as_deref().unwrap_or("-");
                let code = it.code.as_deref().unwrap_or("-");
                format!(
                    "{:?} {file}:{line}:{column} {} [{code}]",
                    it.level, it.message
                )
            })
            .collect()
    }

    /// The matchers of GitHub's own setup actions, with their original patterns.
    #[test]
    fn matchers_of_known_tools_find_what_those_print() {
        let tsc = json!({"owner": "tsc", "pattern": [{
            "regexp": "^(?:\\s+\\d+\\>)?([^\\s].*)\\((\\d+),(\\d+)\\)\\s*:\\s+(error|warning|info)\\s+(\\w{1,2}\\d+)\\s*:\\s*(.*)$",
            "file": 1, "line": 2, "column": 3, "severity": 4, "code": 5, "message": 6}]});
        assert_eq!(
            problems(
                &mut with(&tsc).unwrap(),
                "fine\nsrc/a.ts(3,7): error TS2304: Cannot find name 'x'.\nb.ts(1,1): info TS1: x"
            ),
            ["Error src/a.ts:3:7 Cannot find name 'x'. [TS2304]"]
        );
        let stylish = json!({"owner": "eslint-stylish", "pattern": [
            {"regexp": "^([^\\s].*)$", "file": 1},
            {"regexp": "^\\s+(\\d+):(\\d+)\\s+(error|warning|info)\\s+(.*)\\s\\s+(.*)$",
             "line": 1, "column": 2, "severity": 3, "message": 4, "code": 5, "loop": true}]});
        assert_eq!(
            problems(
                &mut with(&stylish).unwrap(),
                "\u{1b}[4mtest.js\u{1b}[24m\n  1:0   error  Missing \"use strict\" statement  strict\n  5:10  warning  'addOne' is defined but never used  no-unused-vars\n\n  7:1  error  nobody's  none\nother.js\n  2:2  error  x  y"
            ),
            [
                "Error test.js:1:0 Missing \"use strict\" statement [strict]",
                "Warning test.js:5:10 'addOne' is defined but never used [no-unused-vars]",
                "Error other.js:2:2 x [y]",
            ]
        );
        let python = json!({"owner": "python", "pattern": [
            {"regexp": "^\\s*File\\s\\\"(.*)\\\",\\sline\\s(\\d+),\\sin\\s(.*)$", "file": 1, "line": 2},
            {"regexp": "^\\s*raise\\s(.*)\\(\\'(.*)\\'\\)$", "message": 2}]});
        assert_eq!(
            problems(
                &mut with(&python).unwrap(),
                "Traceback:\n  File \"a.py\", line 4, in <module>\n    raise ValueError('no')"
            ),
            ["Error a.py:4:- no [-]"]
        );
        let go = json!({"owner": "go", "pattern": [{
            "regexp": "^\\s*(\\.{0,2}[\\/\\\\].+\\.go):(?:(\\d+):(\\d+):)? (.*)", "file": 1, "line": 2, "column": 3, "message": 4}]});
        assert_eq!(
            problems(
                &mut with(&go).unwrap(),
                "./main.go:7:2: undefined: x\n./b.go: no"
            ),
            [
                "Error ./main.go:7:2 undefined: x [-]",
                "Error ./b.go:-:- no [-]"
            ]
        );
        let csc = json!({"owner": "csc", "severity": "warning", "pattern": [{
            "regexp": "^([^[&~{}]+)\\s\\[(.+)\\]: (.*)$", "file": 1, "fromPath": 2, "message": 3}]});
        assert_eq!(
            problems(&mut with(&csc).unwrap(), "a.cs [/w/proj/x.csproj]: Müll"),
            ["Warning /w/proj/a.cs:-:- Müll [-]"]
        );
    }

    #[test]
    fn matchers_that_cant_be_are_refused_with_the_reason() {
        let of = |patterns: Value| {
            with(&json!({"owner": "x", "pattern": patterns}))
                .err()
                .unwrap()
                .to_string()
        };
        for (patterns, why) in [
            (json!([]), "0 patterns"),
            (json!([{"regexp": "a"}]), "no pattern sets"),
            (json!([{"regexp": "(a)", "message": 2}]), "doesn't have"),
            (
                json!([{"regexp": "(a)", "message": 1, "loop": true}]),
                "`loop`",
            ),
            (
                json!([{"regexp": "(a)", "message": 1}, {"regexp": "(a)", "message": 1}]),
                "set twice",
            ),
            (json!([{"regexp": "(?=a)(a)", "message": 1}]), "look-around"),
            (
                json!([{"regexp": "(a)\\1", "message": 1}]),
                "backreferences",
            ),
            (json!([{"regexp": "(a", "message": 1}]), "unclosed group"),
            (
                json!([{"regexp": "((((a{1000}){1000}){1000}))", "message": 1}]),
                "size limit",
            ),
        ] {
            let said = of(patterns.clone());
            assert!(said.contains(why), "{patterns}: {said}");
        }
        assert!(
            with(&json!({"pattern": []}))
                .err()
                .unwrap()
                .to_string()
                .contains("no `owner`")
        );
        let severity =
            json!({"owner": "x", "severity": "bad", "pattern": [{"regexp": "(a)", "message": 1}]});
        assert!(
            with(&severity)
                .err()
                .unwrap()
                .to_string()
                .contains("severity")
        );
        let missing = ProblemMatchers::default()
            .add_file(Path::new("/nowhere.json"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("/nowhere.json"), "{missing}");
    }

    #[test]
    fn the_newest_of_an_owner_counts_and_goes_when_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        let mut matchers = ProblemMatchers::default();
        for word in ["one", "two"] {
            let file = json!({"problemMatcher": [{"owner": "o", "pattern": [{"regexp": format!("({word})"), "message": 1}]}]});
            fs::write(&path, format!("\u{feff}{file}")).unwrap();
            matchers.add_file(&path).unwrap();
        }
        assert_eq!(problems(&mut matchers, "one\ntwo"), ["Error -:-:- two [-]"]);
        matchers.remove_file(&path).unwrap();
        assert!(matchers.is_empty());
    }

    #[test]
    fn patterns_that_take_others_ages_take_no_time_here() {
        let matcher = json!({"owner": "x", "pattern": [{"regexp": "^(a+)+$", "message": 1}]});
        let mut matchers = with(&matcher).unwrap();
        let line = format!("{}b", "a".repeat(LINE_BYTES_MAX - 1));
        let begun = std::time::Instant::now();
        assert!(matchers.match_line(line.as_bytes()).is_none());
        assert!(
            matchers
                .match_line(&b"a".repeat(LINE_BYTES_MAX + 1))
                .is_none()
        );
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
        assert!(matchers.match_line(b"a\xff").is_none());
    }
}
