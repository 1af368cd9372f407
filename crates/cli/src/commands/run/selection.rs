//! What to run: the workflow, the job, inputs, secrets, the commit.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use shipway_core::{
    config::ReportsConfig,
    ids::{ParseIdError, RunId, RunNumber, ServiceName},
    release::{CalledFile, Commit, WorkflowFile},
    run::{RunSpec, event_reference},
    service::RunPurpose,
    source_repository::SourceRepository,
};
use shipway_syntax::{SourceFile, nearest};
use shipway_workflow::{
    expr::{Contexts, ExprValue},
    graph::{WorkflowLocation, expand_matrix},
    lint::mentions,
    model::{JobMatrix, TemplateTree, Workflow, WorkflowJob},
};

use super::{
    inputs::{Given, pairs},
    show::JobCount,
};
use crate::{exit::Failure, print::error_line, report};

/// Cells that an error lists.
const CELLS_SHOWN_MAX: usize = 40;

/// Where workflows are kept.
const WORKFLOWS: &str = ".github/workflows";

/// A workflow that was read.
pub(super) struct Picked {
    /// Its text, with the jobs that are to run.
    pub(super) file: WorkflowFile,
    /// What the whole of it says.
    pub(super) workflow: Workflow,
    /// The secrets it asks for, upper-cased.
    pub(super) secrets: BTreeSet<String>,
}

impl Picked {
    /// Whether lines must say which job they are of.
    pub(super) fn job_count(&self) -> JobCount {
        let source = SourceFile::new(self.file.path.as_str(), self.file.text.as_str());
        let jobs = shipway_workflow::parse(&source).workflow.map(|it| it.jobs);
        let jobs = jobs.unwrap_or_default();
        let has_matrix =
            |job: &WorkflowJob| job.strategy.as_ref().is_some_and(|it| it.matrix.is_some());
        let has_several = jobs.len() > 1
            || jobs
                .iter()
                .any(|job| job.calls.is_some() || has_matrix(job));
        match has_several {
            true => JobCount::Several,
            false => JobCount::One,
        }
    }
}

/// The event that selects workflows.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectingEvent<'e> {
    pub(super) name: &'e str,
    pub(super) payload: Option<&'e serde_json::Value>,
}

/// The selected workflow files: the named ones, or those of a folder that the event starts; without an event all of them.
pub(super) fn workflows(
    named: &[PathBuf],
    event: Option<SelectingEvent<'_>>,
) -> Result<Vec<PathBuf>, Failure> {
    if named.is_empty() {
        let found = files_in(Path::new(WORKFLOWS))?;
        // A repository with one workflow runs it for every event.
        return match found.len() {
            1 => Ok(found),
            _ => started_workflows(Path::new(WORKFLOWS), event),
        };
    }
    let mut paths = Vec::new();
    for name in named {
        let there = Path::new(WORKFLOWS).join(name);
        if name.is_dir() {
            paths.append(&mut started_workflows(name, event)?);
        } else if !name.exists() && there.is_file() {
            // `ci.yml`, as `shipway dispatch` has it, and as it lies there.
            paths.push(there);
        } else {
            paths.push(name.clone());
        }
    }
    Ok(paths)
}

/// The workflows of a folder that the event starts.
fn started_workflows(
    folder: &Path,
    event: Option<SelectingEvent<'_>>,
) -> Result<Vec<PathBuf>, Failure> {
    let mut found = files_in(folder)?;
    let Some(event) = event else {
        return Ok(found);
    };
    found.retain(|path| is_started_by(path, event));
    if found.is_empty() {
        let what = format!(
            "no workflow in {} is triggered by {}",
            folder.display(),
            event.name
        );
        let help = "list workflows and their triggers with `shipway run --list`";
        return Err(Failure::usage_with(what, help));
    }
    Ok(found)
}

/// A file that can't be read is run, to say why.
fn is_started_by(path: &Path, event: SelectingEvent<'_>) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let parsed = shipway_workflow::parse(&SourceFile::new(path.display().to_string(), text));
    let Some(workflow) = parsed.workflow else {
        return true;
    };
    let other = workflow.on.others.iter().find(|it| it.name == event.name);
    let activity = event.payload.and_then(|payload| payload["action"].as_str());
    match (other, activity) {
        (Some(other), Some(activity)) => other.takes_activity(activity),
        _ => events(&workflow).iter().any(|name| name == event.name),
    }
}

