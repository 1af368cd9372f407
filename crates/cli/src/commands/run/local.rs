//! The run itself: decided by the core, carried out by workers, kept in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use shipway_core::{
    access::Principal,
    aggregate::{Aggregate, EffectKey, fold},
    concurrency::SlotPosition,
    ids::{Digest, ServiceName},
    run::{
        GateEffect, GateInput, JobEnvironment, JobSpecError, RunAggregate, RunEffect, RunInput,
        RunSite, RunSpec, RunState, RunView, blamed, job_spec, three_lines,
    },
};
use shipway_drivers::jobs::{JobError, JobRunner};
use shipway_targets::tail;
use shipway_workflow::{
    expr::ExprValue,
    graph,
    job::{
        ActionSource, Conclusion, JobKey, JobMounts, JobSpec, SourceTree, StoredArtifact,
        WithoutEngine,
    },
    runner::RunnerMismatch,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    follow::{Follower, Report},
    selection::Cells,
    show::{Hint, Show},
};
use crate::{commands::shell, exit::Failure, print::error_line};

/// A run in memory.
pub(super) struct Local {
    pub(super) spec: RunSpec,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) actions: ActionSource,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cells: Cells,
    pub(super) here: PathBuf,
    pub(super) runner: JobRunner,
    pub(super) show: Show,
    /// Whether the jobs' folders stay.
    pub(super) keep: bool,
    pub(super) hint: Hint,
    /// Whether a shell is opened where a step failed.
    pub(super) shell_on_failure: bool,
    /// Workers at once; other jobs wait for their turn.
    pub(super) jobs_max: usize,
    /// Cancels the run.
    pub(super) stop: CancellationToken,
    pub(super) stop_reason: &'static str,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) conclusion: Conclusion,
    /// By Ctrl-C.
    pub(super) interrupted: bool,
}

