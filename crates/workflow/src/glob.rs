//! GitHub's patterns for branches, tags and paths: `*`, `**`, `?`, `+`, `[…]`, `\`. Not the shell's: `?` makes the character
//! before it optional, `+` repeats it.
//!
//! Matching keeps the set of places where the pattern may stand, so it takes (length of text × length of pattern) steps
//! and never backtracks.

use serde::{Deserialize, Serialize};

/// One pattern, without the `!` that negates it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GlobPattern {
    text: String,
    steps: Vec<GlobStep>,
}

/// A pattern that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing is in it.
    #[error("an empty pattern matches nothing")]
    Empty,
    /// A bracket without its end.
    #[error("`[` without `]` (write `\\[` for the character itself)")]
    OpenBracket,
    /// Nothing, or a range backwards, between brackets.
    #[error("`[{0}]` names no characters; inside are letters, digits and ranges such as a-z")]
    BadBracket(String),
    /// `?` or `+` without anything before it.
    #[error("`{0}` must follow the character that it makes optional or repeats")]
    NothingBefore(char),
    /// Longer than any name.
    #[error("a pattern may have {} characters", GlobPattern::LENGTH_MAX)]
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct GlobStep {
    what: CharMatcher,
    times: RepeatCount,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum CharMatcher {
    Char(char),
    OneOf(Vec<(char, char)>),
    NoSlash,
    Any,
    /// `**/` where a folder may begin: nothing, or anything up to a slash.
    Folders,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RepeatCount {
    Once,
    Optional,
    AtLeastOnce,
    Many,
}

impl GlobPattern {
    /// Characters in a pattern; git's own limit for a path is 4096.
    pub const LENGTH_MAX: usize = 4096;

    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        let chars: Vec<char> = text.chars().collect();
        if chars.len() > Self::LENGTH_MAX {
            return Err(GlobError::TooLong);
        }
        let mut steps: Vec<GlobStep> = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            let (step, next) = match chars[at] {
                '*' => star(&chars, at),
                '[' => bracket(&chars, at)?,
                sign @ ('?' | '+') => {
                    repeat(steps.last_mut(), sign)?;
                    at += 1;
                    continue;
                }
                '\\' if at + 1 < chars.len() => (
                    GlobStep {
                        what: CharMatcher::Char(chars[at + 1]),
                        times: RepeatCount::Once,
                    },
                    at + 2,
                ),
                c => (
                    GlobStep {
                        what: CharMatcher::Char(c),
                        times: RepeatCount::Once,
                    },
                    at + 1,
                ),
            };
            steps.push(step);
            at = next;
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let end = self.steps.len();
        let mut here = vec![false; end + 1];
        let mut next = vec![false; end + 1];
        // Each position "before step i" has a twin "inside step i": within a repetition or within folders.
        let mut inside = vec![false; end];
        let mut next_inside = vec![false; end];
        here[0] = true;
        self.skip(&mut here);
        for c in text.chars() {
            next.fill(false);
            next_inside.fill(false);
            for (i, step) in self.steps.iter().enumerate() {
                if !(here[i] || inside[i]) || !step.accepts(c) {
                    continue;
                }
                match (&step.what, step.times) {
                    (CharMatcher::Folders, _) => {
                        next_inside[i] = true;
                        next[i + 1] |= c == '/';
                    }
                    (_, RepeatCount::Once | RepeatCount::Optional) => next[i + 1] = true,
                    (_, RepeatCount::AtLeastOnce | RepeatCount::Many) => {
                        next_inside[i] = true;
                        next[i + 1] = true;
                    }
                }
            }
            self.skip(&mut next);
            std::mem::swap(&mut here, &mut next);
            std::mem::swap(&mut inside, &mut next_inside);
        }
        here[end]
    }

    /// Goes past the steps that may match nothing.
    fn skip(&self, places: &mut [bool]) {
        for (i, step) in self.steps.iter().enumerate() {
            if places[i]
                && (step.what == CharMatcher::Folders
                    || matches!(step.times, RepeatCount::Optional | RepeatCount::Many))
            {
                places[i + 1] = true;
            }
        }
    }
}

impl GlobStep {
    fn accepts(&self, c: char) -> bool {
        match &self.what {
            CharMatcher::Char(expected) => c == *expected,
            CharMatcher::OneOf(ranges) => ranges.iter().any(|&(from, to)| (from..=to).contains(&c)),
            CharMatcher::NoSlash => c != '/',
            CharMatcher::Any | CharMatcher::Folders => true,
        }
    }
}

fn star(chars: &[char], at: usize) -> (GlobStep, usize) {
    let stars = chars[at..].iter().take_while(|&&c| c == '*').count();
    let next = at + stars;
    if stars == 1 {
        return (
            GlobStep {
                what: CharMatcher::NoSlash,
                times: RepeatCount::Many,
            },
            next,
        );
    }
    let begins_folder = at == 0 || chars[at - 1] == '/';
    if begins_folder && chars.get(next) == Some(&'/') {
        return (
            GlobStep {
                what: CharMatcher::Folders,
                times: RepeatCount::Once,
            },
            next + 1,
        );
    }
    (
        GlobStep {
            what: CharMatcher::Any,
            times: RepeatCount::Many,
        },
        next,
    )
}

fn bracket(chars: &[char], at: usize) -> Result<(GlobStep, usize), GlobError> {
    let length = chars[at + 1..]
        .iter()
        .position(|&c| c == ']')
        .ok_or(GlobError::OpenBracket)?;
    let inner = &chars[at + 1..at + 1 + length];
    let bad = || GlobError::BadBracket(inner.iter().collect());
    let mut ranges = Vec::new();
    let mut i = 0;
    while i < inner.len() {
        if i + 2 < inner.len() && inner[i + 1] == '-' {
            if inner[i] > inner[i + 2] {
                return Err(bad());
            }
            ranges.push((inner[i], inner[i + 2]));
            i += 3;
        } else {
            ranges.push((inner[i], inner[i]));
            i += 1;
        }
    }
    if ranges.is_empty() {
        return Err(bad());
    }
    Ok((
        GlobStep {
            what: CharMatcher::OneOf(ranges),
            times: RepeatCount::Once,
        },
        at + length + 2,
    ))
}

fn repeat(before: Option<&mut GlobStep>, sign: char) -> Result<(), GlobError> {
    let step = before
        .filter(|step| step.what != CharMatcher::Folders)
        .ok_or(GlobError::NothingBefore(sign))?;
    step.times = match (step.times, sign) {
        (RepeatCount::Once, '?') | (RepeatCount::Optional, '?') => RepeatCount::Optional,
        (RepeatCount::Once | RepeatCount::AtLeastOnce, '+') => RepeatCount::AtLeastOnce,
        (RepeatCount::Optional | RepeatCount::AtLeastOnce | RepeatCount::Many, _)
        | (RepeatCount::Once, _) => RepeatCount::Many,
    };
    Ok(())
}

impl TryFrom<String> for GlobPattern {
    type Error = GlobError;

    fn try_from(text: String) -> Result<Self, GlobError> {
        Self::parse(&text)
    }
}

impl From<GlobPattern> for String {
    fn from(glob: GlobPattern) -> Self {
        glob.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of GitHub's "filter pattern cheat sheet": pattern, what matches, what doesn't.
    #[test]
    fn the_cheat_sheet_holds() {
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "feature/*",
                &["feature/my-branch", "feature/"],
                &["feature/a/b", "feature"],
            ),
            (
                "feature/**",
                &["feature/beta-a/my-branch", "feature/mona/the/octocat"],
                &["features/a"],
            ),
            ("main", &["main"], &["Main", "main2", "releases/main"]),
            ("*", &["main", "releases"], &["all/the/branches"]),
            ("**", &["all/the/branches", "every/tag", ""], &[]),
            (
                "*feature",
                &["mona-feature", "feature", "ver-10-feature"],
                &["a/feature"],
            ),
            ("v2*", &["v2", "v2.0", "v2.9"], &["v1", "v2/x"]),
            (
                "v[12].[0-9]+.[0-9]+",
                &["v1.10.1", "v2.0.0"],
                &["v3.0.0", "v1..1", "v1.0"],
            ),
            (
                "*.jsx?",
                &["page.js", "page.jsx"],
                &["page.jsxx", "a/page.js"],
            ),
            (
                "**.js",
                &["index.js", "js/index.js", "src/js/app.js"],
                &["index.jsx"],
            ),
            (
                "docs/*",
                &["docs/README.md", "docs/file.txt"],
                &["docs/a/b.md", "x/docs/a"],
            ),
            (
                "docs/**",
                &["docs/README.md", "docs/mona/octocat.txt"],
                &["doc/a"],
            ),
            (
                "docs/**/*.md",
                &[
                    "docs/README.md",
                    "docs/mona/hello-world.md",
                    "docs/a/markdown/file.md",
                ],
                &["docs/a.txt"],
            ),
            (
                "**/docs/**",
                &[
                    "docs/hello.md",
                    "dir/docs/my-file.txt",
                    "space/docs/plan/space.doc",
                ],
                &["mydocs/a"],
            ),
            (
                "**/README.md",
                &["README.md", "js/README.md"],
                &["aREADME.md"],
            ),
            (
                "**/*src/**",
                &["a/src/app.js", "my-src/code/js/app.js"],
                &["src"],
            ),
            (
                "**/*-post.md",
                &["my-post.md", "path/their-post.md"],
                &["my-post.mdx"],
            ),
            (
                "**/migrate-*.sql",
                &[
                    "migrate-10909.sql",
                    "db/migrate-v1.0.sql",
                    "db/sept/migrate-v1.sql",
                ],
                &["db/migrate.sql"],
            ),
            ("[CB]at", &["Cat", "Bat"], &["cat", "CBat"]),
            ("[1-2]00", &["100", "200"], &["300"]),
            (r"release\*", &["release*"], &["release1"]),
            (
                r"\!important",
                &["!important"],
                &["important", r"\!important"],
            ),
            (r"a\[b\]", &["a[b]"], &["ab"]),
            ("v[0-9]+?", &["v", "v1", "v12"], &["va"]),
            ("x?y+z", &["yz", "xyyz"], &["xz", "xxyz"]),
            ("[!a]b", &["!b", "ab"], &["cb"]),
            ("[a-]x", &["ax", "-x"], &["bx"]),
            ("**/*", &["a", "a/b", "a/b/c"], &[]),
            ("*/*", &["a/b"], &["a", "a/b/c"]),
            ("dir", &["dir"], &["dir/file"]),
            ("a**/b", &["a/b", "ax/y/b"], &["ab"]),
        ];
        for (pattern, yes, no) in table {
            let glob = GlobPattern::parse(pattern).unwrap();
            yes.iter()
                .for_each(|text| assert!(glob.matches(text), "{pattern} should match {text}"));
            no.iter()
                .for_each(|text| assert!(!glob.matches(text), "{pattern} should not match {text}"));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(GlobPattern::parse(""), Err(GlobError::Empty));
        assert_eq!(GlobPattern::parse("a[b"), Err(GlobError::OpenBracket));
        assert_eq!(
            GlobPattern::parse("[]"),
            Err(GlobError::BadBracket(String::new()))
        );
        assert_eq!(
            GlobPattern::parse("[9-1]"),
            Err(GlobError::BadBracket("9-1".to_owned()))
        );
        assert_eq!(GlobPattern::parse("?a"), Err(GlobError::NothingBefore('?')));
        assert_eq!(
            GlobPattern::parse("**/+"),
            Err(GlobError::NothingBefore('+'))
        );
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_its_size() {
        let glob = GlobPattern::parse(&"a+*".repeat(1000)).unwrap();
        assert!(!glob.matches(&format!("{}b/", "a".repeat(4000))));
    }
}
