//! How long artifacts, reports, runs and commits are retained.
//!
//! # Invariants
//!
//! - Nothing that a service refers to is removed, however old it is: releases that serve, wait, are being rolled out or can be rolled
//!   back to, pushes that aren't released yet, and runs that are in progress or can still release a push.
//! - A blob that was stored or renewed within the grace period, or since a running job started, stays: the event that refers to it may
//!   not be recorded yet.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    ids::{CommitId, Digest, ReleaseNumber, RunId, RunNumber, ServiceName},
    release::Release,
    run::{RunStatus, RunView},
    service::{OpenPush, ServiceState},
};

/// Longer than it takes to record an event about a blob that was just stored.
const GRACE_MIN: SignedDuration = SignedDuration::from_secs(5);
const GRACE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Limits for files that no service refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// How long runs are retained after their end, and releases after their creation.
    pub period: SignedDuration,
    /// The newest releases of each service that are retained however old they are.
    pub releases_min: u32,
    /// How long workspaces of failed jobs are retained after the end of their run.
    pub workspaces: SignedDuration,
    /// Workspaces of this many newest failed runs are retained for all of `period`.
    pub failed_runs_min: usize,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            // As GitHub retains logs and artifacts.
            period: SignedDuration::from_hours(90 * 24),
            releases_min: 20,
            workspaces: SignedDuration::from_hours(7 * 24),
            failed_runs_min: 20,
        }
    }
}

/// A file of the blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// When it was last stored or renewed.
    pub used_at: Timestamp,
}

/// A release, as far as retention depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRecord {
    pub service: ServiceName,
    pub number: ReleaseNumber,
    pub artifact: Digest,
    pub commit: CommitId,
    pub created_at: Timestamp,
}

/// A run, as far as retention depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    pub id: RunId,
    pub commit: CommitId,
    /// None while it is in progress.
    pub finished_at: Option<Timestamp>,
    /// When the first of its running jobs started: blobs that were stored since may be theirs.
    pub uploading_since: Option<Timestamp>,
    /// Its artifacts and reports.
    pub blobs: Vec<Digest>,
}

/// What the log says about everything that refers to files.
#[derive(Debug, Default)]
pub struct RecordedReferences<'a> {
    pub services: BTreeMap<ServiceName, &'a ServiceState>,
    pub releases: Vec<ReleaseRecord>,
    pub runs: Vec<RunRecord>,
}

/// What must not be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetainedFiles {
    pub blobs: BTreeSet<Digest>,
    pub runs: BTreeSet<RunId>,
    pub commits: BTreeMap<ServiceName, BTreeSet<CommitId>>,
    /// Blobs that were used at this time or later are retained as well.
    pub used_since: Timestamp,
}

impl RetentionPolicy {
    /// Whether a run is retained for its age. Runs in progress always are.
    #[must_use]
    pub fn covers(&self, finished_at: Option<Timestamp>, now: Timestamp) -> bool {
        finished_at.is_none_or(|finished_at| now.duration_since(finished_at) <= self.period)
    }

    /// Everything that must not be removed now.
    #[must_use]
    pub fn retain(&self, recorded: &RecordedReferences<'_>, now: Timestamp) -> RetainedFiles {
        let mut retained = RetainedFiles {
            used_since: self.used_since(&recorded.runs, now),
            ..RetainedFiles::default()
        };
        for (service, state) in &recorded.services {
            retained.add_service(service, state);
        }
        self.add_releases(&mut retained, recorded, now);
        for run in &recorded.runs {
            if self.covers(run.finished_at, now) || retained.runs.contains(&run.id) {
                retained.add_run(run);
            }
        }
        retained
    }

    fn used_since(&self, runs: &[RunRecord], now: Timestamp) -> Timestamp {
        let grace = self.period.clamp(GRACE_MIN, GRACE_MAX);
        let since = now.checked_sub(grace).unwrap_or(Timestamp::MIN);
        let uploads = runs.iter().filter_map(|run| run.uploading_since);
        uploads.fold(since, Timestamp::min)
    }

    fn add_releases(
        &self,
        retained: &mut RetainedFiles,
        recorded: &RecordedReferences<'_>,
        now: Timestamp,
    ) {
        let mut numbers: BTreeMap<&ServiceName, Vec<ReleaseNumber>> = BTreeMap::new();
        for release in &recorded.releases {
            numbers
                .entry(&release.service)
                .or_default()
                .push(release.number);
        }
        for newest in numbers.values_mut() {
            newest.sort_unstable_by(|one, other| other.cmp(one));
            newest.truncate(self.releases_min as usize);
        }
        for release in &recorded.releases {
            let state = recorded.services.get(&release.service);
            let is_referred = state.is_some_and(|state| {
                state.referred_releases().contains(&release.number)
                    || numbers[&release.service].contains(&release.number)
            });
            if is_referred || self.covers(Some(release.created_at), now) {
                retained.add_release(release);
            }
        }
    }
}

impl RetainedFiles {
    #[must_use]
    pub fn may_remove_blob(&self, blob: &BlobRecord) -> bool {
        blob.used_at < self.used_since && !self.blobs.contains(&blob.digest)
    }

