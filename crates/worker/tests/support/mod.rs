//! Runs jobs with real worker processes: this test binary, running its ignored test `as_the_worker`.

// Each test binary uses only a part.
#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use shipway_syntax::SourceFile;
use shipway_worker::{JOB_FILE, JOURNAL_FILE, LOG_FILE, read_journal};
use shipway_workflow::{
    expr::ExprValue,
    job::{
        ActionSource, Conclusion, InputDelivery, JobContexts, JobKey, JobMounts, JobSpec,
        JournalBody, JournalEntry, SourceTree, StoredArtifact, WithoutEngine,
    },
};

/// Timeout for everything that tests wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job in a temporary folder.
pub(crate) struct Bench {
    pub(crate) root: tempfile::TempDir,
    pub(crate) spec: JobSpec,
    /// Additional variables of the worker.
    pub(crate) environment: Vec<(String, String)>,
}

/// The results of a job.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) conclusion: Conclusion,
    pub(crate) why: Option<String>,
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) entries: Vec<JournalEntry>,
    /// Without timestamps.
    pub(crate) log: String,
}

impl Bench {
    /// A job with these steps (a YAML list).
    pub(crate) fn steps(steps: &str) -> Self {
        let steps: String = steps
            .lines()
            .map(|line| format!("      {line}\n"))
            .collect();
        Self::job(&format!("    steps:\n{steps}"))
    }

    /// A job with this YAML.
    pub(crate) fn job(job: &str) -> Self {
        let text = format!("on: push\njobs:\n  a:\n    runs-on: x\n{job}");
        let source = SourceFile::new("w.yml", text);
        let parsed = shipway_workflow::parse(&source);
        let mistakes: Vec<String> = parsed
            .diagnostics
            .iter()
            .map(|it| it.one_line(&source))
            .collect();
        let workflow = parsed
            .workflow
            .unwrap_or_else(|| panic!("{mistakes:#?}\n{}", source.text));
        let job = &workflow.jobs[0];
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("job");
        fs::create_dir(&folder).unwrap();
        fs::create_dir(root.path().join("source")).unwrap();
        let spec = JobSpec {
            key: JobKey::new("a", None),
            job_id: "a".to_owned(),
            name: "a".to_owned(),
            matrix_index: 0,
            steps: job.steps.clone(),
            env: vec![workflow.env.clone(), job.env.clone()],
            defaults: job.defaults.clone(),
            outputs: job.outputs.clone(),
            environment_url: None,
            timeout_ms: 60_000,
            contexts: JobContexts {
                github: ExprValue::object([
                    ("repository", ExprValue::from("shipway/shop")),
                    ("run_number", ExprValue::from("12")),
                    ("sha", ExprValue::from("0".repeat(40))),
                    ("ref", ExprValue::from("refs/heads/main")),
                ]),
                ..JobContexts::default()
            },
            source: SourceTree::Directory,
            artifacts: Vec::new(),
            server: None,
            reports: Default::default(),
            container: job.container.clone(),
            services: job.services.written().to_vec(),
            without_engine: WithoutEngine::default(),
            limits: Default::default(),
            actions: ActionSource::default(),
            resume: None,
            delivery: InputDelivery::default(),
            mounts: JobMounts {
                folder,
                source: root.path().join("source"),
                caches: Some(root.path().join("caches")),
                ..JobMounts::default()
            },
        };
        Self {
            root,
            spec,
            environment: Vec::new(),
        }
    }

    pub(crate) fn secrets(mut self, secrets: &[(&'static str, &str)]) -> Self {
        let values = secrets
            .iter()
            .map(|(name, value)| (*name, ExprValue::from(*value)));
        self.spec.contexts.secrets = ExprValue::object(values);
        self
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout_ms = timeout.as_millis() as u64;
        self
    }

    /// Gives the job the artifacts that another one has saved; returns their names.
    pub(crate) fn with_saved_artifacts(&mut self, entries: &[JournalEntry]) -> Vec<String> {
        for entry in entries {
            if let JournalBody::ArtifactSaved {
                name, digest, path, ..
            } = &entry.body
            {
                self.spec.artifacts.push(StoredArtifact {
                    name: name.clone(),
                    digest: digest.clone(),
                    size: path.metadata().map_or(0, |found| found.len()),
                });
                (self.spec.mounts.artifacts).insert(digest.clone(), path.clone());
            }
        }
        let names = self.spec.artifacts.iter();
        names.map(|artifact| artifact.name.clone()).collect()
    }

    /// Uses actions of this forge.
    pub(crate) fn forge(mut self, forge: &Forge) -> Self {
        self.spec.actions.forge = forge.root.path().display().to_string();
        self.spec.actions.cache = Some(forge.root.path().join("cache"));
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.spec.mounts.folder
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    /// Adds a file to the workspace.
    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        let path = self.folder().join("workspace").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Starts the worker.
    pub(crate) fn start(&self) -> Child {
        fs::write(
            self.folder().join(JOB_FILE),
            serde_json::to_vec(&self.spec).unwrap(),
        )
        .unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "as_the_worker", "--nocapture"])
            .env("WORKER_FOLDER", self.folder())
            .env("SERVERS_SECRET", "must not leak")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs the job until it ends.
    pub(crate) fn run(&self) -> Outcome {
        let mut worker = self.start();
        wait(&mut worker);
        self.outcome()
    }

    /// Runs the job after `ready` has prepared something.
    pub(crate) fn run_with(self, ready: impl FnOnce(&Self)) -> Outcome {
        ready(&self);
        self.run()
    }

    /// Runs the job and calls `look` before its folder is removed.
    pub(crate) fn run_keeping(self, look: impl FnOnce(&Self, Outcome) -> Outcome) -> Outcome {
        let outcome = self.run();
        look(&self, outcome)
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let entries = read_journal(&self.folder().join(JOURNAL_FILE)).unwrap();
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=entries.len() as u64).collect::<Vec<_>>());
        let log = self.log();
        let Some(JournalBody::Finished {
            conclusion,
            outputs,
            why,
        }) = entries.last().map(|entry| entry.body.clone())
        else {
            panic!("the journal has no end: {entries:#?}\n{log}");
        };
        Outcome {
            conclusion,
            why,
            outputs,
            entries,
            log,
        }
    }

