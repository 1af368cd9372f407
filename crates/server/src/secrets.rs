//! Secrets and variables: a file of `NAME=value` lines, readable by its owner alone.
//!
//! Values go to jobs, instances and notification addresses that name them; they are never put into events, rows or logs.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, path::Path};

/// The secrets of a server.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, String>,
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
    /// A line that is no `NAME=value`. The line itself is not shown: it may hold a secret.
    #[error("line {line} of the secrets file {path} is not NAME=value")]
    Malformed {
        /// Which.
        path: String,
        /// Which line, from 1.
        line: usize,
    },
}

impl Secrets {
    /// Reads a file of `NAME=value` lines; empty lines and lines that begin with `#` are passed over.
    pub fn read(path: &Path) -> Result<Self, SecretsError> {
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
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
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
        Ok(Self { values })
    }

    /// One secret.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// All of them, for the `secrets` context of jobs.
    #[must_use]
    pub const fn all(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// `text` with each `$NAME` replaced. Unknown names are an error that names them, and no value.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(place) = rest.find('$') {
            out.push_str(&rest[..place]);
            let after = &rest[place + 1..];
            let end = after
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(after.len());
            let name = &after[..end];
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(self.get(name).ok_or_else(|| {
                    format!("the secret {name} is not set on the server (--secrets FILE)")
                })?);
            }
            rest = &after[end..];
        }
        out.push_str(rest);
        Ok(out)
    }
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
    fn names_are_replaced_and_unknown_ones_named_without_a_value() {
        let secrets = Secrets {
            values: [("HOOK".to_owned(), "http://127.0.0.1/x".to_owned())].into(),
        };
        assert_eq!(
            secrets.expand("$HOOK/y?z=$"),
            Ok("http://127.0.0.1/x/y?z=$".to_owned())
        );
        assert!(secrets.expand("$NONE").unwrap_err().contains("NONE"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        fs::write(&path, "A=1\n# no\n\nB = 2\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Secrets::read(&path),
            Err(SecretsError::Exposed { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Secrets::read(&path).unwrap().get("B"), Some("2"));
        fs::write(&path, "no equals sign\n").unwrap();
        assert!(
            Secrets::read(&path)
                .err()
                .unwrap()
                .to_string()
                .contains("line 1")
        );
    }
}
