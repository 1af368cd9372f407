//! Runs of workflows that call others.

use super::*;
use crate::release::CalledFile;

const CALLER: &str = "on: push
env: { OUTER: '1' }
jobs:
  build:
    runs-on: x
    outputs: { version: '${{ steps.v.outputs.version }}' }
    steps: [{ id: v, run: make }]
  release:
    needs: build
    strategy: { fail-fast: false, matrix: { to: [eu, us] } }
    uses: ./.github/workflows/release.yml
    with: { to: '${{ matrix.to }}', version: '${{ needs.build.outputs.version }}' }
    secrets: { KEY: 'k-${{ secrets.TOKEN }}' }
  report: { needs: release, runs-on: x, if: always(), steps: [{ run: 'echo ${{ needs.release.outputs.url }}' }] }
";

const RELEASE: &str = "on:
  workflow_call:
    inputs: { to: { type: string, required: true }, version: { type: string } }
    secrets: { KEY: { required: true } }
    outputs: { url: { value: '${{ inputs.to }}/${{ jobs.upload.outputs.version }}' } }
env: { INNER: '2' }
jobs:
  sign: { uses: ./.github/workflows/sign.yml, secrets: inherit }
  upload:
    needs: sign
    runs-on: x
    outputs: { version: '${{ steps.v.outputs.version }}' }
    steps: [{ id: v, run: upload }]
";

const SIGN: &str = "on: workflow_call
jobs:
  key: { runs-on: x, steps: [{ run: a }] }
";

pub(super) fn called() -> RunSpec {
    let mut spec = spec(CALLER);
    let mut calls = spec.workflow.calls();
    while let Some(name) = calls.next() {
        let text = match name.as_str() {
            ".github/workflows/release.yml" => Ok(RELEASE.to_owned()),
            ".github/workflows/sign.yml" => Ok(SIGN.to_owned()),
            _ => Err("it is not in the commit".to_owned()),
        };
        calls.give(CalledFile::new(name, text));
    }
    spec
}

#[test]
fn called_jobs_run_as_jobs_of_the_run() {
    let mut log = Log::open(called());
    log.end("build", Conclusion::Success);
    assert_eq!(
        log.pending(),
        ["job-release.1~sign~key", "job-release.2~sign~key"]
    );
    log.start("release.1~sign~key");
    let view = log.view();
    let names: Vec<&str> = view.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "build",
            "release (eu)",
            "release (eu) / sign",
            "release (eu) / sign / key",
            "release (eu) / upload",
            "release (us)",
            "release (us) / sign",
            "release (us) / sign / key",
            "release (us) / upload",
            "report",
        ]
    );
    assert_eq!(
        (view.jobs[1].status, view.jobs[1].calls.as_deref()),
        (RunStatus::Running, Some("./.github/workflows/release.yml"))
    );
    assert_eq!(view.jobs[4].needs, ["release.1~sign"]);
    log.end("release.1~sign~key", Conclusion::Success);
    log.end("release.2~sign~key", Conclusion::Failure);
    log.end("release.1~upload", Conclusion::Success);
    log.end("report", Conclusion::Success);
    assert_eq!(
        log.view().why.as_deref(),
        Some("`release`: `sign`: `key`: exit code 1")
    );
    // Nobody runs a call itself, so nobody tells how it ended.
    assert!(
        log.say(RunInput::JobStarted {
            key: job("release.1")
        })
        .is_err()
    );
}

#[test]
fn called_jobs_see_what_the_call_hands_on_and_no_more() {
    let mut log = Log::open(called());
    log.end("build", Conclusion::Success);
    let spec = job_spec(&log.state, &job("release.2~sign~key"), around()).unwrap();
    let secrets = serde_json::to_string(&spec.contexts.secrets).unwrap();
    assert_eq!(secrets, r#"{"KEY":"k-hunter2"}"#);
    assert_eq!((spec.job_id.as_str(), spec.env.len()), ("key", 3));
    assert!(spec.env[1].is_empty());
    assert_eq!(
        spec.contexts.inputs.get("to"),
        shipway_workflow::expr::ExprValue::Null
    );
    log.end("release.2~sign~key", Conclusion::Success);
    let spec = job_spec(&log.state, &job("release.2~upload"), around()).unwrap();
    assert_eq!(
        serde_json::to_string(&spec.contexts.inputs).unwrap(),
        r#"{"to":"us","version":"7"}"#
    );
    assert!(spec.env[1].get("INNER").is_some());
    assert_eq!(&*spec.contexts.github.get("ref_name").to_text(), "main");
}

#[test]
fn outputs_come_back_through_calls() {
    let log = driven_of(called(), &BTreeSet::new(), None);
    let outputs = &log.state.0.as_deref().unwrap().progress.jobs[1].outputs;
    // Of several that call, the last to end wins.
    assert_eq!(outputs, &[("url".to_owned(), "eu/7".to_owned())]);
}

#[test]
fn a_call_that_can_not_be_read_fails_the_run_where_it_is_called() {
    let mut spec = called();
    spec.workflow
        .called
        .retain(|file| !file.name.ends_with("sign.yml"));
    spec.workflow.called.push(CalledFile::new(
        ".github/workflows/sign.yml".to_owned(),
        Err("it is not in the commit"),
    ));
    assert_eq!(
        Log::open(spec).view().why.as_deref(),
        Some(
            ".github/workflows/release.yml:8:17: error: .github/workflows/sign.yml can't be called: it is not in the commit"
        )
    );
}

#[test]
fn whatever_fails_in_calls_every_run_ends_and_is_the_same_from_every_length_of_its_log() {
    let cases = [
        ("", None),
        ("build", None),
        ("release.1~sign~key", None),
        ("release.2~upload", Some(4)),
        ("report", Some(2)),
    ];
    for (failing, cancel_after) in cases {
        let log = driven_of(called(), &BTreeSet::from([failing]), cancel_after);
        assert!(log.state.0.as_deref().unwrap().service_notified);
        is_the_same_from_every_length(&log);
    }
}
