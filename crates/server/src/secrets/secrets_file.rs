//! Secrets in a file that an operator keeps: a file of `NAME=value` lines, readable by its owner alone. Lines below a header such as `[production]`
//! are secrets of that environment: only what runs there gets them, in place of those of the same name above.
//!
//! Values go to jobs, instances and notification addresses that name them; they are never put into events, rows or logs.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, path::Path};

/// The secrets of a file.
#[derive(Clone, Default)]
pub(crate) struct SecretsFile {
    values: BTreeMap<String, String>,
    /// By environment, in lower case.
    of_environments: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why the secrets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file can't be read.
    #[error("the secrets file {path} can't be read: {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the secrets file {path} may be read by others: chmod 600 {path}")]
    Exposed {
        /// Which.
        path: String,
    },
    /// A line that is no `NAME=value`, and no header either. The line itself is not shown: it may hold a secret.
    #[error("line {line} of the secrets file {path} is neither NAME=value nor [ENVIRONMENT]")]
    Malformed {
        /// Which.
        path: String,
        /// Which line, from 1.
        line: usize,
    },
}

impl SecretsFile {
    /// Reads a file of `NAME=value` lines and headers; empty lines and lines that begin with `#` are passed over.
    pub(crate) fn read(path: &Path) -> Result<Self, SecretsError> {
        let shown = path.display().to_string();
        let unreadable = |source| SecretsError::Unreadable {
            path: shown.clone(),
            source,
        };
        let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SecretsError::Exposed { path: shown });
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let mut secrets = Self::default();
        let mut values = &mut secrets.values;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = header(line) {
                values = secrets.of_environments.entry(name).or_default();
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .filter(|(name, _)| is_name(name.trim()))
                .ok_or(SecretsError::Malformed {
                    path: shown.clone(),
                    line: index + 1,
                })?;
            values.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(secrets)
    }

    /// One secret.
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// One secret, as an environment sees it.
    #[must_use]
    pub(crate) fn get_in(&self, environment: &str, name: &str) -> Option<&str> {
        let own = self.of_environments.get(&environment.to_lowercase());
        own.and_then(|own| own.get(name))
            .map(String::as_str)
            .or_else(|| self.get(name))
    }

    /// Those of no environment, which every job sees.
    #[must_use]
    pub(crate) const fn all(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Those of an environment alone.
    #[must_use]
    pub(crate) fn for_environment(&self, environment: &str) -> BTreeMap<String, String> {
        let own = self.of_environments.get(&environment.to_lowercase());
        own.cloned().unwrap_or_default()
    }
}

/// The environment of a header: `[production]`.
fn header(line: &str) -> Option<String> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?.trim();
    let fine = !name.is_empty() && !name.contains(['[', ']', '=']);
    fine.then(|| name.to_lowercase())
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_an_environment_are_seen_there_alone_and_before_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        fs::write(
            &path,
            "A=1\nB=2\n[Production]\nB=3\nC==[x]\n[staging]\nC=5\n",
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let secrets = SecretsFile::read(&path).unwrap();
        let seen = |values: &BTreeMap<String, String>| {
            let shown = values.iter().map(|(name, value)| format!("{name}={value}"));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(seen(secrets.all()), ["A=1", "B=2"]);
        assert_eq!(
            seen(&secrets.for_environment("production")),
            ["B=3", "C==[x]"]
        );
        assert_eq!(seen(&secrets.for_environment("STAGING")), ["C=5"]);
        assert_eq!(secrets.get_in("production", "B"), Some("3"));
        assert_eq!(secrets.get_in("test", "B"), Some("2"));
        assert_eq!(secrets.get("C"), None);
        fs::write(&path, "[a\n").unwrap();
        assert!(SecretsFile::read(&path).is_err());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        fs::write(&path, "A=1\n# no\n\nB = 2\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            SecretsFile::read(&path),
            Err(SecretsError::Exposed { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(SecretsFile::read(&path).unwrap().get("B"), Some("2"));
        fs::write(&path, "no equals sign\n").unwrap();
        assert!(
            SecretsFile::read(&path)
                .err()
                .unwrap()
                .to_string()
                .contains("line 1")
        );
    }
}
