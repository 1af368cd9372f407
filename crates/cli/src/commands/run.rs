//! `shipway run`: one workflow, here, without a server. The same decisions as on the server, the same workers; only the log of
//! the run is in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::Timestamp;
use shipway_core::{
    aggregate::{Actor, Aggregate, EffectKey, fold},
    ids::{Digest, RunId},
    release::{Commit, WorkflowFile},
    run::{Artifact, Effect, Input, RunSpec, Runs, State, StepLine, Surroundings, job_spec},
    service::Purpose,
};
use shipway_drivers::{jobs::JobRunner, tail::Tail};
use shipway_syntax::Source;
use shipway_workflow::job::{Conclusion, JobKey, JournalBody, SourceTree, StoredArtifact};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    exit::Failure,
    print::{Output, line},
    report,
};

/// Where workflows are kept.
const WORKFLOWS: &str = ".github/workflows";

/// Run a workflow here, without a server
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The workflow; the only one in .github/workflows when not said
    workflow: Option<PathBuf>,
    /// The event it is started by
    #[arg(long, default_value = "push", value_name = "EVENT")]
    event: String,
    /// Only this job and those it needs
    #[arg(long, short, value_name = "ID")]
    job: Option<String>,
    /// An input, as NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// A secret, as NAME=VALUE, or NAME to take it from the environment; may be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    secret: Vec<String>,
    /// A variable (`vars`), as NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Keep the jobs' folders
    #[arg(long)]
    keep: bool,
}