    /// The current log without timestamps.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.folder().join(LOG_FILE)).unwrap_or_default();
        let lines = text.lines().map(|line| line.get(25..).unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Waits until the log contains `text`.
    pub(crate) fn await_log(&self, text: &str) {
        until(text, || self.log().lines().any(|line| line == text));
    }

    /// Runs the job and cancels it when the log contains `text`.
    pub(crate) fn cancelled_at(&self, text: &str) -> Outcome {
        let mut worker = self.start();
        self.await_log(text);
        signal(&worker, rustix::process::Signal::TERM);
        wait(&mut worker);
        let outcome = self.outcome();
        assert_eq!(outcome.conclusion, Conclusion::Cancelled, "{}", outcome.log);
        outcome
    }
}

impl Outcome {
    /// Outcome, conclusion and reason of the step with this id.
    pub(crate) fn step(&self, id: &str) -> (Conclusion, Conclusion, Option<String>) {
        let step = self.entries.iter().find_map(|entry| match &entry.body {
            JournalBody::StepFinished {
                id: found,
                outcome,
                conclusion,
                why,
                ..
            } if found == id => Some((*outcome, *conclusion, why.clone())),
            _ => None,
        });
        step.unwrap_or_else(|| panic!("no step {id}: {:#?}", self.entries))
    }

    /// The output of a step, without its head.
    pub(crate) fn printed(&self, id: &str) -> String {
        let at = self.entries.iter().position(|entry| matches!(&entry.body, JournalBody::StepStarted { id: found, .. } if found == id));
        let steps = self.entries[..at.unwrap()]
            .iter()
            .filter(|entry| matches!(entry.body, JournalBody::StepStarted { .. }))
            .count();
        let part = self
            .log
            .split("##[group]")
            .nth(steps + 1)
            .unwrap_or_default();
        let part = part
            .split_once("##[endgroup]\n")
            .map_or("", |(_, rest)| rest);
        part.trim_end().to_owned()
    }

    /// The names of the steps in the order of their start.
    pub(crate) fn names(&self) -> Vec<&str> {
        let names = self.entries.iter().filter_map(|entry| match &entry.body {
            JournalBody::StepStarted { name, .. } => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }

    /// The lines of the log that begin with `> `, without this prefix.
    pub(crate) fn told(&self) -> Vec<&str> {
        let lines = self.log.lines();
        lines.filter_map(|line| line.strip_prefix("> ")).collect()
    }

    /// The journal as text.
    pub(crate) fn journal(&self) -> String {
        serde_json::to_string(&self.entries).unwrap()
    }
}

/// A folder of bare repositories.
pub(crate) struct Forge {
    pub(crate) root: tempfile::TempDir,
}

impl Forge {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// Creates a commit with these files as `main` and `tag` of the repository; returns its id.
    pub(crate) fn commit(&self, repository: &str, tag: &str, files: &[(&str, &str)]) -> String {
        let bare = self.root.path().join(format!("{repository}.git"));
        if !bare.exists() {
            fs::create_dir_all(&bare).unwrap();
            git(&bare, &["init", "--quiet", "--bare"]);
        }
        let work = tempfile::tempdir().unwrap();
        let at = work.path();
        git(at, &["clone", "--quiet", bare.to_str().unwrap(), "."]);
        for (path, text) in files {
            let path = at.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        git(at, &["add", "."]);
        git(at, &["commit", "--quiet", "--allow-empty", "-m", tag]);
        git(at, &["tag", "-f", "-a", "-m", tag, tag]);
        git(
            at,
            &["push", "--quiet", "--force", "origin", "HEAD:main", tag],
        );
        git(at, &["rev-parse", "HEAD"])
    }
}

pub(crate) fn git(at: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(["-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(at)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits until the worker exits.
pub(crate) fn wait(worker: &mut Child) {
    until("the worker's end", || worker.try_wait().unwrap().is_some());
}

/// Polls until `is_so`: these processes have no way to notify.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what} has not come in {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(worker: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(worker.id() as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Whether the process whose pid is in this file is running.
pub(crate) fn is_alive(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The worker's main function.
pub(crate) fn be_the_worker() {
    let folder = std::env::var_os("WORKER_FOLDER").expect("the folder of a job");
    let _ = shipway_worker::run_job(Path::new(&folder), shipway_worker::Durability::Durable);
}
