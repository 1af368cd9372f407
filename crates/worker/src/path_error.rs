//! I/O errors with the path that they are about.

use std::{
    io,
    path::{Path, PathBuf},
};

/// An I/O error and its path.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PathError {
    path: PathBuf,
    source: io::Error,
}

impl PathError {
    /// Adds a path to an error, for `map_err`.
    pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self {
            path: path.to_owned(),
            source,
        }
    }
}