/// The events that start a workflow.
pub(super) fn events(workflow: &Workflow) -> Vec<String> {
    let on = &workflow.on;
    let known = [
        ("push", on.push.is_some()),
        ("workflow_dispatch", on.workflow_dispatch.is_some()),
        ("workflow_call", on.workflow_call.is_some()),
        ("schedule", !on.schedule.is_empty()),
    ];
    let known = known.into_iter().filter(|(_, is_there)| *is_there);
    let others = on.others.iter().map(|event| event.name.clone());
    known
        .map(|(name, _)| name.to_owned())
        .chain(others)
        .collect()
}

/// The workflow in a file; prints its errors.
pub(super) fn read_workflow(path: &Path, job: Option<&str>) -> Result<Picked, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let source = SourceFile::new(path.display().to_string(), text.clone());
    let parsed = shipway_workflow::parse(&source);
    for problem in &parsed.diagnostics {
        error_line(&format!("{}\n", report::render(&source, problem)));
    }
    let workflow = parsed
        .workflow
        .ok_or_else(|| Failure::usage(format!("{} has errors", path.display())))?;
    let text = match job {
        Some(job) => only_job(&workflow, job, &text)?,
        None => text,
    };
    let secrets = mentions(&SourceFile::new("", text.clone()), "secrets");
    Ok(Picked {
        secrets,
        file: with_calls(path.display().to_string(), text),
        workflow,
    })
}

/// The workflow with the called files of this repository; files of other repositories are read when it runs. Planning reports
/// unreadable files at their call.
fn with_calls(path: String, text: String) -> WorkflowFile {
    let mut file = WorkflowFile::new(path, text);
    let mut calls = file.calls();
    while let Some(name) = calls.next() {
        let read = match WorkflowLocation::parse(&name) {
            Err(error) => Err(error.to_string()),
            Ok(WorkflowLocation::Here { path }) => {
                std::fs::read_to_string(path).map_err(|error| error.to_string())
            }
            Ok(WorkflowLocation::Elsewhere { .. }) => continue,
        };
        calls.give(CalledFile::new(name, read));
    }
    file
}

/// Which cells of matrices are to run: those where every named value is the one given.
#[derive(Debug, Default)]
pub(super) struct Cells(Vec<(String, String)>);

impl Cells {
    /// Whether this `matrix` context has at least one of the names, and the requested value for each that it has.
    pub(super) fn matches(&self, matrix: &ExprValue) -> bool {
        let has_name = |(name, _): &(String, String)| matrix.get(name) != ExprValue::Null;
        self.0.iter().any(has_name) && self.take(matrix)
    }

    /// Why nothing would run, when none of the cells matches; they are given by their names and `matrix` contexts.
    pub(super) fn check_match<'c>(
        &self,
        cells: impl IntoIterator<Item = (String, &'c ExprValue)>,
    ) -> Result<(), Failure> {
        let cells: Vec<(String, &ExprValue)> = cells.into_iter().collect();
        if self.0.is_empty() || cells.iter().any(|(_, matrix)| self.matches(matrix)) {
            return Ok(());
        }
        let asked: Vec<String> = (self.0.iter())
            .map(|(name, value)| format!("--matrix {name}:{value}"))
            .collect();
        let shown: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
        let more = shown.len().saturating_sub(CELLS_SHOWN_MAX);
        let mut help = format!(
            "the combinations are {}",
            shown[..shown.len() - more].join("; ")
        );
        if more > 0 {
            help.push_str(&format!("; and {more} more"));
        }
        let what = format!("no matrix combination matches {}", asked.join(" "));
        Err(Failure::usage_with(what, help))
    }

    /// Whether a cell with this `matrix` context runs. One without a matrix, or without one of the names, does.
    pub(super) fn take(&self, matrix: &ExprValue) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let value = matrix.get(name);
            value == ExprValue::Null || *value.to_text() == **wanted
        })
    }
}

/// `NAME:VALUE` texts. A name that no matrix has is most likely a slip.
pub(super) fn cells(texts: &[String], workflow: &Workflow) -> Result<Cells, Failure> {
    let matrices = workflow.jobs.iter().filter_map(|job| job.strategy.as_ref());
    let mut known: Vec<&str> = Vec::new();
    for matrix in matrices.filter_map(|strategy| strategy.matrix.as_ref()) {
        match matrix {
            // Known only when it runs.
            JobMatrix::Computed(_) | JobMatrix::Dynamic(_) => {
                return pairs(texts, ':', "NAME:VALUE").map(Cells);
            }
            JobMatrix::Written { axes, include, .. } => {
                known.extend(axes.iter().map(|(name, _)| name.as_str()));
                known.extend(include.iter().flat_map(names_in));
            }
        }
    }
    let cells = pairs(texts, ':', "NAME:VALUE")?;
    for (name, _) in &cells {
        if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            let help = match known.as_slice() {
                [] => "this workflow has no matrix".to_owned(),
                known => format!("the known ones are {}", known.join(", ")),
            };
            return Err(Failure::usage_with(format!("no matrix has {name:?}"), help));
        }
    }
    let cells = Cells(cells);
    if let Some(known) = static_matrix_cells(workflow) {
        cells.check_match(known.iter().map(|(name, matrix)| (name.clone(), matrix)))?;
    }
    Ok(cells)
}

