//! Jobs followed through their journals, with real workers: this test binary, running its ignored test `as_the_worker`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use shipway_core::access::JobIdentity;
use shipway_drivers::{
    git::GitRepositories,
    jobs::{JobError, JobExecutor, JobRunner, JournalOffset, LocalSources, ProcessJobExecutor},
};
use shipway_store::FileBlobs;
use shipway_syntax::SourceFile;
use shipway_workflow::job::{
    ActionSource, Conclusion, InputDelivery, JobContexts, JobKey, JobMounts, JobSpec, JournalBody,
    JournalEntry, SourceTree, WithoutEngine,
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// The longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    let arguments = fs::read_to_string("arguments").unwrap();
    let folder = arguments.trim().strip_prefix("worker --dir ").unwrap();
    let _ = shipway_worker::run_job(Path::new(folder), shipway_worker::Durability::Durable);
}

struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// A program that does what `shipway worker --dir FOLDER` does. It runs in the job's folder.
    fn runner(&self) -> JobRunner {
        let this = std::env::current_exe().unwrap();
        let script = format!(
            "echo \"$*\" > arguments\nexec '{}' --ignored --exact as_the_worker --nocapture",
            this.display()
        );
        self.runner_of(&script)
    }

    fn runner_of(&self, script: &str) -> JobRunner {
        let path = self.root.path().join("shipway");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        JobRunner::new(path, self.root.path().join("runs"))
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("runs/shop/1/a")
    }

    fn spec(&self, steps: &str) -> JobSpec {
        let steps: String = steps
            .lines()
            .map(|line| format!("      {line}\n"))
            .collect();
        let text = format!("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n{steps}");
        let workflow = shipway_workflow::parse(&SourceFile::new("w.yml", text)).workflow;
        let job = workflow.unwrap().jobs.remove(0);
        JobSpec {
            key: JobKey::new("a", None),
            job_id: job.id,
            name: "a".to_owned(),
            matrix_index: 0,
            steps: job.steps,
            env: Vec::new(),
            defaults: job.defaults,
            outputs: job.outputs,
            environment_url: None,
            timeout_ms: 60_000,
            contexts: JobContexts::default(),
            source: SourceTree::Directory,
            artifacts: Vec::new(),
            server: None,
            reports: Default::default(),
            container: None,
            services: Vec::new(),
            without_engine: WithoutEngine::default(),
            limits: Default::default(),
            resume: None,
            actions: ActionSource::default(),
            delivery: InputDelivery::default(),
            mounts: JobMounts {
                folder: self.folder(),
                source: self.root.path().to_owned(),
                ..JobMounts::default()
            },
        }
    }

    fn workspace(&self, name: &str) -> PathBuf {
        self.folder().join("workspace").join(name)
    }
}

