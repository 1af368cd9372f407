//! The interface of a target, which runs instances. A target scales a set of instances up and down and reports their status. It
//! decides nothing, and remembers its sets across restarts of the server.

use std::{io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use shipway_core::target::{
    ImageReference, InstanceId, InstancePhase, InstanceStatus, ReplicaSetKey, SetAvailability,
    StopSignal, TargetKind, Workload,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes of a log in the order in which they were written.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// Runs sets of instances.
#[async_trait]
pub trait Target: CommandRunner {
    /// Fetches and checks the code and the secrets of `count` instances, and starts none: something missing fails the rollout while
    /// other instances still serve. Idempotent.
    async fn prepare(
        &self,
        set: &ReplicaSetKey,
        workload: &Workload,
        count: u32,
    ) -> Result<(), TargetError>;

    /// Scales the set up to `count` instances; returns when they are started, not when they are ready. Idempotent: running
    /// instances are kept, and a larger set is not reduced.
    async fn ensure(
        &self,
        set: &ReplicaSetKey,
        workload: &Workload,
        count: u32,
    ) -> Result<(), TargetError>;

    /// Scales the set down to the slots up to `keep`; returns when the other instances have exited. 0 removes the set.
    async fn stop(&self, set: &ReplicaSetKey, keep: u32) -> Result<StopReport, TargetError>;

    /// Files that instances of the set wrote into their code folder, relative to its folder; they are deleted when the set is
    /// stopped.
    async fn written_files(&self, set: &ReplicaSetKey) -> Vec<String>;

    /// The status of all instances that run or should run.
    fn instances(&self) -> Vec<InstanceStatus>;

    /// Fills in the resource usage of the instances.
    fn measure(&self, instances: &mut [InstanceStatus]);

    /// A counter that is incremented whenever [`Target::instances`] changes.
    fn watch(&self) -> watch::Receiver<u64>;

    /// The reason if the set is in a crash loop: its instances exited too often, too soon.
    fn crash_loop(&self, set: &ReplicaSetKey) -> Option<String>;

    /// Availability of the set since it was first started, across restarts of the server; zero if the target does not run the
    /// set.
    fn availability(&self, set: &ReplicaSetKey) -> SetAvailability;

    /// The log of an instance from the byte `offset` on; also of an instance that has been stopped, as long as its log is kept.
    fn read_log(
        &self,
        instance: &InstanceId,
        offset: u64,
        end: LogEnd,
    ) -> Result<LogStream, LogError>;
}

/// Runs commands where the code of a release is: smoke tests and queries of metrics.
#[async_trait]
pub trait CommandRunner: Send + Sync {
    /// Runs a shell command in the working directory of the set, and returns the end of its output. Its environment has nothing of
    /// the server's and of the instances'. A non-zero exit or a timeout is an error with the command's last line.
    async fn run_command(
        &self,
        set: &ReplicaSetKey,
        command: &SetCommand<'_>,
    ) -> Result<String, CommandError>;
}

/// A command that runs once, in the working directory of a set.
#[derive(Clone, Copy, Debug)]
pub struct SetCommand<'a> {
    /// The shell command.
    pub command: &'a str,
    /// Its variables.
    pub environment: &'a [(&'a str, String)],
    /// How long it may take before it is killed.
    pub timeout: Duration,
}

/// The set whose working directory commands run in, and its target.
#[derive(Clone, Copy)]
pub struct CommandPlace<'a> {
    /// The target.
    pub runner: &'a dyn CommandRunner,
    /// The set.
    pub set: &'a ReplicaSetKey,
}

impl CommandPlace<'_> {
    /// Runs a command there, see [`CommandRunner::run_command`].
    pub async fn run_command(&self, command: &SetCommand<'_>) -> Result<String, CommandError> {
        self.runner.run_command(self.set, command).await
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The shell could not be started.
    #[error("sh: {0}")]
    Shell(String),
    /// The command's exit status could not be read.
    #[error("{0}")]
    Wait(String),
    /// The command failed or took too long.
    #[error("{how}{}", .last.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    Failed {
        /// `exit code 3`, `not done within 1 s`.
        how: String,
        /// The command's last line.
        last: Option<String>,
    },
}

/// Where a log that is read ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// At its present end.
    Present,
    /// When the target no longer runs the instance.
    Stopped,
}

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The target never had this instance, or no longer keeps its log.
    #[error("no log of {0}")]
    Missing(InstanceId),
    /// Reading fails.
    #[error("the log can't be read: {0}")]
    Io(#[from] io::Error),
}

/// Result of stopping instances, for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Instances that were killed because their grace period was over.
    pub killed: Vec<InstanceId>,
    /// Files that instances wrote into their code folder, which were deleted.
    pub written_files: Vec<String>,
    /// The stop signal and the grace period.
    pub request: Option<(StopSignal, Duration)>,
}

impl StopReport {
    /// A note for the user, `None` if there is nothing to report: `instance 1 still ran 10 s after SIGTERM and was killed`.
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

/// A note for the user about files that instances wrote into their code folder.
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

/// Why an operation of a target failed.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The artifact is missing, damaged, empty or malicious.
    #[error("the artifact can't be unpacked: {0}")]
    Artifact(String),
    /// The target runs commands, and the workload is an image.
    #[error(
        "the target `{target}` can't run the image {image}; targets that run images: {}",
        image_targets()
    )]
    Image {
        /// The target.
        target: TargetKind,
        /// The image.
        image: ImageReference,
    },
    /// A secret used by the workload isn't set.
    #[error("the secret {0} is not set: `shipway secret set {0}`")]
    Secret(String),
    /// An operation on files or processes failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

fn image_targets() -> String {
    let kinds = TargetKind::ALL
        .into_iter()
        .filter(|kind| kind.runs_images());
    let names: Vec<&str> = kinds.map(TargetKind::name).collect();
    names.join(", ")
}

/// Why a set did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum ReadinessError {
    /// Its instances keep exiting.
    #[error("crash loop: {0}")]
    CrashLoop(String),
    /// The timeout expired; with the last status of each instance.
    #[error("not ready within {} s: {why}", within.as_secs())]
    Late {
        /// The timeout.
        within: Duration,
        /// The status of the instances.
        why: String,
    },
    /// The wait was cancelled.
    #[error("no longer wanted")]
    Cancelled,
}

/// Waits until `count` instances of the set are ready, up to `within`. Fails early on a crash loop.
pub async fn await_ready(
    target: &dyn Target,
    set: &ReplicaSetKey,
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

fn set_statuses(target: &dyn Target, set: &ReplicaSetKey) -> Vec<InstanceStatus> {
    target
        .instances()
        .into_iter()
        .filter(|status| status.id.set == *set)
        .collect()
}

fn readiness_reasons(statuses: &[InstanceStatus]) -> String {
    let why = |status: &InstanceStatus| match &status.phase {
        InstancePhase::Ready | InstancePhase::Stopping => None,
        InstancePhase::Starting { why }
        | InstancePhase::Unready { why }
        | InstancePhase::Backoff { why, .. } => Some(format!("instance {}: {why}", status.id.slot)),
    };
    let all: Vec<String> = statuses.iter().filter_map(why).collect();
    if all.is_empty() {
        "no instance is running".to_owned()
    } else {
        all.join("; ")
    }
}
