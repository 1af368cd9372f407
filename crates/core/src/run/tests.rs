//! Runs from the first event to the last, and again from every length of their logs.

mod github_context;
mod test_results;

use std::collections::{BTreeMap, BTreeSet};

use shipway_workflow::job::{ActionSource, Conclusion, JobKey, JobMounts, SourceTree};

mod calls;
mod looking;
mod rerun;
mod resume;
mod storage;

use super::*;
use crate::{
    access::Principal,
    aggregate::fold,
    ids::Digest,
    release::{Commit, WorkflowFile},
    service::RunPurpose,
};

const WORKFLOW: &str = "name: CI
on: { push: , workflow_dispatch: { inputs: { level: { type: choice, options: [low, high] } } } }
env: { A: '${{ vars.A }}' }
defaults: { run: { shell: bash } }
jobs:
  build:
    runs-on: x
    outputs: { version: '${{ steps.v.outputs.version }}' }
    steps: [{ id: v, run: make }]
  test:
    needs: build
    runs-on: x
    strategy: { matrix: { v: [1, 2, 3] } }
    timeout-minutes: 2
    steps: [{ run: 'test ${{ needs.build.outputs.version }}' }]
  docs: { needs: build, if: github.ref_name == 'docs', runs-on: x, steps: [{ run: a }] }
  report: { needs: [test, docs], if: always(), runs-on: x, steps: [{ run: a }] }
";