/// The entries up to the last, or to the first that `stop` likes.
async fn entries(
    runner: &JobRunner,
    folder: &Path,
    stop: impl Fn(&JournalEntry) -> bool,
) -> Result<Vec<JournalEntry>, JobError> {
    let reading = async {
        let (mut journal, mut entries) = (runner.journal(folder)?, Vec::new());
        while let Some(entry) = journal.next(&CancellationToken::new()).await? {
            let enough = stop(&entry);
            entries.push(entry);
            if enough {
                break;
            }
        }
        Ok(entries)
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the journal goes on")
}

fn conclusion(entries: &[JournalEntry]) -> Conclusion {
    match entries.last().map(|entry| &entry.body) {
        Some(JournalBody::Finished { conclusion, .. }) => *conclusion,
        other => panic!("not an end: {other:?}"),
    }
}

fn worker(entries: &[JournalEntry]) -> Pid {
    match entries[0].body {
        JournalBody::Started { pid, .. } => Pid::from_raw(pid as i32).unwrap(),
        _ => panic!("not a beginning: {entries:?}"),
    }
}

const STEP_STARTED: fn(&JournalEntry) -> bool =
    |entry| matches!(entry.body, JournalBody::StepStarted { .. });

#[tokio::test]
async fn a_job_is_followed_to_its_end_and_its_log_with_it() {
    let bench = Bench::new();
    let runner = bench.runner();
    runner
        .start_worker(&bench.spec("- run: seq 1 20000\n- run: echo last"))
        .unwrap();
    let log = runner
        .tail_log(&bench.folder(), 0, runner.journal(&bench.folder()).unwrap())
        .unwrap();
    let reading = log.fold(Vec::new(), async |mut all, chunk| {
        all.extend_from_slice(&chunk.unwrap());
        all
    });
    let folder = bench.folder();
    let (entries, log) = tokio::join!(entries(&runner, &folder, |_| false), reading);
    let entries = entries.unwrap();
    assert_eq!(conclusion(&entries), Conclusion::Success);
    let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (1..=6).collect::<Vec<_>>());
    assert_eq!(log, fs::read(bench.folder().join("log")).unwrap());
    assert!(String::from_utf8_lossy(&log).contains("Z 20000\n"));
    let mode = fs::metadata(bench.folder()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others can look into the job's folder");
}

#[tokio::test]
async fn an_executor_knows_jobs_by_identity_and_streams_their_journals_and_files() {
    let bench = Bench::new();
    let root = bench.root.path();
    let sources = LocalSources {
        repositories: Arc::new(GitRepositories::open(root.join("git")).unwrap()),
        blobs: Arc::new(FileBlobs::open(&root.join("blobs")).unwrap()),
        caches: root.join("caches"),
        actions: ActionSource::default(),
        hidden: Vec::new(),
    };
    let executor: Arc<dyn JobExecutor> =
        Arc::new(ProcessJobExecutor::new(bench.runner(), 1, sources));
    let job = JobIdentity {
        run: "shop/r1".parse().unwrap(),
        key: "a".parse().unwrap(),
        attempt: 1,
    };
    let mut unknown = bench.spec("- run: echo");
    unknown.source = SourceTree::Git {
        repository: "other".to_owned(),
        commit: "0".repeat(40),
        reference: "refs/heads/main".to_owned(),
    };
    let refused = executor.start_job(&job, unknown).await.unwrap_err();
    assert_eq!(refused.to_string(), "other has no repository here");
    assert!(!executor.has_started(&job).await);
    let mut spec = bench.spec("- run: echo done > result");
    spec.mounts.folder = PathBuf::new();
    executor.start_job(&job, spec).await.unwrap();
    let never = CancellationToken::new();
    for skipped in [0, 2] {
        let offset = JournalOffset(skipped);
        let mut journal = executor.open_journal(&job, offset).await.unwrap();
        let mut seqs = Vec::new();
        while let Some(entry) = journal.next(&never).await.unwrap() {
            seqs.push(entry.seq);
        }
        assert_eq!(seqs, (skipped as u64 + 1..=4).collect::<Vec<_>>());
    }
    assert!(executor.has_started(&job).await);
    let mut text = String::new();
    let file = executor.open_file(&job, &bench.workspace("result")).await;
    file.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "done\n");
    assert!(
        executor
            .open_file(&job, &root.join("shipway"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_server_that_comes_back_reads_every_entry_once_and_starts_nothing_twice() {
    let bench = Bench::new();
    let spec = bench.spec("- run: echo first >> ran\n- run: 'while [ ! -e go ]; do sleep 0.01; done'\n- run: echo last >> ran");
    let first = {
        // As a server's runtime ends when it is stopped: the worker is nobody's child any more.
        let (runner, spec, folder) = (bench.runner(), spec.clone(), bench.folder());
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                runner.start_worker(&spec).unwrap();
                let second = |entry: &JournalEntry| {
                    matches!(entry.body, JournalBody::StepStarted { index: 1, .. })
                };
                entries(&runner, &folder, second).await.unwrap()
            })
        });
        server.join().unwrap()
    };
    let runner = bench.runner();
    runner.start_worker(&spec).unwrap();
    assert!(!bench.folder().join("job.json").exists());
    fs::write(bench.workspace("go"), "").unwrap();
    let all = entries(&runner, &bench.folder(), |_| false).await.unwrap();
    assert_eq!(all[..first.len()], first);
    assert_eq!(conclusion(&all), Conclusion::Success);
    let ran = fs::read_to_string(bench.workspace("ran")).unwrap();
    assert_eq!(ran, "first\nlast\n");
    // And once more, when all is over.
    assert_eq!(
        entries(&runner, &bench.folder(), |_| false).await.unwrap(),
        all
    );
}

