//! Why a report can't be read.

/// Limit for the nesting of elements.
pub(super) const DEPTH_MAX: usize = 100;

/// Why a report can't be read; shown as a warning.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("the pattern {pattern:?}: {source}")]
    InvalidPattern {
        pattern: String,
        source: globset::Error,
    },
    #[error(transparent)]
    InvalidPatterns(#[from] globset::Error),
    #[error("it can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it is not a file")]
    NotAFile,
    #[error("it is larger than {mebibytes} MiB")]
    TooLarge { mebibytes: u64 },
    #[error("it is broken at byte {position}: {source}")]
    BrokenXml {
        position: u64,
        source: quick_xml::Error,
    },
    #[error("it is incomplete")]
    Truncated,
    #[error("it has no <testsuite> or <testcase>")]
    NoTests,
    #[error("it is more than {DEPTH_MAX} elements deep")]
    TooDeep,
    #[error("it is neither Cobertura XML nor LCOV")]
    UnknownCoverageFormat,
}
