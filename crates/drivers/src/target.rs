//! What runs instances. A target is a machine: it brings a set up to a count, takes it down, and says what runs. It decides
//! nothing, and keeps what it was told across restarts of the server.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use shipway_core::target::{
    InstanceId, InstanceStatus, Launch, Phase, SetAvailability, SetKey, StopSignal,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Runs instances.
#[async_trait]
pub trait Target: Send + Sync {
    /// Brings the set up to `count` instances; returns when they are started, not when they are ready. Idempotent: what runs
    /// is found, not started twice; a larger set is left as it is.
    async fn ensure(&self, set: &SetKey, launch: &Launch, count: u32) -> Result<(), TargetError>;

    /// Takes the set down to the instances in the slots up to `keep`; returns when the others are gone. 0 forgets the set.
    async fn stop(&self, set: &SetKey, keep: u32) -> Result<StopReport, TargetError>;

    /// Files that the instances of the set wrote beside their code, which go when the set is stopped: paths inside its folder.
    async fn written_files(&self, set: &SetKey) -> Vec<String>;

    /// What runs, or should.
    fn instances(&self) -> Vec<InstanceStatus>;

    /// Fills in what the instances use.
    fn measure(&self, instances: &mut [InstanceStatus]);

    /// A number that rises whenever [`Target::instances`] changes.
    fn watch(&self) -> watch::Receiver<u64>;

    /// Why the set is in a crash loop, if it is: it has ended too often, too soon.
    fn crash_loop(&self, set: &SetKey) -> Option<String>;

    /// How the instances of the set have held up since it was first started, across restarts of the server. Zero when the target
    /// does not run the set.
    fn availability(&self, set: &SetKey) -> SetAvailability;

    /// The folder that smoke test commands run in.
    fn workdir(&self, set: &SetKey) -> PathBuf;

    /// The log of an instance, by its name.
    fn log(&self, instance: &str) -> Option<PathBuf>;
}

/// What a person should know of instances that were stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Instances that still ran when their grace period was over, and were killed.
    pub killed: Vec<InstanceId>,
    /// Files that instances wrote beside their code, and that are gone with it.
    pub written_files: Vec<String>,
    /// What they had been asked to stop with, and how long they had.
    pub request: Option<(StopSignal, Duration)>,
}

impl StopReport {
    /// What a person should know, `None` when there is nothing: `instance 1 still ran 10 s after SIGTERM and was killed`.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let notes: Vec<String> = [self.killed_note(), written_files_note(&self.written_files)]
            .into_iter()
            .flatten()
            .collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn killed_note(&self) -> Option<String> {
        let (signal, grace) = self.request?;
        let slots: Vec<String> = self.killed.iter().map(|id| id.slot.to_string()).collect();
        let (subject, were) = match slots.len() {
            0 => return None,
            1 => ("instance", "was"),
            _ => ("instances", "were"),
        };
        let (slots, signal) = (slots.join(", "), signal.name());
        let grace = grace.as_secs_f32();
        Some(format!(
            "{subject} {slots} still ran {grace} s after {signal} and {were} killed"
        ))
    }
}

/// What a person should know of files that instances wrote beside their code.
#[must_use]
pub fn written_files_note(files: &[String]) -> Option<String> {
    let (first, others) = files.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "written beside the code and deleted with the release: {first}{others}; write files that must stay to $DATA_DIR"
    ))
}

/// Why a target could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The artifact is missing, damaged, empty or hostile.
    #[error("the artifact can't be unpacked: {0}")]
    Artifact(String),
    /// A secret that the launch names isn't set.
    #[error("the secret {0} is not set on the server (--secrets FILE)")]
    Secret(String),
    /// Files or processes.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Why a set did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum ReadinessError {
    /// Its instances end again and again.
    #[error("crash loop: {0}")]
    CrashLoop(String),
    /// The time is over; with what each instance said last.
    #[error("not ready within {} s: {why}", within.as_secs())]
    Late {
        /// How long was waited.
        within: Duration,
        /// What the instances say.
        why: String,
    },
    /// Nobody waits any more.
    #[error("no longer wanted")]
    Cancelled,
}

/// Waits until `count` instances of the set are ready, at most `within`. A crash loop ends it at once.
pub async fn await_ready(
    target: &dyn Target,
    set: &SetKey,
    count: u32,
    within: Duration,
    cancelled: &CancellationToken,
) -> Result<(), ReadinessError> {
    let mut changes = target.watch();
    let ready = async {
        loop {
            changes.borrow_and_update();
            let of_set = set_statuses(target, set);
            if of_set.iter().filter(|status| status.is_ready()).count() >= count as usize {
                return Ok(());
            }
            if let Some(why) = target.crash_loop(set) {
                return Err(ReadinessError::CrashLoop(why));
            }
            if changes.changed().await.is_err() {
                return Err(ReadinessError::Cancelled);
            }
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => Err(ReadinessError::Cancelled),
        ended = tokio::time::timeout(within, ready) => ended.unwrap_or_else(|_| Err(ReadinessError::Late { within, why: readiness_reasons(&set_statuses(target, set)) })),
    }
}

fn set_statuses(target: &dyn Target, set: &SetKey) -> Vec<InstanceStatus> {
    target
        .instances()
        .into_iter()
        .filter(|status| status.id.set == *set)
        .collect()
}

fn readiness_reasons(statuses: &[InstanceStatus]) -> String {
    let why = |status: &InstanceStatus| match &status.phase {
        Phase::Ready | Phase::Stopping => None,
        Phase::Starting { why } | Phase::Unready { why } | Phase::Backoff { why, .. } => {
            Some(format!("instance {}: {why}", status.id.slot))
        }
    };
    let all: Vec<String> = statuses.iter().filter_map(why).collect();
    if all.is_empty() {
        "no instance runs".to_owned()
    } else {
        all.join("; ")
    }
}
