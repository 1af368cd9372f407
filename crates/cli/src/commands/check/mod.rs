//! `shipway check`: every mistake in `shipway.yaml`, workflows and actions, with its position and a solution, and legal parts
//! that are probably a mistake.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;
use shipway_core::{
    config::{EnvironmentConfig, ServiceConfig},
    rollout::strategy,
};
use shipway_syntax::{Diagnostic, SourceFile};
use shipway_workflow::lint;

mod addresses;
mod project;
mod promotion_groups;

use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, counted, line},
    report,
    runner::LabelOptions,
};

/// Check shipway.yaml, workflows and actions; exit code 2 when something is wrong
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files or folders; this folder when none is given
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
    let mut files = Vec::new();
    for root in &roots {
        find(root, &mut files)
            .map_err(|error| Failure::usage(format!("{}: {error}", root.display())))?;
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage_with(
            "there is neither a shipway.yaml nor a workflow here",
            "`shipway init` writes a shipway.yaml",
        ));
    }
    let labels = args.labels.labels();
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for path in &files {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let source = SourceFile::new(path.display().to_string().trim_start_matches("./"), text);
        if let (Kind::Configuration, Ok((config, _))) =
            (Kind::from_path(path), shipway_core::config::parse(&source))
        {
            notes.extend(traffic_notes(&config));
        }
        let mut problems = match Kind::from_path(path) {
            Kind::Configuration => config_problems(path, &source, server),
            Kind::Action => lint::check_action(&source),
            Kind::Workflow => lint::check_workflow(&source),
        };
        match Kind::from_path(path) {
            Kind::Configuration => {}
            Kind::Action => problems.extend(project::local_problems(path, &source)),
            Kind::Workflow => {
                problems.extend(lint::check_runners(&source, &labels));
                problems.extend(project::local_problems(path, &source));
            }
        }
        problems.sort_by_key(|problem| problem.span.map_or(0, |span| span.start));
        found.extend(
            problems
                .into_iter()
                .map(|problem| (source.clone(), problem)),
        );
    }
    let errors = found
        .iter()
        .filter(|(_, problem)| problem.is_error())
        .count();
    if output.json {
        let entry = |(source, problem): &(SourceFile, Diagnostic)| {
            let place = problem.span.map(|span| source.position(span.start));
            json!({ "path": source.path, "line": place.map(|it| it.0), "column": place.map(|it| it.1), "severity": problem.severity, "code": problem.code, "message": problem.message, "help": problem.help })
        };
        output.document(&found.iter().map(entry).collect::<Vec<_>>())?;
    } else {
        for (source, problem) in &found {
            line(&if output.quiet {
                problem.one_line(source)
            } else {
                format!("{}\n", report::render(source, problem))
            });
        }
        if !output.quiet {
            for note in &notes {
                line(note);
            }
            let warnings = found.len() - errors;
            line(&format!(
                "{} checked: {}, {}",
                counted(files.len(), "file"),
                counted(errors, "error"),
                counted(warnings, "warning")
            ));
        }
    }
    Ok(if errors > 0 {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

/// How much traffic the analysis of each environment needs.
fn traffic_notes(config: &ServiceConfig) -> Vec<String> {
    let of = |environment: &EnvironmentConfig| {
        let notes = strategy::needed_traffic(environment);
        let name = environment.name.clone();
        notes.into_iter().map(move |note| format!("{name}: {note}"))
    };
    config.environments.iter().flat_map(of).collect()
}

fn config_problems(path: &Path, source: &SourceFile, server: &ServerConnection) -> Vec<Diagnostic> {
    match shipway_core::config::parse(source) {
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
