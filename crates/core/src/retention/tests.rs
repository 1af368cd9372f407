//! What is retained, against a model that asks for each file on its own.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digest(number: u8) -> Digest {
    Digest::compute(&[number])
}

fn commit(number: u8) -> CommitId {
    format!("{number:040}").parse().unwrap()
}

fn shop() -> ServiceName {
    "shop".parse().unwrap()
}

fn run(number: u32, finished_at: Option<i64>, blob: u8) -> RunRecord {
    RunRecord {
        id: RunId {
            service: shop(),
            number: RunNumber(number),
        },
        commit: commit(blob),
        finished_at: finished_at.map(at),
        uploading_since: finished_at.is_none().then(|| at(0)),
        blobs: vec![digest(blob)],
    }
}

fn release(number: u32, created_at: i64, artifact: u8) -> ReleaseRecord {
    ReleaseRecord {
        service: shop(),
        number: ReleaseNumber(number),
        artifact: digest(artifact),
        commit: commit(artifact),
        created_at: at(created_at),
    }
}

fn policy(period: i64, releases_min: u32) -> RetentionPolicy {
    RetentionPolicy {
        period: SignedDuration::from_secs(period),
        releases_min,
        ..RetentionPolicy::default()
    }
}

#[test]
fn a_run_is_retained_while_it_runs_and_for_a_period_after_its_end() {
    let policy = RetentionPolicy::default();
    let day = |days: i64| at(days * 86_400);
    assert!(policy.covers(None, day(1_000)));
    assert!(policy.covers(Some(day(0)), day(90)));
    assert!(!policy.covers(Some(day(0)), day(91)));
}

#[test]
fn the_newest_releases_are_retained_and_those_of_a_deleted_service_for_the_period_alone() {
    let (state, now) = (ServiceState::default(), at(1_000_000));
    let releases = [1, 2, 3]
        .map(|number| release(number, 0, number as u8))
        .to_vec();
    let recorded = |services| RecordedReferences {
        services,
        releases: releases.clone(),
        runs: Vec::new(),
    };
    let retained = policy(60, 2).retain(&recorded([(shop(), &state)].into()), now);
    assert_eq!(retained.blobs, [digest(2), digest(3)].into());
    assert_eq!(retained.commits[&shop()], [commit(2), commit(3)].into());
    let retained = policy(60, 2).retain(&recorded(BTreeMap::new()), now);
    assert!(retained.blobs.is_empty(), "{retained:?}");
}

#[test]
fn what_a_running_job_may_have_uploaded_is_retained_however_long_it_runs() {
    let now = at(1_000_000);
    let blob = |used_at| BlobRecord {
        digest: digest(9),
        size: 1,
        used_at: at(used_at),
    };
    let recorded = |runs| RecordedReferences {
        runs,
        ..RecordedReferences::default()
    };
    let retained = policy(60, 1).retain(&recorded(Vec::new()), now);
    assert!(retained.may_remove_blob(&blob(999_000)));
    assert!(
        !retained.may_remove_blob(&blob(999_999)),
        "in its grace period"
    );
    let long = RunRecord {
        uploading_since: Some(at(5_000)),
        ..run(1, None, 1)
    };
    let retained = policy(60, 1).retain(&recorded(vec![long]), now);
    assert!(!retained.may_remove_blob(&blob(5_000)));
    assert!(retained.may_remove_blob(&blob(4_999)));
}

/// Runs and releases with few blobs, so that several share one.
fn recorded() -> impl Strategy<Value = (Vec<RunRecord>, Vec<ReleaseRecord>)> {
    let finished = proptest::option::of(0..2_000_i64);
    let runs = proptest::collection::vec((finished, 0..8_u8), 0..12);
    let releases = proptest::collection::vec((0..2_000_i64, 0..8_u8), 0..12);
    (runs, releases).prop_map(|(runs, releases)| {
        let runs = (1..)
            .zip(runs)
            .map(|(number, (end, blob))| run(number, end, blob));
        let releases = (1..)
            .zip(releases)
            .map(|(number, (created_at, artifact))| release(number, created_at, artifact));
        (runs.collect(), releases.collect())
    })
}

proptest! {
    #[test]
    fn no_blob_is_removed_that_a_retained_run_or_release_has(
        (runs, releases) in recorded(),
        period in 0..2_000_i64,
        releases_min in 1..5_u32,
        used_at in 0..2_000_i64,
    ) {
        let (state, now) = (ServiceState::default(), at(2_000));
        let policy = policy(period, releases_min);
        let count = u32::try_from(releases.len()).unwrap();
        let recorded = RecordedReferences {
            services: [(shop(), &state)].into(),
            releases: releases.clone(),
            runs: runs.clone(),
        };
        let retained = policy.retain(&recorded, now);
        for number in 0..8 {
            let is_young = |time: Timestamp| now.duration_since(time).as_secs() <= period;
            let of_run = runs.iter().any(|run| {
                run.blobs.contains(&digest(number)) && run.finished_at.is_none_or(is_young)
            });
            let of_release = releases.iter().any(|release| {
                let is_new = release.number.0 > count.saturating_sub(releases_min);
                release.artifact == digest(number) && (is_new || is_young(release.created_at))
            });
            let grace = period.clamp(5, 86_400);
            let is_running = runs.iter().any(|run| run.finished_at.is_none());
            let blob = BlobRecord { digest: digest(number), size: 1, used_at: at(used_at) };
            let is_used = is_running || used_at >= 2_000 - grace;
            prop_assert_eq!(retained.may_remove_blob(&blob), !(of_run || of_release || is_used));
            let has_commit = retained.commits[&shop()].contains(&commit(number));
            prop_assert_eq!(has_commit, of_run || of_release);
        }
        for run in &runs {
            let is_old = run.finished_at.is_some_and(|end| !policy.covers(Some(end), now));
            prop_assert_eq!(retained.may_remove_run(&run.id), is_old);
        }
    }
}
