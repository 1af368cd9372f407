//! What to run: the workflow, the job, inputs, secrets, the commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use shipway_core::{
    ids::RunId,
    release::{Commit, WorkflowFile},
    run::RunSpec,
    service::Purpose,
};
use shipway_syntax::Source;

use crate::{exit::Failure, report};

/// Where workflows are kept.
const WORKFLOWS: &str = ".github/workflows";

/// The workflow to run; its mistakes are told.
pub(super) fn read_workflow(
    named: Option<&Path>,
    job: Option<&str>,
) -> Result<WorkflowFile, Failure> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => only_workflow()?,
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let source = Source::new(path.display().to_string(), text.clone());
    let parsed = shipway_workflow::parse(&source);
    for problem in &parsed.diagnostics {
        eprintln!("{}\n", report::render(&source, problem));
    }
    let workflow = parsed
        .workflow
        .ok_or_else(|| Failure::usage(format!("{} has mistakes", path.display())))?;
    let text = match job {
        Some(job) => only_job(&workflow, job, &text)?,
        None => text,
    };
    Ok(WorkflowFile {
        path: path.display().to_string(),
        text,
    })
}

/// The workflow's text with the job and those it needs alone: other jobs are taken out line by line, so that places stay right.
fn only_job(
    workflow: &shipway_workflow::model::Workflow,
    job: &str,
    text: &str,
) -> Result<String, Failure> {
    let known: Vec<&str> = workflow.jobs.iter().map(|job| job.id.as_str()).collect();
    if workflow.job(job).is_none() {
        return Err(Failure::usage_with(
            format!("there is no job {job:?}"),
            format!("there are {}", known.join(", ")),
        ));
    }
    let (mut wanted, mut open) = (BTreeSet::new(), vec![job.to_owned()]);
    while let Some(id) = open.pop() {
        if let Some(job) = workflow
            .job(&id)
            .filter(|job| wanted.insert(job.id.clone()))
        {
            open.extend(job.needs.iter().cloned());
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let mut starts: Vec<(usize, &str)> = workflow
        .jobs
        .iter()
        .map(|job| (job.at.line as usize - 1, job.id.as_str()))
        .collect();
    starts.sort_unstable();
    let mut kept: Vec<&str> = lines.clone();
    for (index, (start, id)) in starts.iter().enumerate() {
        if wanted.contains(*id) {
            continue;
        }
        let indent = lines[*start].len() - lines[*start].trim_start().len();
        let next = starts.get(index + 1).map_or(lines.len(), |(line, _)| *line);
        let ends =
            |line: &str| !line.trim().is_empty() && line.len() - line.trim_start().len() < indent;
        let end = (start + 1..next)
            .find(|at| ends(lines[*at]))
            .unwrap_or(next);
        for line in &mut kept[*start..end] {
            *line = "";
        }
    }
    Ok(kept.join("\n") + "\n")
}

fn only_workflow() -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(WORKFLOWS).map_err(|_| {
        Failure::usage_with(
            format!("there is no {WORKFLOWS} here"),
            "name a workflow file, or `shipway init` writes one",
        )
    })?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|it| it == "yml" || it == "yaml")
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::usage(format!(
            "there is no workflow in {WORKFLOWS}"
        ))),
        several => Err(Failure::usage_with(
            "which workflow?",
            several
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        )),
    }
}

/// `NAME=VALUE` texts.
pub(super) fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .ok_or_else(|| Failure::usage(format!("{text:?} is not NAME=VALUE")))
    };
    texts.iter().map(pair).collect()
}

/// Secrets, given or from the environment.
pub(super) fn secrets(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let secret = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => match std::env::var(text) {
            Ok(value) => Ok((text.clone(), value)),
            Err(_) => Err(Failure::usage_with(
                format!("the secret {text} is not in the environment"),
                format!("set it there, or write --secret {text}=VALUE"),
            )),
        },
    };
    texts.iter().map(secret).collect()
}

/// What runs: the commit that is checked out here.
pub(super) fn spec(
    here: &Path,
    workflow: WorkflowFile,
    event: &str,
    inputs: BTreeMap<String, String>,
    vars: BTreeMap<String, String>,
) -> Result<RunSpec, Failure> {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .args(arguments)
            .current_dir(here)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "0".repeat(40));
    let branch = git(&["symbolic-ref", "--short", "HEAD"]).unwrap_or_else(|| "main".to_owned());
    let name: String = here
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let service = name
        .trim_matches('-')
        .parse()
        .or_else(|_| "local".parse())
        .map_err(|_| Failure::usage("this folder's name can't be a service's"))?;
    Ok(RunSpec {
        id: RunId {
            service,
            number: shipway_core::ids::RunNumber(1),
        },
        purpose: Purpose::Dispatch,
        workflow,
        commit: Commit {
            id: commit
                .parse()
                .map_err(|_| Failure::Failed(format!("git calls HEAD {commit:?}")))?,
            subject: git(&["log", "-1", "--format=%s"]).unwrap_or_default(),
            author: git(&["log", "-1", "--format=%an <%ae>"]).unwrap_or_default(),
            at: Timestamp::now(),
        },
        reference: format!("refs/heads/{branch}"),
        before: None,
        event: event.to_owned(),
        inputs,
        payload: None,
        vars,
        actor: std::env::var("USER").ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_alone_keeps_those_it_needs_and_places_stay() {
        let text = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: a\n  b:\n    needs: a\n    runs-on: x\n    steps:\n      - run: b\n  c:\n    runs-on: x\n    steps:\n      - run: c\n";
        let workflow = shipway_workflow::parse(&Source::new("w.yml", text))
            .workflow
            .unwrap();
        let alone = only_job(&workflow, "b", text).unwrap();
        let kept: Vec<String> = shipway_workflow::parse(&Source::new("w.yml", alone.clone()))
            .workflow
            .unwrap()
            .jobs
            .iter()
            .map(|job| job.id.clone())
            .collect();
        assert_eq!(kept, ["a", "b"]);
        assert_eq!(alone.lines().count(), text.lines().count());
        assert!(only_job(&workflow, "nope", text).is_err());
    }
}
