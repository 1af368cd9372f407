//! Where called workflows and actions are: in the repository of the file that names them, or in another one.

use crate::model::own_repository_path;

/// The only folder whose workflows can be called.
const FOLDER: &str = ".github/workflows/";

/// A called workflow can't be at this path: GitHub looks only directly in `.github/workflows/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reusable workflows must be directly in .github/workflows/")]
pub struct WorkflowLocationError;

/// Where a called workflow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkflowLocation<'a> {
    /// In the commit that the run is of.
    Here {
        /// Its path.
        path: &'a str,
    },
    /// In another repository.
    Elsewhere {
        /// `owner/repo`
        repository: &'a str,
        /// Its path there.
        path: &'a str,
        /// The branch, tag or commit.
        reference: &'a str,
    },
}

impl<'a> WorkflowLocation<'a> {
    /// Of the name of a called workflow. The error says why there can't be such a file.
    pub fn parse(name: &'a str) -> Result<Self, WorkflowLocationError> {
        let (place, path) = match name.split_once('@') {
            None => (Self::Here { path: name }, name),
            Some((at, reference)) => {
                let slash = at.match_indices('/').nth(1).map_or(at.len(), |(at, _)| at);
                let (repository, path) = at.split_at(slash);
                let path = path.trim_start_matches('/');
                let place = Self::Elsewhere {
                    repository,
                    path,
                    reference,
                };
                (place, path)
            }
        };
        let file = path.strip_prefix(FOLDER).unwrap_or_default();
        if file.is_empty() || file.contains('/') {
            return Err(WorkflowLocationError);
        }
        Ok(place)
    }
}

/// The name of what `caller` calls with `uses`.
#[must_use]
pub fn resolve_call_name(caller: &str, uses: &str) -> String {
    let Some(path) = own_repository_path(uses) else {
        return uses.to_owned();
    };
    match (caller.split_once('@'), WorkflowLocation::parse(caller)) {
        (
            Some(_),
            Ok(WorkflowLocation::Elsewhere {
                repository,
                reference,
                ..
            }),
        ) => {
            format!("{repository}/{path}@{reference}")
        }
        _ => path.to_owned(),
    }
}
