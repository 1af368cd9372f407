//! `shipway init`: writes a `shipway.yaml` that fits the repository, and a workflow that builds its artifact where none does.
//!
//! [`RepositoryFacts`] reads the disk, [`InitPlan`] is a pure function of it, and [`run`] writes what the plan says.

use std::path::{Path, PathBuf};

use crate::{client::ServerConnection, exit::Failure, print::line};

mod existing_workflows;
mod kinds;
mod project;
mod repository;
mod start_command;
#[cfg(test)]
mod tests;
mod written_files;

use existing_workflows::ExistingWorkflows;
use kinds::detect_project;
use project::{DetectedProject, quote_for_shell};
use repository::{NestedFolder, RepositoryFacts, WORKFLOWS, is_below_repository_root};

/// Write shipway.yaml for this repository, and a workflow where none builds it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Overwrite shipway.yaml
    #[arg(long)]
    force: bool,
}

/// The name of the configuration.
const CONFIG: &str = "shipway.yaml";

/// What a release consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ReleaseSource {
    /// The artifact of a workflow that is written.
    OwnWorkflow { path: String },
    /// An artifact that an existing workflow uploads.
    Uploaded { artifact: String },
    /// The files of the commit; existing workflows test them.
    CommitTree,
}

/// All that is written, before it is text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InitPlan {
    service: String,
    branch: String,
    is_git: bool,
    is_recognised: bool,
    /// Set if it is one of several services of its repository.
    nested: Option<NestedFolder>,
    project: DetectedProject,
    existing: ExistingWorkflows,
    source: ReleaseSource,
    /// Comments on what the artifact of an existing workflow may hold.
    artifact_comments: Vec<String>,
}

impl InitPlan {
    fn new(facts: &RepositoryFacts) -> Self {
        let service = service_name(&facts.folder);
        let branch = facts.branch.clone().unwrap_or_else(|| "main".to_owned());
        let existing = ExistingWorkflows::find(facts, &branch, &service);
        let detected = detect_project(facts);
        let is_recognised = detected.is_some();
        let project = detected.unwrap_or_else(unknown_project);
        let source = match &existing.artifact {
            Some(artifact) => ReleaseSource::Uploaded {
                artifact: artifact.clone(),
            },
            None if !existing.usable.is_empty() && project.is_source_runnable => {
                ReleaseSource::CommitTree
            }
            None => ReleaseSource::OwnWorkflow {
                path: free_workflow_path(facts, &service),
            },
        };
        let mut artifact_comments = Vec::new();
        if existing.artifact.is_some() {
            artifact_comments
                .push("It is started in the folder of the unpacked artifact.".to_owned());
        }
        Self {
            service,
            branch,
            is_git: facts.is_git,
            is_recognised,
            nested: facts.nested.clone(),
            project,
            existing,
            source,
            artifact_comments,
        }
    }

    /// The workflow that is written.
    fn workflow_path(&self) -> Option<&str> {
        match &self.source {
            ReleaseSource::OwnWorkflow { path } => Some(path),
            ReleaseSource::Uploaded { .. } | ReleaseSource::CommitTree => None,
        }
    }

    /// Its name: that of its file.
    fn workflow_name(&self) -> &str {
        let file = self
            .workflow_path()
            .and_then(|path| path.rsplit('/').next());
        file.and_then(|file| file.strip_suffix(".yml"))
            .unwrap_or("cd")
    }

    /// A path of the service's folder, from the root of the repository.
    fn path_in_repository(&self, path: &str) -> String {
        match &self.nested {
            Some(nested) => format!("{}/{path}", nested.path),
            None => path.to_owned(),
        }
    }

    /// Paths, from the root of the repository, and texts of the files.
    fn files(&self) -> Vec<(String, String)> {
        let config = self.path_in_repository(CONFIG);
        let mut files = vec![(config, written_files::config_text(self))];
        if let Some(path) = self.workflow_path() {
            files.push((path.to_owned(), written_files::workflow_text(self)));
        }
        files
    }

