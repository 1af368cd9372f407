//! Where a service's `shipway.yaml` is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::ServiceName;

/// The name of the configuration.
const CONFIG: &str = "shipway.yaml";

/// A folder of a repository of this server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceLocation {
    /// The repository: it is pushed to `/git/REPOSITORY`.
    pub repository: ServiceName,
    /// The folder of `shipway.yaml`, from the root of the repository: `services/cart`. Empty for the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub folder: String,
}

impl ServiceLocation {
    /// The root of a repository: its service has the repository's name.
    #[must_use]
    pub const fn root(repository: ServiceName) -> Self {
        Self {
            repository,
            folder: String::new(),
        }
    }

    /// Whether it is the root of its repository.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.folder.is_empty()
    }

    /// The path of its `shipway.yaml`.
    #[must_use]
    pub fn config_path(&self) -> String {
        match self.is_root() {
            true => CONFIG.to_owned(),
            false => format!("{}/{CONFIG}", self.folder),
        }
    }

    /// The folder as jobs get it: `.` for the root.
    #[must_use]
    pub fn working_directory(&self) -> &str {
        match self.is_root() {
            true => ".",
            false => &self.folder,
        }
    }
}

impl fmt::Display for ServiceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_root() {
            true => write!(f, "the repository {}", self.repository),
            false => write!(f, "{} of the repository {}", self.folder, self.repository),
        }
    }
}