#[tokio::test]
async fn a_killed_worker_is_lost() {
    let bench = Bench::new();
    let runner = bench.runner();
    runner
        .start_worker(&bench.spec("- run: echo $$ > pid; exec sleep 1000"))
        .unwrap();
    let begun = entries(&runner, &bench.folder(), STEP_STARTED)
        .await
        .unwrap();
    let mut journal = runner.journal(&bench.folder()).unwrap();
    let killing = async {
        while fs::read_to_string(bench.workspace("pid"))
            .unwrap_or_default()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        kill_process(worker(&begun), Signal::KILL).unwrap();
    };
    let reading = async {
        let never = CancellationToken::new();
        loop {
            match journal.next(&never).await {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    };
    let (end, ()) = tokio::join!(tokio::time::timeout(PATIENCE, reading), killing);
    assert!(matches!(end, Ok(Err(JobError::WorkerLost(_)))), "{end:?}");
    // Its step is nobody's now.
    let step: i32 = fs::read_to_string(bench.workspace("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kill_process(Pid::from_raw(step).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_worker_that_cannot_run_is_lost_with_its_last_words() {
    let bench = Bench::new();
    let runner = bench.runner_of("echo 'no such luck' >&2; exit 2");
    runner.start_worker(&bench.spec("- run: echo")).unwrap();
    let lost = entries(&runner, &bench.folder(), |_| false)
        .await
        .unwrap_err();
    assert_eq!(lost.to_string(), "worker lost: no such luck");
    let nobody = JobRunner::new("/nonexistent".into(), bench.root.path().join("runs"));
    fs::remove_dir_all(bench.folder()).unwrap();
    assert!(matches!(
        nobody.start_worker(&bench.spec("- run: echo")),
        Err(JobError::Io { .. })
    ));
    assert!(
        !bench.folder().join("job.json").exists(),
        "secrets are left behind"
    );
}

#[tokio::test]
async fn a_job_can_be_cancelled_before_its_worker_is_up_and_while_it_runs() {
    let bench = Bench::new();
    let runner = bench.runner();
    let spec = bench.spec("- run: sleep 1000\n- if: always()\n  run: echo cleaned");
    runner.start_worker(&spec).unwrap();
    runner.cancel(&bench.folder());
    let all = entries(&runner, &bench.folder(), |_| false).await.unwrap();
    assert_eq!(conclusion(&all), Conclusion::Cancelled);

    let bench = Bench::new();
    let runner = bench.runner();
    let spec = bench.spec("- if: always()\n  run: 'echo up; while [ ! -e go ]; do sleep 0.01; done'\n- if: always()\n  run: sleep 1000");
    runner.start_worker(&spec).unwrap();
    entries(&runner, &bench.folder(), STEP_STARTED)
        .await
        .unwrap();
    // Said twice, as by a server that was restarted: it still means once.
    runner.cancel(&bench.folder());
    runner.cancel(&bench.folder());
    fs::write(bench.workspace("go"), "").unwrap();
    let second =
        |entry: &JournalEntry| matches!(entry.body, JournalBody::StepStarted { index: 1, .. });
    entries(&runner, &bench.folder(), second).await.unwrap();
    runner.cancel_at_once(&bench.folder());
    let all = entries(&runner, &bench.folder(), |_| false).await.unwrap();
    assert_eq!(conclusion(&all), Conclusion::Cancelled);
}

#[tokio::test]
async fn more_jobs_are_followed_at_once_than_a_user_may_have_watchers() {
    let bench = Bench::new();
    let runner = bench.runner();
    let mut followed = Vec::new();
    for number in 0..300 {
        let folder = bench.root.path().join(number.to_string());
        fs::create_dir(&folder).unwrap();
        followed.push((
            runner.journal(&folder).unwrap(),
            runner.open_log(&folder, 0).unwrap(),
        ));
    }
    let (journal, log) = &mut followed[250];
    fs::write(bench.root.path().join("250/log"), "text").unwrap();
    tokio::time::timeout(PATIENCE, log.changed())
        .await
        .expect("the log has changed");
    assert_eq!(log.read().unwrap(), "text");
    let nobody = journal.next(&CancellationToken::new()).await;
    assert!(matches!(nobody, Err(JobError::WorkerLost(_))), "{nobody:?}");
}