/// Runs the workflow; exit code 1 when it isn't green.
pub fn run(args: Args, output: Output) -> Result<ExitCode, Failure> {
    let file = read_workflow(args.workflow.as_deref(), args.job.as_deref())?;
    let secrets = secrets(&args.secret)?;
    let (inputs, vars) = (pairs(&args.input)?, pairs(&args.var)?);
    let here = std::env::current_dir().map_err(|error| Failure::usage(error.to_string()))?;
    let spec = spec(&here, file, &args.event, inputs, vars)?;
    let folder = tempfile::Builder::new()
        .prefix("shipway-run-")
        .disable_cleanup(args.keep)
        .tempdir()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let exe = std::env::current_exe().map_err(|error| Failure::Failed(error.to_string()))?;
    let local = Local {
        spec: spec.clone(),
        secrets,
        here,
        runner: JobRunner::new(exe, folder.path().to_owned()),
        output,
    };
    let green = runtime.block_on(local.drive())?;
    if args.keep && !output.quiet {
        line(&format!(
            "The jobs' folders are in {}",
            folder.path().display()
        ));
    }
    Ok(if green {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn read_workflow(named: Option<&Path>, job: Option<&str>) -> Result<WorkflowFile, Failure> {
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

fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .ok_or_else(|| Failure::usage(format!("{text:?} is not NAME=VALUE")))
    };
    texts.iter().map(pair).collect()
}

fn secrets(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
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

fn spec(
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

/// A run in memory.
struct Local {
    spec: RunSpec,
    secrets: BTreeMap<String, String>,
    here: PathBuf,
    runner: JobRunner,
    output: Output,
}

/// What the tasks of jobs report.
enum Report {
    Said(Input),
    Line {
        key: JobKey,
        text: String,
    },
    Stored {
        name: String,
        path: PathBuf,
    },
    Step {
        key: JobKey,
        name: String,
        conclusion: Conclusion,
        took_ms: u64,
        why: Option<String>,
    },
    Over(EffectKey),
}

impl Local {
    /// Decide, apply, carry out what is pending; until nothing is.
    async fn drive(&self) -> Result<bool, Failure> {
        let by = || Actor::Person(self.spec.actor.clone().unwrap_or_else(|| "you".to_owned()));
        let mut state = State::default();
        let say = |state: &mut State, input: Input| -> Result<(), Failure> {
            let events = Runs::decide(state, input, by(), Timestamp::now())
                .map_err(|error| Failure::Failed(error.to_string()))?;
            fold::<Runs>(state, &events);
            Ok(())
        };
        say(&mut state, Input::Open(Box::new(self.spec.clone())))?;
        let (reports, mut heard) = mpsc::channel(256);
        let mut running: BTreeMap<EffectKey, Effect> = BTreeMap::new();
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut interrupted = 0;
        let one_job = || state_jobs(&self.spec) <= 1;
        let prefixed = !one_job();
        loop {
            for (key, effect) in Runs::pending(&state, Timestamp::now()).effects {
                if running.get(&key) == Some(&effect) {
                    continue;
                }
                match &effect {
                    Effect::RunJob { key: job, stop } => self.carry_out(
                        &state,
                        &key,
                        job,
                        stop.as_deref(),
                        &files,
                        &reports,
                        running.contains_key(&key),
                    ),
                    Effect::TellService { conclusion, .. } => {
                        return Ok(self.sum_up(&state, *conclusion));
                    }
                }
                running.insert(key, effect);
            }
            let report = tokio::select! {
                report = heard.recv() => report,
                _ = tokio::signal::ctrl_c() => {
                    interrupted += 1;
                    if interrupted > 1 {
                        return Err(Failure::Failed("interrupted".to_owned()));
                    }
                    eprintln!("cancelling; Ctrl-C again ends at once");
                    say(&mut state, Input::Cancel { reason: "interrupted".to_owned() })?;
                    continue;
                }
            };
            match report {
                Some(Report::Said(input)) => say(&mut state, input)?,
                Some(Report::Line { key, text }) => self.print_line(&key, &text, prefixed),
                Some(Report::Step {
                    key,
                    name,
                    conclusion,
                    took_ms,
                    why,
                }) => self.print_step(&key, &name, conclusion, took_ms, why.as_deref(), prefixed),
                Some(Report::Stored { name, path }) => drop(files.insert(name, path)),
                Some(Report::Over(key)) => drop(running.remove(&key)),
                None => {
                    return Err(Failure::Failed(
                        "the run has ended without an end".to_owned(),
                    ));
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a job needs")]
    fn carry_out(
        &self,
        state: &State,
        effect: &EffectKey,
        key: &JobKey,
        stop: Option<&str>,
        files: &BTreeMap<String, PathBuf>,
        reports: &mpsc::Sender<Report>,
        begun: bool,
    ) {
        let folder = self.runner.folder(&self.spec.id, key);
        let end = |conclusion, why: String| {
            Report::Said(Input::JobEnded {
                key: key.clone(),
                conclusion,
                outputs: Vec::new(),
                why: Some(why),
            })
        };
        let send = |report| drop(reports.try_send(report));
        match stop {
            Some(_) if begun => return self.runner.cancel(&folder),
            Some(why) => return send(end(Conclusion::Cancelled, why.to_owned())),
            None => {}
        }
        let artifacts = state
            .0
            .as_deref()
            .map(|run| run.artifacts.clone())
            .unwrap_or_default();
        let stored = artifacts.into_iter().filter_map(|artifact| {
            Some(StoredArtifact {
                path: files.get(&artifact.name)?.clone(),
                name: artifact.name,
                digest: artifact.digest.to_string(),
            })
        });
        let around = Surroundings {
            secrets: self.secrets.clone(),
            vars: BTreeMap::new(),
            env: BTreeMap::new(),
            folder: folder.clone(),
            source: SourceTree::Directory {
                path: self.here.clone(),
            },
            artifacts: stored.collect(),
            server: None,
        };
        let Some(spec) = job_spec(state, key, around) else {
            return send(end(
                Conclusion::Failure,
                "the job is not part of the run".to_owned(),
            ));
        };
        if let Err(error) = self.runner.start(&spec) {
            return send(end(Conclusion::Failure, error.to_string()));
        }
        tokio::spawn(follow(
            self.runner.clone(),
            folder,
            key.clone(),
            effect.clone(),
            reports.clone(),
        ));
    }

    fn print_line(&self, key: &JobKey, text: &str, prefixed: bool) {
        if self.output.json {
            return line(&serde_json::json!({ "job": key, "line": text }).to_string());
        }
        if self.output.quiet || matches!(text, "##[endgroup]") {
            return;
        }
        let shown = text.strip_prefix("##[group]").map_or_else(
            || format!("  {}", text.replace("##[", "[")),
            |name| format!("▸ {name}"),
        );
        let prefix = if prefixed {
            format!("{key} │ ")
        } else {
            String::new()
        };
        line(&format!("{prefix}{shown}"));
    }

    fn print_step(
        &self,
        key: &JobKey,
        name: &str,
        conclusion: Conclusion,
        took_ms: u64,
        why: Option<&str>,
        prefixed: bool,
    ) {
        if self.output.json {
            return line(&serde_json::json!({ "job": key, "step": name, "conclusion": conclusion, "took_ms": took_ms, "why": why }).to_string());
        }
        let mark = match conclusion {
            Conclusion::Success => "✓",
            Conclusion::Failure => "✗",
            Conclusion::Cancelled | Conclusion::Skipped => "–",
        };
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let prefix = if prefixed {
            format!("{key} │ ")
        } else {
            String::new()
        };
        line(&format!("{prefix}{mark} {name} ({took_ms} ms){why}"));
    }

    fn sum_up(&self, state: &State, conclusion: Conclusion) -> bool {
        let green = conclusion == Conclusion::Success;
        if let Some(run) = state.0.as_deref().filter(|_| !self.output.json) {
            let why = run
                .ended
                .as_ref()
                .and_then(|end| end.why.clone())
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let (on, off) = if colour {
                (if green { "\x1b[32m" } else { "\x1b[31m" }, "\x1b[0m")
            } else {
                ("", "")
            };
            line(&format!(
                "{on}{} {conclusion}{off}{why}",
                if green { "✓" } else { "✗" }
            ));
        }
        green
    }
}

fn state_jobs(spec: &RunSpec) -> usize {
    let parsed = shipway_workflow::parse(&Source::new(
        spec.workflow.path.clone(),
        spec.workflow.text.clone(),
    ));
    parsed.workflow.map_or(0, |workflow| {
        workflow
            .jobs
            .iter()
            .map(|job| if job.strategy.is_some() { 2 } else { 1 })
            .sum()
    })
}

/// Follows a job: its log line by line, its journal entry by entry.
async fn follow(
    runner: JobRunner,
    folder: PathBuf,
    key: JobKey,
    effect: EffectKey,
    reports: mpsc::Sender<Report>,
) {
    let never = CancellationToken::new();
    let mut lines = LogLines::open(&folder);
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    let ended = |conclusion, outputs, why| Input::JobEnded {
        key: key.clone(),
        conclusion,
        outputs,
        why,
    };
    let mut journal = match runner.journal(&folder) {
        Ok(journal) => journal,
        Err(error) => {
            return drop(
                reports
                    .send(Report::Said(ended(
                        Conclusion::Failure,
                        Vec::new(),
                        Some(error.to_string()),
                    )))
                    .await,
            );
        }
    };
    let last = loop {
        let entry = tokio::select! {
            entry = journal.next(&never) => entry,
            () = lines.grow(&key, &reports) => continue,
        };
        let body = match entry {
            Ok(Some(entry)) => entry.body,
            Ok(None) => {
                break ended(
                    Conclusion::Failure,
                    Vec::new(),
                    Some("the journal has no end".to_owned()),
                );
            }
            Err(error) => break ended(Conclusion::Failure, Vec::new(), Some(error.to_string())),
        };
        match body {
            JournalBody::Started { .. } => drop(
                reports
                    .send(Report::Said(Input::JobStarted { key: key.clone() }))
                    .await,
            ),
            JournalBody::StepStarted { index, name, .. } => drop(names.insert(index, name)),
            JournalBody::StepFinished {
                index,
                outcome,
                conclusion,
                took_ms,
                why,
                ..
            } => {
                lines.drain(&key, &reports).await;
                let name = names.get(&index).cloned().unwrap_or_default();
                let _ = reports
                    .send(Report::Step {
                        key: key.clone(),
                        name: name.clone(),
                        conclusion,
                        took_ms,
                        why,
                    })
                    .await;
                let step = StepLine {
                    index,
                    name,
                    conclusion,
                    outcome: (outcome != conclusion).then_some(outcome),
                    took_ms,
                };
                let _ = reports
                    .send(Report::Said(Input::StepFinished {
                        key: key.clone(),
                        step,
                    }))
                    .await;
            }
            JournalBody::ArtifactSaved {
                name,
                path,
                digest,
                size,
            } => {
                if let Ok(digest) = digest.parse::<Digest>() {
                    let _ = reports
                        .send(Report::Stored {
                            name: name.clone(),
                            path,
                        })
                        .await;
                    let _ = reports
                        .send(Report::Said(Input::ArtifactStored {
                            artifact: Artifact { name, digest, size },
                        }))
                        .await;
                }
            }
            JournalBody::Finished {
                conclusion,
                outputs,
                why,
            } => break ended(conclusion, outputs, why),
            JournalBody::Annotation { .. } | JournalBody::DeployAsked { .. } => {}
        }
    };
    lines.drain(&key, &reports).await;
    let _ = reports.send(Report::Said(last)).await;
    let _ = reports.send(Report::Over(effect)).await;
}

/// A job's log, without the times.
struct LogLines {
    tail: Option<Tail>,
    text: Vec<u8>,
}

impl LogLines {
    fn open(folder: &Path) -> Self {
        Self {
            tail: Tail::open(&folder.join("log"), 0).ok(),
            text: Vec::new(),
        }
    }

    /// Waits until there is more, and hands it on.
    async fn grow(&mut self, key: &JobKey, reports: &mpsc::Sender<Report>) {
        match &mut self.tail {
            Some(tail) => {
                if tail.changed().await.is_err() {
                    self.tail = None;
                }
            }
            None => std::future::pending().await,
        }
        self.drain(key, reports).await;
    }

    async fn drain(&mut self, key: &JobKey, reports: &mpsc::Sender<Report>) {
        let Some(tail) = &mut self.tail else { return };
        while let Ok(bytes) = tail.read().await
            && !bytes.is_empty()
        {
            self.text.extend_from_slice(&bytes);
        }
        while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.text.drain(..=end).collect();
            let text = String::from_utf8_lossy(&whole[..end]).into_owned();
            // `2026-11-21T04:18:58.123Z ` stands before each line.
            let text = text
                .split_once(' ')
                .map_or(text.clone(), |(_, rest)| rest.to_owned());
            let _ = reports
                .send(Report::Line {
                    key: key.clone(),
                    text,
                })
                .await;
        }
    }
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
