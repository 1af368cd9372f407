//! The run itself: decided by the core, carried out by workers, kept in memory.

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf};

use jiff::Timestamp;
use shipway_core::{
    aggregate::{Actor, Aggregate, EffectKey, fold},
    run::{Effect, Input, RunSpec, Runs, State, Surroundings, job_spec},
};
use shipway_drivers::jobs::JobRunner;
use shipway_syntax::Source;
use shipway_workflow::job::{Conclusion, JobKey, SourceTree, StoredArtifact};
use tokio::sync::mpsc;

use super::follow::follow;
use crate::{
    exit::Failure,
    print::{Output, line},
};

/// A run in memory.
pub(super) struct Local {
    pub(super) spec: RunSpec,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) here: PathBuf,
    pub(super) runner: JobRunner,
    pub(super) output: Output,
}

/// What the tasks of jobs report.
pub(super) enum Report {
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
    pub(super) async fn drive(&self) -> Result<bool, Failure> {
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
