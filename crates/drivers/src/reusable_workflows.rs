//! Reads workflows of other repositories that a run calls, when the run is opened; they are part of its log from then on. A
//! workflow that can't be read is recorded with the reason, and planning reports it at its call.

use std::{path::Path, time::Duration};

use shipway_core::release::{CalledFile, WorkflowFile};
use shipway_worker::forge::{Forge, WorkflowReader};
use shipway_workflow::{graph::WorkflowLocation, job::ActionSource};

/// Timeout for all workflows of one run: a forge that hangs must not block the run.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whether the workflow calls a workflow of another repository that was not read yet.
#[must_use]
pub fn calls_unread_workflow(file: &WorkflowFile) -> bool {
    let mut file = file.clone();
    drop_unread_workflows(&mut file);
    let mut calls = file.calls();
    std::iter::from_fn(|| calls.next()).any(|name| {
        matches!(
            WorkflowLocation::parse(&name),
            Ok(WorkflowLocation::Elsewhere { .. })
        )
    })
}

/// Reads the called workflows of other repositories, recursively. `scratch` is a folder for git. Returns notes for the user, one
/// line each.
pub async fn read_called_workflows(
    file: &mut WorkflowFile,
    source: &ActionSource,
    scratch: &Path,
) -> Vec<String> {
    drop_unread_workflows(file);
    let forge = Forge::new(source, scratch.join("cache"), scratch.to_owned());
    let mut workflows = WorkflowReader::new(forge);
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut notes = Vec::new();
    let mut calls = file.calls();
    while let Some(name) = calls.next() {
        // Workflows of the run's own commit were read with it.
        let Ok(WorkflowLocation::Elsewhere {
            repository,
            path,
            reference,
        }) = WorkflowLocation::parse(&name)
        else {
            continue;
        };
        let reading =
            tokio::time::timeout_at(end, workflows.read_workflow(repository, path, reference));
        let read = match reading.await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "the forge took longer than {PATIENCE:?} for all reusable workflows"
            )),
        };
        let mut commit = None;
        let text = read.map(|read| {
            if let Some(why) = read.stale {
                notes.push(format!(
                    "using the last fetched copy of {name}, because the forge does not respond: {why}"
                ));
            }
            commit = read.commit.parse().ok();
            read.text
        });
        calls.give(CalledFile {
            commit,
            ..CalledFile::new(name, text)
        });
    }
    notes
}

/// Drops called workflows that could not be read, so that they are read again. Old logs recorded all workflows of other
/// repositories as unreadable.
fn drop_unread_workflows(file: &mut WorkflowFile) {
    let is_elsewhere = |name: &str| {
        matches!(
            WorkflowLocation::parse(name),
            Ok(WorkflowLocation::Elsewhere { .. })
        )
    };
    file.called
        .retain(|called| called.text.is_some() || !is_elsewhere(&called.name));
}
