//! Why problem matchers can't be used.

use std::path::PathBuf;

pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Per job; the next limit is per matcher.
pub(crate) const MATCHERS_MAX: usize = 100;
pub(crate) const PATTERNS_MAX: usize = 20;

/// Why the matchers of a file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the matchers in {}: {problem}", path.display())]
pub(crate) struct MatcherFileError {
    pub(crate) path: PathBuf,
    pub(crate) problem: MatcherProblem,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MatcherProblem {
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    #[error("the file has {size} bytes, the limit is {FILE_BYTES_MAX}")]
    TooLarge { size: u64 },
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("there are already {MATCHERS_MAX}")]
    TooManyMatchers,
    #[error("one has no `owner`")]
    NoOwner,
    #[error("{owner}: {problem}")]
    Definition {
        owner: String,
        problem: DefinitionProblem,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DefinitionProblem {
    #[error("unknown severity {0:?}")]
    UnknownSeverity(String),
    #[error("it has {count} patterns, but must have 1 to {PATTERNS_MAX}")]
    PatternCount { count: usize },
    #[error("only the last of several patterns may `loop`, and it must set `message`")]
    InvalidLoop,
    #[error("`{0}` is set twice")]
    DuplicateField(&'static str),
    #[error("`{field}` is the group {group}, which {regexp:?} doesn't have")]
    UnknownGroup {
        field: &'static str,
        group: usize,
        regexp: String,
    },
    #[error("no pattern sets `message`")]
    NoMessage,
    #[error("the pattern {pattern:?} can't be used: {reason}")]
    Unsupported { pattern: String, reason: String },
}