    #[must_use]
    pub fn may_remove_run(&self, run: &RunId) -> bool {
        !self.runs.contains(run)
    }

    fn add_service(&mut self, service: &ServiceName, state: &ServiceState) {
        self.blobs.extend(state.referred_blobs().cloned());
        let commits = self.commits.entry(service.clone()).or_default();
        commits.extend(state.referred_commits().cloned());
        self.runs.extend(state.referred_runs().map(|number| RunId {
            service: service.clone(),
            number,
        }));
    }

    fn add_release(&mut self, release: &ReleaseRecord) {
        self.blobs.insert(release.artifact.clone());
        self.add_commit(&release.service, &release.commit);
    }

    fn add_run(&mut self, run: &RunRecord) {
        self.runs.insert(run.id.clone());
        self.blobs.extend(run.blobs.iter().cloned());
        self.add_commit(&run.id.service, &run.commit);
    }

    fn add_commit(&mut self, service: &ServiceName, commit: &CommitId) {
        let commits = self.commits.entry(service.clone()).or_default();
        commits.insert(commit.clone());
    }
}

impl RunRecord {
    /// The record of a run without its reports, which its view doesn't name.
    #[must_use]
    pub fn new(run: &RunView) -> Self {
        let artifacts = run.artifacts.iter().map(|artifact| artifact.digest.clone());
        let running = run
            .jobs
            .iter()
            .filter(|job| job.status == RunStatus::Running);
        Self {
            id: run.id.clone(),
            commit: run.commit.clone(),
            finished_at: run.finished_at,
            uploading_since: running
                .map(|job| job.started_at.unwrap_or(run.created_at))
                .min(),
            blobs: artifacts.collect(),
        }
    }
}

impl From<&Release> for ReleaseRecord {
    fn from(release: &Release) -> Self {
        Self {
            service: release.service.clone(),
            number: release.number,
            artifact: release.artifact.clone(),
            commit: release.commit.id.clone(),
            created_at: release.created_at,
        }
    }
}

impl ServiceState {
    /// The releases in the state, whole.
    fn releases(&self) -> impl Iterator<Item = &Release> {
        let environments = self.environments.values().flat_map(|environment| {
            let active = environment.active.iter().flat_map(|active| {
                let stable = active.spec.stable().map(|stable| &*stable.release);
                std::iter::once(&**active.spec.release()).chain(stable)
            });
            let queued = environment.queue.iter().map(|request| &*request.release);
            let served = environment.stable.iter().chain(&environment.former);
            served.map(|release| &**release).chain(active).chain(queued)
        });
        let tested = self.in_tests.values().chain(self.red_tests.values());
        let tested = tested.map(|(_, release)| &**release);
        let by_steps = self.unreleased_pushes();
        let by_steps = by_steps.flat_map(|push| push.deployed_by_step.iter().map(|it| &**it));
        environments.chain(tested).chain(by_steps)
    }

    /// Pushes that are not released yet, or may be once a red run was run again.
    fn unreleased_pushes(&self) -> impl Iterator<Item = &OpenPush> {
        self.open_pushes.values().chain(self.red_pushes.values())
    }

    /// The blobs that the service may deploy without asking anyone.
    pub(crate) fn referred_blobs(&self) -> impl Iterator<Item = &Digest> {
        let pushed = self.unreleased_pushes().flat_map(|push| {
            let artifacts = push.artifacts.iter().map(|(_, artifact)| &artifact.digest);
            push.push.source.iter().chain(artifacts)
        });
        self.releases()
            .map(|release| &release.artifact)
            .chain(pushed)
    }

    /// The numbers of releases that the state names; a person may retry the rollout that ended last.
    fn referred_releases(&self) -> BTreeSet<ReleaseNumber> {
        let environments = self.environments.values();
        let named = environments.flat_map(|environment| {
            let ended = environment.last_ended.iter().map(|ended| ended.release);
            ended.chain(environment.observed.counts.keys().copied())
        });
        let whole = self.releases().map(|release| release.number);
        named.chain(whole).collect()
    }

    /// The commits that its runs, tests and pushes are about.
    fn referred_commits(&self) -> impl Iterator<Item = &CommitId> {
        let pushes = self.unreleased_pushes().map(|push| &push.push.commit.id);
        let runs = self.open_runs.values().map(|run| &run.order.commit.id);
        let releases = self.releases().map(|release| &release.commit.id);
        pushes.chain(runs).chain(releases)
    }

    /// Whether a run is in progress or can still release a push or promote a release.
    #[must_use]
    pub fn refers_to_run(&self, run: RunNumber) -> bool {
        self.referred_runs().any(|number| number == run)
    }

    /// Its runs that are in progress or can still release a push or promote a release.
    fn referred_runs(&self) -> impl Iterator<Item = RunNumber> {
        let pushes = self.unreleased_pushes().flat_map(|push| {
            let uploaded = push.artifacts.iter().map(|(number, _)| *number);
            push.waiting
                .iter()
                .chain(&push.red)
                .copied()
                .chain(uploaded)
        });
        let tests = self.in_tests.keys().chain(self.red_tests.keys());
        let open = self.open_runs.keys().chain(tests);
        open.copied().chain(pushes)
    }
}
