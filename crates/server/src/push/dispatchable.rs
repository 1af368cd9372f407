//! Finds the workflow that is started by hand.

use std::collections::BTreeMap;

use shipway_core::{ids::CommitId, release::WorkflowFile};
use shipway_drivers::git::GitRepository;
use shipway_syntax::SourceFile;
use shipway_workflow::model::InputError;
use tokio::task::block_in_place;

use super::{
    PushError,
    commit_files::{CommitFile, WORKFLOWS, read_commit_file, shown, with_calls},
    pushed_workflows::WORKFLOW_FILES_MAX,
};

/// Why a workflow can't be started by hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatchError {
    /// The repository can't be read.
    #[error(transparent)]
    Unreadable(#[from] PushError),
    /// The named file can't be used.
    #[error("{path} can't be started: {why}")]
    Unusable {
        /// The file, printable.
        path: String,
        /// Its size or path.
        why: String,
    },
    /// The first mistake in the named file, with its position.
    #[error("{0}")]
    Invalid(String),
    /// An input is missing, unknown or of another type.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The named file is missing, or is started by other events only.
    #[error("{0} is not in the commit, or has no `on: workflow_dispatch`")]
    NotDispatchable(String),
    /// No file was named, and none can be started by hand.
    #[error("no workflow of the commit has `on: workflow_dispatch`")]
    NoneDispatchable,
    /// No file was named, and several can be started by hand.
    #[error("there are several workflows, name one: {0}")]
    Ambiguous(String),
}

/// A workflow that can be started by hand with these inputs: the named one, or the only one.
pub(crate) async fn find_dispatchable(
    repo: &GitRepository,
    commit: &CommitId,
    name: Option<&str>,
    inputs: &BTreeMap<String, String>,
) -> Result<WorkflowFile, DispatchError> {
    let paths = match name {
        Some(path) if path.contains('/') => vec![path.to_owned()],
        Some(name) => vec![format!("{WORKFLOWS}/{name}")],
        None => (repo.list_files(commit, WORKFLOWS).await).map_err(PushError::from)?,
    };
    let mut found = Vec::new();
    for path in paths.into_iter().take(WORKFLOW_FILES_MAX) {
        let read = read_commit_file(repo, commit, &path).await;
        let text = match read.map_err(PushError::from)? {
            CommitFile::Read(text) => text,
            CommitFile::Unusable(why) if name.is_some() => {
                let path = shown(&path);
                return Err(DispatchError::Unusable { path, why });
            }
            CommitFile::Missing | CommitFile::Unusable(_) => continue,
        };
        let source = SourceFile::new(&path, text.clone());
        let parsed = block_in_place(|| shipway_workflow::parse(&source));
        match parsed.workflow {
            Some(workflow) => {
                if let Some(dispatch) = workflow.on.workflow_dispatch {
                    let file = with_calls(repo, commit, path, text).await;
                    found.push((file.map_err(PushError::from)?, dispatch));
                }
            }
            None if name.is_some() => {
                let first = parsed.diagnostics.first();
                let first = first.map(|first| first.one_line(&source));
                return Err(DispatchError::Invalid(first.unwrap_or_default()));
            }
            None => {}
        }
    }
    match (found.len(), name) {
        (1, _) => {
            let (file, dispatch) = found.remove(0);
            dispatch.inputs(inputs.iter().map(|(name, value)| (&**name, &**value)))?;
            Ok(file)
        }
        (0, Some(name)) => Err(DispatchError::NotDispatchable(name.to_owned())),
        (0, None) => Err(DispatchError::NoneDispatchable),
        _ => {
            let paths: Vec<_> = found.iter().map(|(file, _)| file.path.as_str()).collect();
            Err(DispatchError::Ambiguous(paths.join(", ")))
        }
    }
}
