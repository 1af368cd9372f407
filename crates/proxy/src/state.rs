//! The last routes, on disk: what the proxy serves after a restart when nobody controls it.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::protocol::{Snapshot, VERSION};

/// The file's name in the state folder.
const ROUTES: &str = "routes.json";

/// Why the last routes can't be used. The file is left as it is until the next routes come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("{0} can't be read: {1}")]
    Read(PathBuf, io::Error),
    #[error("{0} holds no routes, perhaps it is damaged: {1}")]
    Damaged(PathBuf, serde_json::Error),
    #[error("{0} was written by a newer version (format {1}, this proxy understands {VERSION})")]
    Newer(PathBuf, u64),
}

/// What every version has.
#[derive(Deserialize)]
struct AnyVersion {
    version: u64,
}

/// The last routes; none when there never were any.
pub(crate) fn load(folder: &Path) -> Result<Snapshot, StateError> {
    let path = folder.join(ROUTES);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty()),
        Err(error) => return Err(StateError::Read(path, error)),
    };
    match serde_json::from_slice(&bytes) {
        Ok(AnyVersion { version }) if version > u64::from(VERSION) => {
            Err(StateError::Newer(path, version))
        }
        Ok(_) => serde_json::from_slice(&bytes).map_err(|error| StateError::Damaged(path, error)),
        Err(error) => Err(StateError::Damaged(path, error)),
    }
}

/// No routes.
pub(crate) fn empty() -> Snapshot {
    Snapshot {
        version: VERSION,
        routes: Vec::new(),
        reserved_ports: Vec::new(),
    }
}

/// Written beside, fsynced, renamed: the file is always whole.
pub(crate) fn keep(folder: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let beside = folder.join("routes.json.new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(snapshot)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, folder.join(ROUTES))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_not_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ROUTES);
        assert_eq!(load(folder.path()).unwrap(), empty());
        keep(folder.path(), &empty()).unwrap();
        assert_eq!(load(folder.path()).unwrap(), empty());
        for (text, says) in [
            ("{\"version\":1,\"rou", "perhaps it is damaged"),
            ("{\"version\":2,\"lanes\":[]}", "newer version (format 2"),
            ("{\"version\":1}", "perhaps it is damaged"),
        ] {
            std::fs::write(&path, text).unwrap();
            let why = load(folder.path()).unwrap_err().to_string();
            assert!(
                why.contains(says) && why.contains(path.to_str().unwrap()),
                "{why}"
            );
        }
    }
}
