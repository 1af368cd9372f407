//! The environment of an instance: clean, so that nothing of the server's leaks in, and complete, so that a release finds
//! everything by variables.
//!
//! A value of `run.env` may refer to a secret or one of the variables below as `$NAME` or `${NAME}`; `$$` is a dollar sign.
//! Values are passed to the process only: no log, file or error contains one.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use shipway_core::target::{InstanceId, Workload};

use super::SecretResolver;
use crate::target::TargetError;

/// The folders that an instance has in addition to its code.
#[derive(Clone, Debug, Default)]
pub(super) struct InstanceFolders {
    /// HOME; kept while the set exists.
    pub(super) home: PathBuf,
    /// TMPDIR; emptied at each start.
    pub(super) temporary: PathBuf,
    /// DATA_DIR of the service and environment; kept across releases and shared by all instances.
    pub(super) data: PathBuf,
}

impl InstanceFolders {
    /// The folders of the instance with the slot folder `slot`.
    pub(super) fn new(id: &InstanceId, slot: &Path, data_root: &Path) -> Self {
        let place = &id.set.place;
        Self {
            home: slot.join("home"),
            temporary: slot.join("tmp"),
            data: data_root
                .join(place.service.as_str())
                .join(place.environment.as_str()),
        }
    }

    /// Creates the folders and empties the temporary one.
    pub(super) fn create(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for folder in [&self.home, &self.temporary, &self.data] {
            fs::create_dir_all(folder)?;
        }
        Ok(())
    }
}

/// All variables of an instance. An unknown name is an error.
pub(super) fn instance_environment(
    id: &InstanceId,
    launch: &Workload,
    folders: &InstanceFolders,
    port: u16,
    secrets: &SecretResolver,
) -> Result<BTreeMap<String, String>, TargetError> {
    let place = &id.set.place;
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let ours = [
        ("PATH", path),
        ("LANG", "C.UTF-8".to_owned()),
        ("HOME", folders.home.display().to_string()),
        ("TMPDIR", folders.temporary.display().to_string()),
        ("DATA_DIR", folders.data.display().to_string()),
        ("HOST", "127.0.0.1".to_owned()),
        ("PORT", port.to_string()),
        ("SHIPWAY_SERVICE", place.service.to_string()),
        ("SHIPWAY_ENVIRONMENT", place.environment.to_string()),
        ("SHIPWAY_RELEASE", id.set.release.released().0.to_string()),
        ("SHIPWAY_INSTANCE", id.to_string()),
    ];
    let url = launch.url.clone().map(|url| ("SHIPWAY_URL", url));
    let ours: BTreeMap<String, String> = ours
        .into_iter()
        .chain(url)
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let mut all = ours.clone();
    for (name, value) in &launch.env {
        let known = |name: &str| ours.get(name).cloned().or_else(|| secrets(&id.set, name));
        all.insert(name.clone(), expand_variables(value, known)?);
    }
    // Set last: the routes lead to this port, so the configuration can't override it.
    all.insert("PORT".to_owned(), port.to_string());
    Ok(all)
}

fn expand_variables(
    text: &str,
    known: impl Fn(&str) -> Option<String>,
) -> Result<String, TargetError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        match split_variable_name(after) {
            Some((name, after)) => {
                let value = known(name).ok_or_else(|| TargetError::Secret(name.to_owned()))?;
                expanded.push_str(&value);
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Splits a variable name off the start of a text.
fn split_variable_name(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = inner.find(|c| !in_name(c)).unwrap_or(inner.len());
    let (name, after) = inner.split_at(end);
    let after = match braced {
        Some(_) => after.strip_prefix('}')?,
        None => after,
    };
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins_well.then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_all_else_stays() {
        let known = |name: &str| (name == "KEY_1").then(|| "s$cret".to_owned());
        for (text, wanted) in [
            ("$KEY_1", "s$cret"),
            ("a:$KEY_1@b ${KEY_1}x", "a:s$cret@b s$cretx"),
            ("costs $5, 100$ and $$KEY_1", "costs $5, 100$ and $KEY_1"),
            ("${KEY_1", "${KEY_1"),
            ("${}", "${}"),
            ("", ""),
        ] {
            assert_eq!(expand_variables(text, known).unwrap(), wanted, "{text}");
        }
        let refused = expand_variables("$KEY_2", known).unwrap_err().to_string();
        assert!(refused.contains("secret KEY_2 is not set"), "{refused}");
    }
}