pub(super) fn spec(text: &str) -> RunSpec {
    RunSpec {
        id: "shop/r12".parse().unwrap(),
        uid: None,
        purpose: RunPurpose::Push { sequence: 1 },
        workflow: WorkflowFile::new(".github/workflows/ci.yml".to_owned(), text.to_owned()),
        commit: Commit {
            id: "a".repeat(40).parse().unwrap(),
            subject: "Sell more".to_owned(),
            author: "Ada <ada@example.com>".to_owned(),
            committer: None,
            at: at(0),
        },
        reference: "refs/heads/main".to_owned(),
        before: None,
        event: "push".to_owned(),
        inputs: BTreeMap::new(),
        payload: None,
        vars: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        actor: None,
        reports: Default::default(),
        coverage_min: None,
        environments: Vec::new(),
        event_payload: None,
        repository: None,
        default_branch: None,
        location: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A run in memory: its log, and what it folds into.
#[derive(Default)]
struct Log {
    state: RunState,
    events: Vec<Event<RunEvent>>,
}

impl Log {
    fn open(spec: RunSpec) -> Self {
        let mut log = Self::default();
        log.say(RunInput::Open(Box::new(spec))).unwrap();
        log
    }

    fn say(&mut self, input: RunInput) -> Result<usize, RunRejection> {
        let second = self.events.len() as i64;
        let events = RunAggregate::decide(
            &self.state,
            input,
            Principal::person("ada").pusher().actor("someone"),
            at(second),
        )?;
        fold::<RunAggregate>(&mut self.state, &events);
        let count = events.len();
        self.events.extend(events);
        Ok(count)
    }

    /// The keys of what is pending; `!` after a job that is to stop.
    fn pending(&self) -> Vec<String> {
        let effects = RunAggregate::pending(&self.state, at(0)).effects;
        effects
            .into_iter()
            .map(|(key, effect)| match effect {
                RunEffect::RunJob { stop: Some(_), .. } => format!("{}!", key.0),
                RunEffect::RunJob { stop: None, .. }
                | RunEffect::Gate(_)
                | RunEffect::NotifyService { .. } => key.0,
            })
            .collect()
    }

    fn start(&mut self, key: &str) {
        self.say(RunInput::JobStarted { key: job(key) }).unwrap();
    }

    fn end(&mut self, key: &str, conclusion: Conclusion) {
        let outputs = vec![("version".to_owned(), "7".to_owned())];
        let why = (conclusion != Conclusion::Success).then(|| "exit code 1".to_owned());
        self.say(RunInput::JobEnded {
            key: job(key),
            conclusion,
            outputs,
            why,
        })
        .unwrap();
    }

    fn view(&self) -> RunView {
        serde_json::from_value(RunAggregate::rows(&self.state, &[])[0].doc.clone()).unwrap()
    }

    /// `build success, test.1 running, …`
    fn jobs(&self) -> String {
        let word = |status: RunStatus| {
            serde_json::to_value(status)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        self.view()
            .jobs
            .iter()
            .map(|job| format!("{} {}", job.key, word(job.status)))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn job(key: &str) -> JobKey {
    key.parse().unwrap()
}

fn around() -> JobEnvironment {
    JobEnvironment {
        secrets: BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]),
        environment_secrets: BTreeMap::new(),
        vars: BTreeMap::from([("B".to_owned(), "2".to_owned())]),
        env: BTreeMap::from([("SHIPWAY_URL".to_owned(), "${{ http".to_owned())]),
        source: SourceTree::Directory,
        artifacts: Vec::new(),
        server: None,
        actions: ActionSource::default(),
    }
}

#[test]
fn a_green_run_goes_from_job_to_job_and_tells_the_service() {
    let mut log = Log::open(spec(WORKFLOW));
    assert_eq!(
        log.jobs(),
        "build queued, test waiting, docs waiting, report waiting"
    );
    assert_eq!(log.pending(), ["job-build"]);
    log.start("build");
    let step = StepLine {
        index: 0,
        name: "make".to_owned(),
        conclusion: Conclusion::Success,
        outcome: None,
        took_ms: 5,
        in_attempt: None,
    };
    log.say(RunInput::StepFinished {
        key: job("build"),
        step,
    })
    .unwrap();
    let artifact = ArtifactRecord {
        name: "shop".to_owned(),
        digest: Digest::compute(b"x"),
        size: 1,
    };
    log.say(RunInput::ArtifactStored {
        artifact: artifact.clone(),
    })
    .unwrap();
    log.end("build", Conclusion::Success);
    assert_eq!(
        log.jobs(),
        "build success, test.1 queued, test.2 queued, test.3 queued, docs skipped, report waiting"
    );
    assert_eq!(log.pending(), ["job-test.1", "job-test.2", "job-test.3"]);
    for key in ["test.2", "test.3", "test.1"] {
        log.end(key, Conclusion::Success);
    }
    assert_eq!(log.pending(), ["job-report"]);
    log.end("report", Conclusion::Success);
    assert_eq!(log.pending(), ["tell-service"]);
    let told = RunAggregate::pending(&log.state, at(0)).effects;
    let [
        (
            _,
            RunEffect::NotifyService {
                conclusion: Conclusion::Success,
                artifacts,
                ..
            },
        ),
    ] = told.as_slice()
    else {
        panic!("the service is told of success")
    };
    assert_eq!(
        (artifacts[0].name.as_str(), &artifacts[0].digest),
        ("shop", &artifact.digest)
    );
    log.say(RunInput::ServiceNotified).unwrap();
    assert_eq!(
        RunAggregate::pending(&log.state, at(0)),
        PendingWork::nothing()
    );
    let view = log.view();
    assert_eq!(
        (
            view.status,
            view.branch.as_str(),
            view.by.as_str(),
            view.name.as_str()
        ),
        (RunStatus::Success, "main", "ada", "CI")
    );
    assert_eq!(view.jobs[0].steps[0].name, "make");
}

#[test]
fn saying_a_thing_twice_changes_nothing() {
    let mut log = Log::open(spec(WORKFLOW));
    assert_eq!(log.say(RunInput::Open(Box::new(spec(WORKFLOW)))), Ok(0));
    log.start("build");
    log.end("build", Conclusion::Success);
    let (key, outputs) = (job("build"), Vec::new());
    assert_eq!(log.say(RunInput::JobStarted { key: key.clone() }), Ok(0));
    assert_eq!(
        log.say(RunInput::JobEnded {
            key,
            conclusion: Conclusion::Failure,
            outputs,
            why: None
        }),
        Ok(0)
    );
    assert_eq!(log.say(RunInput::TimerFired), Ok(0));
    assert_eq!(log.say(RunInput::ServiceNotified), Ok(0));
    assert_eq!(log.view().jobs[0].status, RunStatus::Success);
}

#[test]
fn a_lost_worker_fails_its_job_and_the_matrix_with_it() {
    let mut log = Log::open(spec(WORKFLOW));
    log.end("build", Conclusion::Success);
    let (key, why) = (job("test.2"), Some("worker lost".to_owned()));
    log.say(RunInput::JobEnded {
        key,
        conclusion: Conclusion::Failure,
        outputs: Vec::new(),
        why,
    })
    .unwrap();
    assert_eq!(log.pending(), ["job-test.1!", "job-test.3!"]);
    log.end("test.1", Conclusion::Cancelled);
    log.end("test.3", Conclusion::Cancelled);
    log.end("report", Conclusion::Success);
    let view = log.view();
    assert_eq!(
        (view.status, view.why.as_deref()),
        (RunStatus::Failure, Some("`test`: worker lost"))
    );
    assert_eq!(
        log.jobs(),
        "build success, test.1 cancelled, test.2 failure, test.3 cancelled, docs skipped, report success"
    );
    assert_eq!(view.jobs[1].why.as_deref(), Some("exit code 1"));
}

#[test]
fn a_cancelled_run_stops_its_jobs_and_ends() {
    let mut log = Log::open(spec(WORKFLOW));
    log.start("build");
    log.say(RunInput::Cancel {
        reason: "a newer push".to_owned(),
    })
    .unwrap();
    assert_eq!(
        log.say(RunInput::Cancel {
            reason: "again".to_owned()
        }),
        Ok(0)
    );
    assert_eq!(log.pending(), ["job-build!"]);
    log.end("build", Conclusion::Cancelled);
    assert_eq!(log.pending(), ["job-report"]);
    log.end("report", Conclusion::Success);
    assert_eq!(log.view().status, RunStatus::Cancelled);
    assert_eq!(
        log.jobs(),
        "build cancelled, test cancelled, docs cancelled, report success"
    );
    let refused = log
        .say(RunInput::Cancel {
            reason: "late".to_owned(),
        })
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "shop/r12 has already finished (cancelled) and can't be cancelled"
    );
}

#[test]
fn what_can_not_be_run_ends_at_once_and_says_why() {
    let log = Log::open(spec(
        "on: push\njobs:\n  a: { runs-on: x, needs: b, steps: [{ run: a }] }\n",
    ));
    assert_eq!(
        log.view().why.as_deref(),
        Some(
            ".github/workflows/ci.yml:3:27: error: the job `a` needs `b`, which doesn't exist; did you mean `a`?"
        )
    );
    assert_eq!(log.pending(), ["tell-service"]);
    let by_hand = RunSpec {
        event: "workflow_dispatch".to_owned(),
        ..spec("on: push\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n")
    };
    assert_eq!(
        Log::open(by_hand).view().why.as_deref(),
        Some(
            ".github/workflows/ci.yml can't be started manually: add `workflow_dispatch` to its `on`"
        )
    );
    let wrong = RunSpec {
        event: "workflow_dispatch".to_owned(),
        inputs: BTreeMap::from([("level".to_owned(), "middle".to_owned())]),
        ..spec(WORKFLOW)
    };
    assert_eq!(
        Log::open(wrong).view().why.as_deref(),
        Some("the input `level` must be one of `low` and `high`, but is 'middle'")
    );
}

#[test]
fn unknown_runs_and_jobs_are_refused() {
    assert_eq!(
        Log::default().say(RunInput::TimerFired),
        Err(RunRejection::NotOpen)
    );
    let mut log = Log::open(spec(WORKFLOW));
    let refused = log
        .say(RunInput::JobStarted { key: job("deploy") })
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "shop/r12 has no job deploy; its jobs are `build`"
    );
}

#[test]
fn a_worker_is_given_all_it_needs() {
    let mut log = Log::open(spec(WORKFLOW));
    assert!(job_spec(&log.state, &job("test.2"), around()).is_err());
    log.end("build", Conclusion::Success);
    let spec = job_spec(&log.state, &job("test.2"), around()).unwrap();
    assert_eq!(
        (
            spec.name.as_str(),
            spec.matrix_index,
            spec.timeout_ms,
            spec.env.len()
        ),
        ("test (2)", 1, 120_000, 3)
    );
    assert_eq!(
        spec.defaults.shell.as_ref().map(|shell| shell.text()),
        Some("bash")
    );
    let mut contexts = shipway_workflow::expr::Contexts::new();
    spec.contexts
        .iter()
        .for_each(|(name, value)| contexts.set(name, value.clone()));
    let shown = "${{ matrix.v }} ${{ needs.build.outputs.version }} ${{ strategy.job-index }}/${{ strategy.job-total }} ${{ github.job }} ${{ github.ref_name }} ${{ github.event.head_commit.author.email }} ${{ vars.A }}${{ vars.B }} ${{ secrets.token }} ${{ github.run_number }}";
    let template = shipway_workflow::expr::Template::parse(shown, 0).unwrap();
    assert_eq!(
        template.resolve_text(&contexts).unwrap(),
        "2 7 1/3 test main ada@example.com 12 hunter2 12"
    );
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(
        serde_json::from_str::<shipway_workflow::job::JobSpec>(&json).unwrap(),
        spec
    );
}

/// A whole run, driven as a driver would: whatever is pending is answered, the last first.
fn driven(fails: &BTreeSet<&str>, cancel_after: Option<usize>) -> Log {
    driven_of(spec(WORKFLOW), fails, cancel_after)
}

fn driven_of(spec: RunSpec, fails: &BTreeSet<&str>, cancel_after: Option<usize>) -> Log {
    let mut log = Log::open(spec);
    for round in 0..50 {
        if cancel_after == Some(round) {
            let _ = log.say(RunInput::Cancel {
                reason: "enough".to_owned(),
            });
        }
        match RunAggregate::pending(&log.state, at(0)).effects.pop() {
            None => return log,
            Some((_, RunEffect::Gate(effect))) => panic!("no gates here: {effect:?}"),
            Some((_, RunEffect::NotifyService { .. })) => {
                log.say(RunInput::ServiceNotified).map(|_| ()).unwrap()
            }
            Some((_, RunEffect::RunJob { key, stop, .. })) => {
                log.start(key.as_str());
                let conclusion = match stop {
                    Some(_) => Conclusion::Cancelled,
                    None if fails.contains(key.as_str()) => Conclusion::Failure,
                    None => Conclusion::Success,
                };
                log.end(key.as_str(), conclusion);
            }
        }
    }
    panic!("the run does not end: {:?}", log.pending())
}

#[test]
fn whatever_fails_every_run_ends_and_is_the_same_from_every_length_of_its_log() {
    for failing in ["", "build", "test.1", "test.2", "report"] {
        for cancel_after in [None, Some(0), Some(1), Some(3)] {
            is_the_same_from_every_length(&driven(&BTreeSet::from([failing]), cancel_after));
        }
    }
}

fn is_the_same_from_every_length(log: &Log) {
    for length in 0..=log.events.len() {
        let mut folded = RunState::default();
        fold::<RunAggregate>(&mut folded, &log.events[..length]);
        // What a snapshot gives back, and what the log gives back when it was written and read.
        let mut restored: RunState =
            serde_json::from_str(&serde_json::to_string(&folded).unwrap()).unwrap();
        assert_eq!(
            RunAggregate::pending(&folded, at(0)),
            RunAggregate::pending(&restored, at(0))
        );
        let rest: Vec<Event<RunEvent>> =
            serde_json::from_str(&serde_json::to_string(&log.events[length..]).unwrap()).unwrap();
        fold::<RunAggregate>(&mut restored, &rest);
        assert_eq!(
            serde_json::to_value(&restored).unwrap(),
            serde_json::to_value(&log.state).unwrap()
        );
    }
}

#[test]
fn a_spec_refers_to_what_it_needs_without_paths_of_a_machine() {
    let mut log = Log::open(spec(WORKFLOW));
    log.start("build");
    let source = SourceTree::Git {
        repository: "shop".to_owned(),
        commit: "c0ffee".to_owned(),
        reference: "refs/heads/main".to_owned(),
    };
    let around = JobEnvironment { source, ..around() };
    let spec = job_spec(&log.state, &job("build"), around).unwrap();
    assert_eq!(spec.mounts, JobMounts::default());
    let text = serde_json::to_string(&spec).unwrap();
    assert!(!text.contains("\"/"), "an absolute path: {text}");
}

#[test]
fn the_log_holds_no_secrets() {
    let log = driven(&BTreeSet::new(), None);
    let _ = job_spec(&log.state, &job("build"), around()).unwrap();
    assert!(
        !serde_json::to_string(&log.events)
            .unwrap()
            .contains("hunter2")
    );
    assert!(
        !serde_json::to_string(&log.state)
            .unwrap()
            .contains("hunter2")
    );
}

#[test]
fn a_run_tells_its_story() {
    let log = driven(&BTreeSet::from(["test.2"]), None);
    let story: Vec<String> = log
        .events
        .iter()
        .flat_map(|event| story_lines(&event.body))
        .collect();
    assert_eq!(
        story,
        [
            "· build started",
            "✓ build",
            "- docs skipped: its condition is false: `github.ref_name == 'docs'`",
            "· test.3 started",
            "✓ test.3",
            "· test.2 started",
            "✗ test.2: exit code 1",
            "· test.1 started",
            "✗ test.1 cancelled: exit code 1",
            "· report started",
            "✓ report",
            "✗ failure: `test`: exit code 1",
        ]
    );
}