/// Why a job was not started.
#[derive(Debug, thiserror::Error)]
enum NotStarted {
    /// `--matrix` names other cells.
    #[error("left out by --matrix")]
    Excluded,
    /// It asks for another machine.
    #[error("left out: {0}")]
    OtherRunner(#[from] RunnerMismatch),
    #[error("the run has not started")]
    NoRun,
    #[error("the job is not part of the run")]
    UnknownJob,
    #[error(transparent)]
    Spec(#[from] JobSpecError),
    #[error(transparent)]
    Worker(#[from] JobError),
}

impl NotStarted {
    /// The conclusion of the job that was not started.
    const fn conclusion(&self) -> Conclusion {
        match self {
            Self::Excluded => Conclusion::Skipped,
            Self::OtherRunner(_) => Conclusion::Incomplete,
            Self::NoRun | Self::UnknownJob | Self::Spec(_) | Self::Worker(_) => Conclusion::Failure,
        }
    }
}

/// How far it is.
struct Progress {
    state: RunState,
    running: BTreeMap<EffectKey, RunEffect>,
    /// Where the artifacts are.
    files: BTreeMap<String, PathBuf>,
    last_words: Vec<(JobKey, Vec<String>)>,
    reports: mpsc::Sender<Report>,
    /// Inputs that need no worker.
    inputs: VecDeque<RunInput>,
    /// Whether it was cancelled from outside.
    stopped: bool,
}

impl Local {
    /// Decides, applies and carries out pending effects until none is left.
    pub(super) async fn drive(&self) -> Result<Ended, Failure> {
        let failed = |error: std::io::Error| Failure::Failed(error.to_string());
        let mut interrupts = Interrupts::subscribe().map_err(failed)?;
        let (reports, mut heard) = mpsc::channel(256);
        let mut progress = Progress {
            state: RunState::default(),
            running: BTreeMap::new(),
            files: BTreeMap::new(),
            last_words: Vec::new(),
            reports,
            inputs: VecDeque::from([RunInput::Open(Box::new(self.spec.clone()))]),
            stopped: false,
        };
        loop {
            while let Some(input) = progress.inputs.pop_front() {
                self.say(&mut progress, input)?;
                if let Some(conclusion) = self.carry_out(&mut progress) {
                    self.check_matrix(&progress)?;
                    self.sum_up(&progress, conclusion);
                    if self.shell_on_failure {
                        self.shell(&progress)?;
                    }
                    return Ok(Ended {
                        conclusion,
                        interrupted: interrupts.count > 0,
                    });
                }
            }
            tokio::select! {
                Some(report) = heard.recv() => self.take(&mut progress, report),
                () = self.stop.cancelled(), if !progress.stopped => {
                    progress.stopped = true;
                    progress.inputs.push_back(RunInput::Cancel { reason: self.stop_reason.to_owned() });
                }
                () = interrupts.next() => {
                    if interrupts.count == 1 {
                        error_line("cancelling; press Ctrl-C again to stop immediately");
                        progress.inputs.push_back(RunInput::Cancel { reason: "interrupted".to_owned() });
                    } else {
                        self.end_at_once(&progress);
                    }
                }
            }
        }
    }

    /// Refuses a run none of whose cells `--matrix` names; of matrices that are computed this is known at the end.
    fn check_matrix(&self, progress: &Progress) -> Result<(), Failure> {
        let mut cells = Vec::new();
        if let Some(run) = progress.state.0.as_deref() {
            add_matrix_cells(&run.progress, &mut cells);
        }
        if cells.is_empty() {
            return Ok(());
        }
        let cells = cells.iter().map(|cell| (cell.name.clone(), &cell.matrix));
        self.cells.check_match(cells)
    }

    fn say(&self, progress: &mut Progress, input: RunInput) -> Result<(), Failure> {
        let by = self.spec.actor.clone().unwrap_or_else(|| "you".to_owned());
        let by = Principal::person(&by).actor();
        let events = RunAggregate::decide(&progress.state, input, by, Timestamp::now())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        fold::<RunAggregate>(&mut progress.state, &events);
        Ok(())
    }

    fn take(&self, progress: &mut Progress, report: Report) {
        match report {
            Report::Said(input) => progress.inputs.push_back(input),
            Report::Stored { name, path } => drop(progress.files.insert(name, path)),
            Report::LastWords(key, lines) => progress.last_words.push((key, lines)),
            Report::Over(effect) => {
                progress.running.remove(&effect);
                // There is room for another.
                progress.inputs.push_back(RunInput::TimerFired);
            }
        }
    }

    /// Starts pending effects that are not running yet; returns the conclusion at the end.
    fn carry_out(&self, progress: &mut Progress) -> Option<Conclusion> {
        for (key, effect) in RunAggregate::pending(&progress.state, Timestamp::now()).effects {
            if progress.running.get(&key) == Some(&effect) {
                continue;
            }
            let (job, attempt, stop) = match &effect {
                RunEffect::RunJob { key, attempt, stop } => (key.clone(), *attempt, stop.clone()),
                RunEffect::Gate(gate) => {
                    progress.inputs.push_back(passed(gate));
                    continue;
                }
                RunEffect::NotifyService { conclusion, .. } => return Some(*conclusion),
            };
            let begun = progress.running.contains_key(&key);
            match stop {
                Some(_) if begun => {
                    let folder = self.runner.attempt_folder(&self.spec.id, &job, attempt);
                    self.runner.cancel(&folder);
                }
                Some(why) => {
                    progress
                        .inputs
                        .push_back(ended(job, Conclusion::Cancelled, why));
                    continue;
                }
                None if progress.running.len() >= self.jobs_max => continue,
                None => {
                    if let Err(not_started) = self.start(progress, &key, (&job, attempt)) {
                        let (conclusion, why) = (not_started.conclusion(), not_started.to_string());
                        progress.inputs.push_back(ended(job, conclusion, why));
                        continue;
                    }
                }
            }
            progress.running.insert(key, effect);
        }
        None
    }

    /// Starts a job and follows it.
    fn start(
        &self,
        progress: &Progress,
        effect: &EffectKey,
        (key, attempt): (&JobKey, u32),
    ) -> Result<(), NotStarted> {
        let run = progress.state.0.as_deref().ok_or(NotStarted::NoRun)?;
        // A call that is left out leaves out all that it leads to.
        for key in key.callers().chain([key.clone()]) {
            let (_, cell) = run.cell(&key).ok_or(NotStarted::UnknownJob)?;
            if !self.cells.take(&cell.matrix) {
                return Err(NotStarted::Excluded);
            }
            self.runner.check_request(&cell.runs_on)?;
        }
        let folder = self.runner.attempt_folder(&self.spec.id, key, attempt);
        let spec = self.job_spec(progress, key, &folder)?;
        self.runner.start_worker(&spec)?;
        let follower = Follower {
            key: key.clone(),
            effect: effect.clone(),
            show: self.show,
            reports: progress.reports.clone(),
        };
        // Ends with its job, which is waited for.
        tokio::spawn(follower.follow(self.runner.clone(), folder));
        Ok(())
    }

    /// What a worker is given.
    fn job_spec(
        &self,
        progress: &Progress,
        key: &JobKey,
        folder: &Path,
    ) -> Result<JobSpec, JobSpecError> {
        let run = progress.state.0.as_deref();
        let artifacts = run.map_or(&[][..], |run| &run.artifacts);
        let (mut stored, mut mounts) = (Vec::new(), self.mounts(folder));
        for artifact in artifacts {
            let Some(path) = progress.files.get(&artifact.name) else {
                continue;
            };
            let digest = artifact.digest.to_string();
            mounts.artifacts.insert(digest.clone(), path.clone());
            stored.push(StoredArtifact {
                name: artifact.name.clone(),
                digest,
                size: artifact.size,
            });
        }
        let around = JobEnvironment {
            secrets: self.secrets.clone(),
            environment_secrets: BTreeMap::new(),
            vars: BTreeMap::new(),
            env: self.env.clone(),
            source: SourceTree::Directory,
            artifacts: stored,
            server: None,
            actions: self.actions.clone(),
        };
        let mut spec = job_spec(&progress.state, key, around)?;
        // Here most of a workflow is better than none of it.
        spec.without_engine = WithoutEngine::LeaveOut;
        spec.mounts = mounts;
        Ok(spec)
    }

    /// What jobs of this run need of this machine, without the artifacts.
    fn mounts(&self, folder: &Path) -> JobMounts {
        JobMounts {
            folder: folder.to_owned(),
            source: self.here.clone(),
            caches: caches(&self.spec.id.service, &self.here),
            ..JobMounts::default()
        }
    }

    /// A shell where the step failed that the run is blamed on. Its secrets are yours.
    fn shell(&self, progress: &Progress) -> Result<(), Failure> {
        let Some(run) = progress.state.0.as_deref() else {
            return Ok(());
        };
        let view = RunView::from(run);
        let Some(job) = blamed(&view) else {
            return Ok(());
        };
        let attempt = job.attempt();
        let Ok(key) = job.key.parse::<JobKey>() else {
            return Ok(());
        };
        let folder = self.runner.attempt_folder(&self.spec.id, &key, attempt);
        let spec = self
            .job_spec(progress, &key, &folder)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        shell::open_in_failed_job(&spec, attempt)
    }

    fn end_at_once(&self, progress: &Progress) {
        for effect in progress.running.values() {
            if let RunEffect::RunJob { key, attempt, .. } = effect {
                let folder = self.runner.attempt_folder(&self.spec.id, key, *attempt);
                self.runner.cancel_at_once(&folder);
            }
        }
    }

    fn sum_up(&self, progress: &Progress, conclusion: Conclusion) {
        if let Some(run) = progress.state.0.as_deref() {
            let view = RunView::from(run);
            let log = blamed(&view).and_then(|job| {
                let key = job.key.parse().ok()?;
                Some(
                    self.runner
                        .attempt_log_path(&self.spec.id, &key, job.attempt()),
                )
            });
            let text = log
                .as_deref()
                .and_then(|log| tail::read_last_lines(log).ok());
            let kept = log.as_ref().filter(|_| self.keep);
            let kept = kept.map(|log| log.display().to_string());
            let place = RunSite::Here {
                log: kept.as_deref(),
            };
            let lines = three_lines(&view, &text.unwrap_or_default(), place);
            let words = &progress.last_words;
            self.show
                .sum_up(&view, conclusion, lines.as_ref(), words, &self.hint);
        }
    }
}

/// All cells of matrices, those of called workflows among them.
fn add_matrix_cells<'p>(
    progress: &'p graph::WorkflowProgress,
    found: &mut Vec<&'p graph::MatrixCell>,
) {
    for cell in progress.jobs.iter().flat_map(|job| &job.cells) {
        if cell.matrix != ExprValue::Null {
            found.push(cell);
        }
        if let Some(called) = &cell.called {
            add_matrix_cells(&called.progress, found);
        }
    }
}

/// Where runs of this folder keep their caches: with the user's other caches, apart from those of other folders.
fn caches(service: &ServiceName, here: &Path) -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) if Path::new(&folder).is_absolute() => PathBuf::from(folder),
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let place = Digest::compute(here.as_os_str().as_encoded_bytes()).to_string();
    let place = place.trim_start_matches("sha256:").get(..12)?.to_owned();
    Some(
        base.join("shipway/caches")
            .join(format!("{service}-{place}")),
    )
}

/// There are no other runs: every slot is free.
fn passed(gate: &GateEffect) -> RunInput {
    RunInput::Gate(match gate {
        GateEffect::RequestSlot { job, ticket, .. } => GateInput::SlotRequestAnswered {
            job: job.clone(),
            ticket: *ticket,
            position: SlotPosition::Entered,
        },
        GateEffect::ReleaseSlot { job, ticket, .. } => GateInput::SlotReleased {
            job: job.clone(),
            ticket: *ticket,
        },
    })
}

fn ended(key: JobKey, conclusion: Conclusion, why: String) -> RunInput {
    RunInput::JobEnded {
        key,
        conclusion,
        outputs: Vec::new(),
        why: Some(why),
    }
}

/// Ctrl-C, and what a service manager sends.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    count: u32,
}

impl Interrupts {
    pub(super) fn subscribe() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            count: 0,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.count += 1;
    }
}
