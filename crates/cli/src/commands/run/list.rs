//! `shipway run --list`: the jobs of each workflow, and the events that trigger it.

use std::path::PathBuf;

use serde_json::json;

use super::selection;
use crate::{
    exit::Failure,
    print::{Output, line, table},
};

/// Lists the jobs of the workflows that are named, or of all.
pub(super) fn run(named: &[PathBuf], output: Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for path in selection::workflows(named, None)? {
        let file = selection::read_workflow(&path, None)?;
        let events = selection::events(&file.workflow).join(", ");
        let name = file.workflow.name.clone();
        for job in &file.workflow.jobs {
            let does = match &job.calls {
                Some(call) => format!("calls {}", call.workflow),
                None => format!("{} steps", job.steps.len()),
            };
            rows.push(vec![
                path.display().to_string(),
                name.clone().unwrap_or_default(),
                events.clone(),
                job.id.clone(),
                job.needs.join(", "),
                does,
            ]);
        }
    }
    let head = ["file", "workflow", "events", "job", "needs", "does"];
    if output.json {
        let documents = rows.iter().map(|row| {
            let pairs = head.iter().zip(row);
            json!(std::collections::BTreeMap::from_iter(pairs))
        });
        return output.document(&documents.collect::<Vec<_>>());
    }
    if rows.is_empty() {
        line("there are no jobs");
        return Ok(());
    }
    table(
        &head.map(str::to_uppercase).each_ref().map(String::as_str),
        &rows,
    );
    Ok(())
}
