//! That a job has ended is decided by looking at what hangs on it alone: the same must come of it as of a look at everything.

use proptest::prelude::*;
use shipway_workflow::{graph::WorkflowProgress, job::Conclusion};

use super::*;
use crate::{
    access::Principal,
    release::CalledFile,
    run::decide::{AffectedJobs, decide_looking},
};

const CALLED: &str = "on: workflow_call
jobs:
  a: { runs-on: x, steps: [{ run: a }] }
  b: { needs: a, runs-on: x, strategy: { max-parallel: 1, matrix: { n: [1, 2] } }, steps: [{ run: a }] }
  c: { needs: b, if: always(), uses: ./.github/workflows/leaf.yml }
";

const LEAF: &str = "on: workflow_call
jobs:
  l: { runs-on: x, steps: [{ run: a }] }
  m: { runs-on: x, if: failure(), needs: l, steps: [{ run: a }] }
";

/// A job: what it needs, as bits over those before it; what it is; when it runs.
type Drawn = (u16, u8, u8);

fn workflow(jobs: &[Drawn]) -> String {
    let mut text = "on: push\njobs:\n".to_owned();
    for (at, (needs, kind, when)) in jobs.iter().enumerate() {
        let needs: Vec<String> = (0..at)
            .filter(|before| needs & (1 << before) != 0)
            .map(|before| format!("j{before}"))
            .collect();
        let when = [
            "",
            "if: always(), ",
            "if: failure(), ",
            "if: cancelled(), ",
            "if: 'false', ",
        ][usize::from(*when) % 5];
        let what = [
            "runs-on: x, steps: [{ run: a }]",
            "runs-on: x, continue-on-error: true, steps: [{ run: a }]",
            "runs-on: x, strategy: { matrix: { n: [1, 2, 3] } }, steps: [{ run: a }]",
            "runs-on: x, strategy: { max-parallel: 2, fail-fast: false, matrix: { n: [1, 2, 3] } }, steps: [{ run: a }]",
            "runs-on: x, strategy: { max-parallel: 1, matrix: { n: [1, 2, 3] } }, steps: [{ run: a }]",
            "runs-on: x, retry: { max: 1 }, steps: [{ run: a }]",
            "uses: ./.github/workflows/called.yml",
            "strategy: { max-parallel: 1, matrix: { n: [1, 2] } }, uses: ./.github/workflows/called.yml",
        ][usize::from(*kind) % 8];
        text.push_str(&format!(
            "  j{at}: {{ needs: [{}], {when}{what} }}\n",
            needs.join(", ")
        ));
    }
    text
}

fn opened(jobs: &[Drawn]) -> Log {
    let mut spec = spec(&workflow(jobs));
    for (name, text) in [("called", CALLED), ("leaf", LEAF)] {
        let name = format!(".github/workflows/{name}.yml");
        let file = CalledFile::new(name, Ok::<_, String>(text.to_owned()));
        spec.workflow.called.push(file);
    }
    Log::open(spec)
}

/// What is counted along is what counting anew gives, and what a snapshot holds.
fn assert_counts(log: &Log) -> Result<(), TestCaseError> {
    let progress = &log.state.0.as_deref().unwrap().progress;
    let text = serde_json::to_string(progress).unwrap();
    let again: WorkflowProgress = serde_json::from_str(&text).unwrap();
    prop_assert_eq!(&again, progress);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_look_at_what_hangs_on_a_job_finds_all_that_follows(
        jobs in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>()), 1..10),
        turns in prop::collection::vec((any::<usize>(), any::<u8>()), 1..80),
    ) {
        let mut log = opened(&jobs);
        for (which, how) in turns {
            let effects = RunAggregate::pending(&log.state, at(0)).effects;
            let ready: Vec<JobKey> = effects
                .into_iter()
                .filter_map(|(_, effect)| match effect {
                    RunEffect::RunJob { key, .. } => Some(key),
                    RunEffect::Gate(_) | RunEffect::NotifyService { .. } => None,
                })
                .collect();
            let Some(key) = (!ready.is_empty()).then(|| ready[which % ready.len()].clone()) else {
                break;
            };
            let conclusion = match how % 8 {
                0 | 1 => Conclusion::Failure,
                2 => Conclusion::Cancelled,
                _ => Conclusion::Success,
            };
            let input = match how {
                250.. => RunInput::Cancel { reason: "enough".to_owned() },
                240..250 => RunInput::WorkerLost { key, why: "gone".to_owned() },
                230..240 => RunInput::JobStarted { key },
                _ => RunInput::JobEnded { key, conclusion, outputs: Vec::new(), why: None },
            };
            let by = || Principal::person("ada").pusher().actor("someone");
            let now = at(log.events.len() as i64);
            let near = RunAggregate::decide(&log.state, input.clone(), by(), now);
            let far = decide_looking(&log.state, input.clone(), by(), now, AffectedJobs::Everywhere);
            prop_assert_eq!(&near, &far, "{:?} in\n{}", input, workflow(&jobs));
            let Ok(events) = near else { continue };
            fold::<RunAggregate>(&mut log.state, &events);
            log.events.extend(events);
            assert_counts(&log)?;
        }
    }
}
