//! `shipway check`: every mistake in `shipway.yaml`, workflows and actions, with its position and a solution, and legal parts
//! that are probably a mistake.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};
use shipway_core::{
    config::{EnvironmentConfig, ServiceConfig},
    rollout::needed_traffic,
};
use shipway_syntax::{Diagnostic, SourceFile};
use shipway_workflow::{lint, runner::RunnerLabels};

mod addresses;
mod artifacts;
mod project;
mod promotion_groups;
mod service_files;

use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, counted, line},
    report,
    runner::LabelOptions,
};

/// Check shipway.yaml, workflows and actions; exit code 2 if there are errors
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files or folders (default: this folder)
    paths: Vec<PathBuf>,
    #[command(flatten)]
    labels: LabelOptions,
}

/// Folders that hold no files of ours.
const PASSED_OVER: [&str; 4] = [".git", "target", "node_modules", "vendor"];

/// The names of the files of actions.
const ACTIONS: [&str; 2] = ["action.yml", "action.yaml"];

/// Checks, and reports.
pub fn run(server: &ServerConnection, args: &Args, output: Output) -> Result<ExitCode, Failure> {
    let roots = if args.paths.is_empty() {
        vec![PathBuf::from(".")]
    } else {
        args.paths.clone()
    };
    let files = find_files(&roots)?;
    let labels = args.labels.labels();
    let mut report = CheckReport {
        files: files.len(),
        ..CheckReport::default()
    };
    for path in &files {
        report.check_file(path, &labels, server)?;
    }
    if output.json {
        output.document(&report.to_json())?;
    } else {
        report.print(output);
    }
    Ok(if report.errors() > 0 {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

/// The files under the roots, in the order of their paths.
fn find_files(roots: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for root in roots {
        find(root, &mut files)
            .map_err(|error| Failure::usage(format!("{}: {error}", root.display())))?;
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage_with(
            "no shipway.yaml and no workflow found here",
            "`shipway init` writes a shipway.yaml",
        ));
    }
    Ok(files)
}

/// The problems of all files.
#[derive(Default)]
struct CheckReport {
    /// The number of files.
    files: usize,
    problems: Vec<(SourceFile, Diagnostic)>,
    notes: Vec<String>,
}

impl CheckReport {
    fn check_file(
        &mut self,
        path: &Path,
        labels: &RunnerLabels,
        server: &ServerConnection,
    ) -> Result<(), Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let source = SourceFile::new(path.display().to_string().trim_start_matches("./"), text);
        let mut problems = match Kind::from_path(path) {
            Kind::Configuration => {
                if let Ok((config, _)) = shipway_core::config::parse(&source) {
                    self.notes.extend(traffic_notes(&config));
                }
                config_problems(path, &source, server)
            }
            Kind::Action => {
                let mut problems = lint::check_action(&source);
                problems.extend(project::local_problems(path, &source));
                problems
            }
            Kind::Workflow => {
                let mut problems = lint::check_workflow(&source);
                problems.extend(lint::check_runners(&source, labels));
                problems.extend(project::local_problems(path, &source));
                problems
            }
        };
        problems.sort_by_key(|problem| problem.span.map_or(0, |span| span.start));
        let problems = problems.into_iter();
        self.problems
            .extend(problems.map(|problem| (source.clone(), problem)));
        Ok(())
    }

    fn errors(&self) -> usize {
        let problems = self.problems.iter();
        problems.filter(|(_, problem)| problem.is_error()).count()
    }

    fn to_json(&self) -> Vec<Value> {
        let entry = |(source, problem): &(SourceFile, Diagnostic)| {
            let place = problem.span.map(|span| source.position(span.start));
            json!({ "path": source.path, "line": place.map(|it| it.0), "column": place.map(|it| it.1), "severity": problem.severity, "code": problem.code, "message": problem.message, "help": problem.help })
        };
        self.problems.iter().map(entry).collect()
    }

    fn print(&self, output: Output) {
        for (source, problem) in &self.problems {
            line(&if output.quiet {
                problem.one_line(source)
            } else {
                format!("{}\n", report::render(source, problem))
            });
        }
        if output.quiet {
            return;
        }
        for note in &self.notes {
            line(note);
        }
        let errors = self.errors();
        line(&format!(
            "{} checked: {}, {}",
            counted(self.files, "file"),
            counted(errors, "error"),
            counted(self.problems.len() - errors, "warning")
        ));
    }
}

/// How much traffic the analysis of each environment needs.
fn traffic_notes(config: &ServiceConfig) -> Vec<String> {
    let of = |environment: &EnvironmentConfig| {
        let notes = needed_traffic(environment);
        let name = environment.name.clone();
        notes.into_iter().map(move |note| format!("{name}: {note}"))
    };
    config.environments.iter().flat_map(of).collect()
}

fn config_problems(path: &Path, source: &SourceFile, server: &ServerConnection) -> Vec<Diagnostic> {
    let available = shipway_targets::implemented_targets();
    match shipway_core::config::parse_for(source, &available) {
        Ok((config, mut warnings)) => {
            warnings.extend(promotion_groups::warnings(source, server));
            warnings.extend(addresses::warnings(source, &config, server));
            warnings.extend(project::config_problems(path, source, &config));
            warnings
        }
        Err(problems) => problems,
    }
}

/// What a file is, by its name; a file that was named and is none of the others is a workflow.
enum Kind {
    Configuration,
    Action,
    Workflow,
}

impl Kind {
    fn from_path(path: &Path) -> Self {
        match path.file_name().and_then(std::ffi::OsStr::to_str) {
            Some("shipway.yaml") => Self::Configuration,
            Some(name)
                if ACTIONS.contains(&name) && !path.parent().is_some_and(holds_workflows) =>
            {
                Self::Action
            }
            _ => Self::Workflow,
        }
    }
}

fn holds_workflows(folder: &Path) -> bool {
    folder.ends_with(".github/workflows")
}

fn find(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let (inner, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if !PASSED_OVER.iter().any(|passed| name == *passed) {
                find(&inner, files)?;
            }
        } else {
            let is_yaml = inner
                .extension()
                .is_some_and(|extension| extension == "yml" || extension == "yaml");
            let is_action = ACTIONS.iter().any(|action| name == *action);
            if name == "shipway.yaml" || is_action || (holds_workflows(path) && is_yaml) {
                files.push(inner);
            }
        }
    }
    Ok(())
}