    /// Commands for the shell, each with a comment.
    fn next_steps(&self, server: &str) -> Vec<(String, &'static str)> {
        let mut steps = Vec::new();
        if !self.is_git {
            steps.push(("git init --initial-branch=main".to_owned(), ""));
        }
        // Workflows are at the root of the repository, two folders above a service.
        let check = match self.nested {
            Some(_) => "shipway check ../..",
            None => "shipway check",
        };
        steps.push((check.to_owned(), "explains errors in the files"));
        steps.push((
            "git add --all && git commit --message \"Release with Shipway\"".to_owned(),
            "",
        ));
        if !matches!(self.source, ReleaseSource::CommitTree) && self.nested.is_none() {
            steps.push((
                "shipway run".to_owned(),
                "the workflow, here, without a server",
            ));
        }
        steps.push((
            "shipway server".to_owned(),
            "in another terminal; it keeps running",
        ));
        let nested = self.nested.as_ref();
        let repository = nested.map_or_else(
            || self.service.clone(),
            |nested| service_name(&nested.repository),
        );
        let url = format!("{}/git/{repository}", server.trim_end_matches('/'));
        let branch = quote_for_shell(&self.branch);
        steps.push((
            format!("git push {url} {branch}"),
            "shows the release on its way",
        ));
        steps
    }
}

/// Writes the files and prints the next steps.
pub fn run(server: &ServerConnection, args: &Args) -> Result<(), Failure> {
    let root = args
        .path
        .canonicalize()
        .map_err(|error| Failure::usage(format!("{}: {error}", args.path.display())))?;
    if root.join(CONFIG).exists() && !args.force {
        return Err(Failure::usage_with(
            "shipway.yaml already exists",
            "`shipway check` explains its errors; `shipway init --force` overwrites it",
        ));
    }
    let facts = RepositoryFacts::read(&root)
        .map_err(|error| Failure::usage(format!("{}: {error}", root.display())))?;
    let plan = InitPlan::new(&facts);
    line(&format!(
        "Found {}. The service is called {}.",
        plan.project.description, plan.service
    ));
    let is_unread = plan.nested.is_none() && is_below_repository_root(&root);
    let repository = NestedFolder::find(&root).map(|(repository, _)| repository);
    let repository = repository.unwrap_or(root);
    for (path, text) in plan.files() {
        write_file(&repository.join(&path), &text)?;
        line(&format!("Wrote {path}"));
    }
    print_decisions(&plan);
    if is_unread {
        line(&format!(
            "A push does not read it here: move the folder to services/{} of its repository, or make it a repository of its own.",
            plan.service
        ));
    }
    let steps = plan.next_steps(&server.server);
    let width = steps.iter().map(|(command, _)| command.len()).max();
    line("\nNext:");
    for (command, comment) in steps {
        let width = width.unwrap_or_default();
        if comment.is_empty() {
            line(&format!("  {command}"));
        } else {
            line(&format!("  {command:width$}   # {comment}"));
        }
    }
    Ok(())
}

/// Prints the guesses and how existing workflows are used.
fn print_decisions(plan: &InitPlan) {
    if !plan.is_recognised {
        line(
            "Nothing here says how the service is started: write its command into shipway.yaml, in place of ./start.sh.",
        );
    }
    for path in &plan.existing.usable {
        line(&format!(
            "{path} stays as it is; a commit is released when it succeeds."
        ));
    }
    for (path, reason) in &plan.existing.excluded {
        line(&format!("{path} is not run by Shipway: {reason}."));
    }
    let comments = plan.project.command_comments.iter();
    for comment in comments {
        line(&format!("run.command: {comment}"));
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// A name for a workflow that no file has. A file of an earlier `init` is written again.
fn free_workflow_path(facts: &RepositoryFacts, service: &str) -> String {
    let names = match facts.nested {
        Some(_) => ["", "-cd", "-release"].map(|end| format!("{service}{end}")),
        None => ["cd", "shipway", "shipway-release"].map(str::to_owned),
    };
    let paths = names.map(|name| format!("{WORKFLOWS}/{name}.yml"));
    let free = paths.iter().find(|path| !facts.has(path));
    free.unwrap_or(&paths[2]).clone()
}

/// The folder's name, made a service's.
fn service_name(folder: &str) -> String {
    let name: String = folder
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "service".to_owned()
    } else {
        name.to_owned()
    }
}

fn unknown_project() -> DetectedProject {
    DetectedProject {
        description: "no program that Shipway knows how to start".to_owned(),
        command: "./start.sh".to_owned(),
        command_comments: vec![
            "A guess: the command that starts the service. It must listen on 127.0.0.1 and the port in $PORT.".to_owned(),
        ],
        is_source_runnable: true,
        artifact_paths: vec![".".to_owned()],
        ..DetectedProject::default()
    }
}
