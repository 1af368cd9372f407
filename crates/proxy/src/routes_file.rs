//! The last routes on disk, served after a restart without a controller.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::protocol::{RouteSnapshot, VERSION};

const ROUTES: &str = "routes.json";

/// Why the last routes can't be used. The file is kept until new routes replace it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoutesFileError {
    #[error("{0} can't be read: {1}")]
    Read(PathBuf, io::Error),
    #[error("{0} contains no valid routes, it may be damaged: {1}")]
    Damaged(PathBuf, serde_json::Error),
    #[error("{0} was written by a newer version (format {1}, this proxy supports {VERSION})")]
    Newer(PathBuf, u64),
}

/// The field that every version of the file has.
#[derive(Deserialize)]
struct VersionField {
    version: u64,
}

/// Loads the last routes; empty if the file does not exist.
pub(crate) fn load_routes(folder: &Path) -> Result<RouteSnapshot, RoutesFileError> {
    let path = folder.join(ROUTES);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty_routes()),
        Err(error) => return Err(RoutesFileError::Read(path, error)),
    };
    match serde_json::from_slice(&bytes) {
        Ok(VersionField { version }) if version > u64::from(VERSION) => {
            Err(RoutesFileError::Newer(path, version))
        }
        Ok(_) => {
            serde_json::from_slice(&bytes).map_err(|error| RoutesFileError::Damaged(path, error))
        }
        Err(error) => Err(RoutesFileError::Damaged(path, error)),
    }
}

pub(crate) fn empty_routes() -> RouteSnapshot {
    RouteSnapshot {
        version: VERSION,
        routes: Vec::new(),
        reserved_ports: Vec::new(),
    }
}

/// Written to a temporary file, fsynced and renamed: readers and crashes see the old or the new file.
pub(crate) fn save_routes(folder: &Path, snapshot: &RouteSnapshot) -> io::Result<()> {
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
        assert_eq!(load_routes(folder.path()).unwrap(), empty_routes());
        save_routes(folder.path(), &empty_routes()).unwrap();
        assert_eq!(load_routes(folder.path()).unwrap(), empty_routes());
        for (text, says) in [
            ("{\"version\":1,\"rou", "it may be damaged"),
            ("{\"version\":2,\"lanes\":[]}", "newer version (format 2"),
            ("{\"version\":1}", "it may be damaged"),
        ] {
            std::fs::write(&path, text).unwrap();
            let why = load_routes(folder.path()).unwrap_err().to_string();
            assert!(
                why.contains(says) && why.contains(path.to_str().unwrap()),
                "{why}"
            );
        }
    }
}
