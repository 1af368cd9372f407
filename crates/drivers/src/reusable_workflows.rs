//! Workflows of other repositories that a run calls: read from the forge when the run is opened, and part of its log from then on.
//! Nothing of it decides anything: what can't be read is on record as that, and planning says where it is called.

use std::{path::Path, time::Duration};

use shipway_core::release::{CalledFile, WorkflowFile};
use shipway_worker::forge::{Forge, WorkflowReader};
use shipway_workflow::{graph::Place, job::ActionSource};

/// How long all of one run may take: a forge that hangs must not keep a run from saying so.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whether the workflow calls one of another repository that was not read.
#[must_use]
pub fn calls_unread_workflow(file: &WorkflowFile) -> bool {
    let mut file = file.clone();
    drop_unread_workflows(&mut file);
    let mut calls = file.calls();
    std::iter::from_fn(|| calls.next())
        .any(|name| matches!(Place::of(&name), Ok(Place::Elsewhere { .. })))
}

/// Reads what the workflow calls in other repositories, and what that calls there. `scratch` is a folder for git. Gives what people
/// should know of it, a line each.
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
        // Those of the run's own commit were read with it.
        let Ok(Place::Elsewhere {
            repository,
            path,
            reference,
        }) = Place::of(&name)
        else {
            continue;
        };
        let reading =
            tokio::time::timeout_at(end, workflows.read_workflow(repository, path, reference));
        let read = match reading.await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "the forge took longer than {PATIENCE:?} for all that is called"
            )),
        };
        let mut commit = None;
        let text = read.map(|read| {
            if let Some(why) = read.stale {
                notes.push(format!(
                    "{name} is the one that was fetched last, as the forge does not answer: {why}"
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

/// What could not be had is looked for again: logs of before workflows of other repositories could be called say so of all.
fn drop_unread_workflows(file: &mut WorkflowFile) {
    let is_elsewhere = |name: &str| matches!(Place::of(name), Ok(Place::Elsewhere { .. }));
    file.called
        .retain(|called| called.text.is_some() || !is_elsewhere(&called.name));
}
