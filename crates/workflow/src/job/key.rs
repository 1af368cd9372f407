//! What a job is called, from the run's log to names of files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters that a key may have: it is a file's name, and more may be hung on it.
pub(crate) const KEY_MAX: usize = 200;

/// A job's name within its run: `test`, `test.3` for the third of a matrix, `release.2~build` for the job `build` of the
/// workflow that the second of `release` calls. Safe as a file name and in an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobKey(String);

/// A text that can't be a job's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a job key such as test, test.3 or release~test of at most {KEY_MAX} characters"
)]
pub struct ParseJobKeyError(String);

impl JobKey {
    /// The key of the job `id` alone, or of the cell `cell` (from 0) of its matrix.
    ///
    /// Ids hold letters, digits, `-` and `_` only (the parser refuses others), so the dot makes no two keys equal.
    #[must_use]
    pub fn new(id: &str, cell: Option<usize>) -> Self {
        match cell {
            None => Self(id.to_owned()),
            Some(cell) => Self(format!("{id}.{}", cell + 1)),
        }
    }

    /// The key of a job of the workflow that the job of this key calls. Ids nested deeply can be too long for one.
    pub fn called_job(&self, id: &str, cell: Option<usize>) -> Result<Self, ParseJobKeyError> {
        format!("{self}~{}", Self::new(id, cell)).parse()
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the job in its own workflow: without those that call it, and without the cell.
    #[must_use]
    pub fn job_id(&self) -> &str {
        let last = self.0.rsplit('~').next().unwrap_or_default();
        last.split('.').next().unwrap_or_default()
    }

    /// The keys of the jobs whose calls lead here, the outermost first.
    pub fn callers(&self) -> impl Iterator<Item = Self> {
        self.0
            .match_indices('~')
            .map(|(at, _)| Self(self.0[..at].to_owned()))
    }
}

impl std::str::FromStr for JobKey {
    type Err = ParseJobKeyError;

    fn from_str(text: &str) -> Result<Self, ParseJobKeyError> {
        if text.len() <= KEY_MAX && text.split('~').all(is_segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseJobKeyError(text.chars().take(80).collect()))
        }
    }
}

/// `test` or `test.3`
fn is_segment(text: &str) -> bool {
    let (id, cell) = text
        .split_once('.')
        .map_or((text, None), |(id, cell)| (id, Some(cell)));
    is_identifier(id)
        && cell.is_none_or(|cell| {
            !cell.is_empty() && cell.len() <= 6 && cell.bytes().all(|b| b.is_ascii_digit())
        })
}

impl TryFrom<String> for JobKey {
    type Error = ParseJobKeyError;

    fn try_from(text: String) -> Result<Self, ParseJobKeyError> {
        text.parse()
    }
}

impl From<JobKey> for String {
    fn from(key: JobKey) -> Self {
        key.0
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether `text` may be the id of a job, a step, an input or an output: a letter or `_`, then letters, digits, `-` and `_`;
/// at most 100 of them.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_as_file_names() {
        assert_eq!(JobKey::new("test", Some(2)).as_str(), "test.3");
        assert_eq!(
            "test.3"
                .parse::<JobKey>()
                .map(|key| key.job_id().to_owned()),
            Ok("test".to_owned())
        );
        for bad in [
            "", ".", "..", "../x", "a/b", "test.", "test.x", "test.1.2", "-a", "a b", "~", "a~",
            "~a", "a~..", "a~~b",
        ] {
            assert!(bad.parse::<JobKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_name_the_calls_that_lead_to_a_job() {
        let key = JobKey::new("release", Some(1))
            .called_job("build", None)
            .unwrap();
        let key = key.called_job("test", Some(2)).unwrap();
        assert_eq!(key.as_str(), "release.2~build~test.3");
        assert_eq!(key.as_str().parse(), Ok(key.clone()));
        assert_eq!(key.job_id(), "test");
        let callers: Vec<String> = key.callers().map(|key| key.to_string()).collect();
        assert_eq!(callers, ["release.2", "release.2~build"]);
        assert_eq!(JobKey::new("a", None).callers().count(), 0);
        let long = JobKey::new(&"a".repeat(100), None);
        assert!(long.called_job(&"b".repeat(100), None).is_err());
    }
}