/// All cells of the workflow's matrices, by their names; none when some are only known at run time.
fn static_matrix_cells(workflow: &Workflow) -> Option<Vec<(String, ExprValue)>> {
    let mut known = Vec::new();
    for job in &workflow.jobs {
        let matrix = job.strategy.as_ref().and_then(|it| it.matrix.as_ref());
        for cell in matrix
            .map(|it| expand_matrix(it, &Contexts::new()))
            .transpose()
            .ok()?
            .into_iter()
            .flatten()
        {
            known.push((format!("{} ({})", job.id, cell.label), cell.values));
        }
    }
    Some(known)
}

/// The names that `include:` adds.
fn names_in(include: &TemplateTree) -> Vec<&str> {
    let TemplateTree::List(items) = include else {
        return Vec::new();
    };
    let maps = items.iter().filter_map(|item| match item {
        TemplateTree::Map(entries) => Some(entries),
        TemplateTree::Value(_)
        | TemplateTree::Template(_)
        | TemplateTree::List(_)
        | TemplateTree::DynamicMap(_) => None,
    });
    maps.flatten().map(|(name, _)| name.as_str()).collect()
}

/// The workflow's text with the job and those it needs alone: other jobs are taken out line by line, so that places stay right.
fn only_job(workflow: &Workflow, job: &str, text: &str) -> Result<String, Failure> {
    let known: Vec<&str> = workflow.jobs.iter().map(|job| job.id.as_str()).collect();
    if workflow.job(job).is_none() {
        return Err(Failure::usage_with(
            format!("there is no job {job:?}"),
            nearest(job, known.iter().copied()).map_or_else(
                || format!("the known ones are {}", known.join(", ")),
                |near| format!("did you mean {near}?"),
            ),
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

/// The workflow files of a folder; at least one.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let shown = folder.display();
    let help = "name a workflow file, or `shipway init` writes one";
    let entries = std::fs::read_dir(folder)
        .map_err(|_| Failure::usage_with(format!("there is no {shown} here"), help))?;
    let is_workflow = |path: &PathBuf| {
        path.extension()
            .is_some_and(|it| it == "yml" || it == "yaml")
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_workflow)
        .collect();
    found.sort();
    if found.is_empty() {
        let what = format!("there is no workflow in {shown}");
        return Err(Failure::usage_with(what, help));
    }
    Ok(found)
}

/// What runs: the commit that is checked out here.
pub(super) fn spec(
    here: &Path,
    number: u32,
    workflow: WorkflowFile,
    event: &str,
    given: &Given,
) -> Result<RunSpec, Failure> {
    let (commit, reference) = head(here);
    let reports = reports(here);
    let payload = given.payload.as_ref();
    let named_reference = payload.and_then(|payload| event_reference(event, payload));
    let text = |pointer: &str| {
        let text = payload.and_then(|payload| payload.pointer(pointer)?.as_str());
        text.map(str::to_owned)
    };
    let named_repository = text("/repository/full_name").map(SourceRepository::on_github);
    Ok(RunSpec {
        environments: Vec::new(),
        event_payload: None,
        repository: (given.repository.clone())
            .or(named_repository)
            .or_else(|| origin(here)),
        default_branch: text("/repository/default_branch").or_else(|| default_branch(here)),
        location: None,
        uid: None,
        id: RunId {
            service: service(here)?,
            number: RunNumber(number),
        },
        purpose: RunPurpose::Dispatch,
        workflow,
        commit,
        reference: named_reference.unwrap_or(reference),
        before: None,
        event: event.to_owned(),
        inputs: given.inputs_for(event),
        payload: given.payload.clone(),
        vars: given.vars.clone(),
        actor: text("/sender/login").or_else(|| std::env::var("USER").ok()),
        reports: reports.paths,
        coverage_min: reports.minimum,
    })
}

/// The repository that the remote `origin` names, unless it is on this machine.
fn origin(here: &Path) -> Option<SourceRepository> {
    read_git_line(here, &["remote", "get-url", "origin"])?
        .parse()
        .ok()
}

/// The branch that the remote's `HEAD` names; otherwise `main` or `master`, if it exists.
fn default_branch(here: &Path) -> Option<String> {
    let head = read_git_line(
        here,
        &["symbolic-ref", "--short", "refs/remotes/origin/HEAD"],
    );
    let head = head.and_then(|head| head.strip_prefix("origin/").map(str::to_owned));
    let exists = |branch: &&str| {
        let reference = format!("refs/heads/{branch}");
        read_git_line(here, &["rev-parse", "--verify", "--quiet", &reference]).is_some()
    };
    let usual = || {
        ["main", "master"]
            .into_iter()
            .find(exists)
            .map(str::to_owned)
    };
    head.or_else(usual)
}

/// The first line that git prints; `None` when it fails.
fn read_git_line(here: &Path, args: &[&str]) -> Option<String> {
    let mut command = std::process::Command::new("git");
    let output = command.args(args).current_dir(here).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

/// Where tests report. A file with errors is `shipway check`'s business, not a reason to run nothing.
fn reports(here: &Path) -> ReportsConfig {
    let text = std::fs::read_to_string(here.join("shipway.yaml")).unwrap_or_default();
    let read = shipway_core::config::parse(&SourceFile::new("shipway.yaml", text));
    read.map(|(config, _)| config.reports).unwrap_or_default()
}

/// The commit that is checked out, and its branch or tag. A folder without one has the commit of all zeros.
fn head(here: &Path) -> (Commit, String) {
    let asked = std::process::Command::new("git")
        .args(["log", "-1", "--format=%H%n%cI%n%D%n%an <%ae>%n%s"])
        .current_dir(here)
        .output();
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let (id, at, names, author, subject) = (next(), next(), next(), next(), next());
    let none = || "0".repeat(40).parse().expect("zeros are digits");
    let commit = Commit {
        id: id.parse().unwrap_or_else(|_| none()),
        subject: subject.to_owned(),
        author: author.to_owned(),
        committer: None,
        at: at.parse().unwrap_or_else(|_| Timestamp::now()),
    };
    // `HEAD -> main, tag: v1, origin/main`
    let mut names = names.split(", ");
    let reference = match names.next().and_then(|name| name.strip_prefix("HEAD -> ")) {
        Some(branch) => format!("refs/heads/{branch}"),
        None => names
            .find_map(|name| name.strip_prefix("tag: "))
            .map_or_else(
                || "refs/heads/main".to_owned(),
                |tag| format!("refs/tags/{tag}"),
            ),
    };
    (commit, reference)
}

/// The folder's name, as a service may have it.
fn service(here: &Path) -> Result<ServiceName, Failure> {
    let name = here.file_name().unwrap_or_default().to_string_lossy();
    let fine = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.to_lowercase().chars().map(fine).collect();
    name.trim_matches('-')
        .parse()
        .or_else(|_| "local".parse())
        .map_err(|error: ParseIdError| Failure::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_alone_keeps_those_it_needs_and_places_stay() {
        let text = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: a\n  b:\n    needs: a\n    runs-on: x\n    steps:\n      - run: b\n  c:\n    runs-on: x\n    steps:\n      - run: c\n";
        let workflow = shipway_workflow::parse(&SourceFile::new("w.yml", text))
            .workflow
            .unwrap();
        let alone = only_job(&workflow, "b", text).unwrap();
        let kept: Vec<String> = shipway_workflow::parse(&SourceFile::new("w.yml", alone.clone()))
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

    #[test]
    fn cells_are_taken_by_the_values_that_are_named() {
        let text = "on: push\njobs:\n  a:\n    runs-on: x\n    strategy:\n      matrix:\n        os: [linux]\n        include: [{ py: 3 }]\n    steps: [{ run: a }]\n";
        let workflow = shipway_workflow::parse(&SourceFile::new("w.yml", text))
            .workflow
            .unwrap();
        let of = |text: &str| cells(&[text.to_owned()], &workflow);
        let linux = ExprValue::object([
            ("os", ExprValue::from("linux")),
            ("py", ExprValue::Number(3.0)),
        ]);
        assert!(of("os:linux").unwrap().take(&linux) && of("py:3").unwrap().take(&linux));
        let mac = Cells(vec![("os".to_owned(), "mac".to_owned())]);
        assert!(!mac.take(&linux) && mac.take(&ExprValue::Null));
        assert!(of("nope:1").unwrap_err().to_string().contains("nope"));
        assert!(of("os").is_err());
        let Failure::Usage { what, help } = of("os:mac").unwrap_err() else {
            panic!("a usage error");
        };
        assert_eq!(what, "no matrix combination matches --matrix os:mac");
        assert_eq!(help.as_deref(), Some("the combinations are a (linux)"));
    }
}
