//! Supervises one slot of a set: starts a shim with the instance, probes it, and restarts it when it exits unexpectedly.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::Signal;
use shipway_core::target::{InstanceId, InstancePhase, InstanceStatus, Workload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    artifact::APP,
    availability::AvailabilityRecord,
    cgroup,
    command::process_command,
    crash_loop::RestartBackoff,
    environment::{self, InstanceFolders},
    instance_log,
    probe_history::{ProbeChange, ProbeHistory},
    shim::{ENDED, EndedInstance, READY, RUNS, RunningInstance, ShimInstructions},
    target_state::TargetState,
};
use crate::{
    checks::{InstanceAddress, ProbeTarget, probe},
    procfs,
    target::TargetError,
};

/// Added to the instance's grace for the shim: to kill, to write `ended.json`, to exit.
const SHIM_GRACE: Duration = Duration::from_secs(8);
/// Timeout for starting an instance.
const START_WITHIN: Duration = Duration::from_secs(20);
/// Upper bound for a shim's error text.
const REFUSAL_BYTES_MAX: u64 = 4_096;
/// Log lines that are quoted when an instance exits.
const LAST_WORDS: usize = 3;

/// A supervised slot.
pub(super) struct SupervisedSlot {
    wanted: watch::Sender<bool>,
    task: AbortOnDropHandle<Option<EndedInstance>>,
    /// How it ended, if known.
    end: Option<EndedInstance>,
    joined: bool,
}

impl SupervisedSlot {
    /// Starts the supervision of a running instance or of a new one.
    pub(super) fn supervise(
        id: InstanceId,
        launch: Arc<Workload>,
        set: &Path,
        shared: Arc<TargetState>,
    ) -> Self {
        let (wanted, receiver) = watch::channel(true);
        let mut supervisor = SlotSupervisor {
            shared_code: set.join(APP),
            folder: set.join(id.slot.to_string()),
            id,
            launch,
            shared,
            wanted: receiver,
            restarts: 0,
        };
        let found = supervisor.find_running();
        let task = AbortOnDropHandle::new(tokio::spawn(supervisor.run(found)));
        Self {
            wanted,
            task,
            end: None,
            joined: false,
        }
    }

    /// Whether it is supervised and not being stopped.
    pub(super) fn is_desired(&self) -> bool {
        *self.wanted.borrow() && !self.task.is_finished()
    }

    /// Requests that the instance is stopped.
    pub(super) fn request_stop(&self) {
        self.wanted.send_replace(false);
    }

    /// Waits until the instance and its supervision have ended; returns how the last process ended. Cancel safe.
    pub(super) async fn wait_until_gone(&mut self) -> Option<EndedInstance> {
        if !self.joined {
            // A panic of the task is in the log; the next server finds its instance.
            self.end = (&mut self.task).await.ok().flatten();
            self.joined = true;
        }
        self.end.clone()
    }
}

/// Whether an instance runs in the slot with this folder.
pub(super) fn is_running(folder: &Path) -> bool {
    running_instance(folder).is_some()
}

fn running_instance(folder: &Path) -> Option<RunningInstance> {
    read_json::<RunningInstance>(&folder.join(RUNS)).filter(|runs| runs.shim.is_alive())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The task that supervises a slot.
struct SlotSupervisor {
    id: InstanceId,
    launch: Arc<Workload>,
    folder: PathBuf,
    /// Where earlier versions of Shipway unpacked the artifact for all instances of the set.
    shared_code: PathBuf,
    shared: Arc<TargetState>,
    wanted: watch::Receiver<bool>,
    restarts: u32,
}

/// Why a run ended.
enum LifeEnd {
    /// It exited or had to be killed; the reason and its last log lines.
    Unasked { why: String, words: Vec<String> },
    /// It was stopped on request.
    Asked(Option<EndedInstance>),
}

impl SlotSupervisor {
    /// Finds a running instance of the last server and publishes its status, or records that it exited meanwhile.
    fn find_running(&mut self) -> Option<RunningInstance> {
        self.shared.load_availability(&self.id, &self.folder);
        let last: Option<RunningInstance> = read_json(&self.folder.join(RUNS));
        let found = last.clone().filter(|runs| runs.shim.is_alive());
        match (&found, last) {
            (Some(runs), _) => {
                self.restarts = runs.restarts;
                self.shared
                    .publish_status(self.running_status(runs, self.initial_phase()));
            }
            (None, last) => {
                // It exited while no server was running.
                if last.is_some() {
                    self.record_exit();
                }
                self.restarts = last.map_or(0, |runs| runs.restarts.saturating_add(1));
                let why = "being started".to_owned();
                self.shared
                    .publish_status(self.status(InstancePhase::Starting { why }));
            }
        }
        found
    }

    fn initial_phase(&self) -> InstancePhase {
        if self.folder.join(READY).exists() {
            InstancePhase::Ready
        } else {
            let why = "found running, not probed yet".to_owned();
            InstancePhase::Starting { why }
        }
    }

    /// Supervises until a stop is requested, and then until the instance has exited.
    async fn run(mut self, mut found: Option<RunningInstance>) -> Option<EndedInstance> {
        let mut stopped = None;
        let mut backoff = RestartBackoff::default();
        loop {
            let begun = Instant::now();
            let runs = match found.take() {
                Some(runs) => Ok(runs),
                // A stop was requested before the start.
                None if !*self.wanted.borrow() => break,
                None => self.start_instance().await,
            };
            let end = match runs {
                Ok(runs) => self.probe_until_ended(&runs).await,
                Err(error) => LifeEnd::Unasked {
                    why: error.to_string(),
                    words: Vec::new(),
                },
            };
            let (why, words) = match end {
                LifeEnd::Unasked { why, words } => (why, words),
                LifeEnd::Asked(ended) => {
                    stopped = ended;
                    break;
                }
            };
            self.restarts = self.restarts.saturating_add(1);
            self.shared
                .record_crash(&self.id, with_log_lines(&why, "last log lines", &words));
            let wait = backoff.next_wait(begun.elapsed());
            let last_line = words.last().cloned().into_iter().collect::<Vec<_>>();
            self.shared
                .publish_status(self.status(InstancePhase::Backoff {
                    why: with_log_lines(&why, "last log line", &last_line),
                    until: Timestamp::now() + wait,
                }));
            self.record_exit();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = wait_until_unwanted(&mut self.wanted) => break,
            }
            // A start that was in progress when the last server was killed may have finished.
            found = running_instance(&self.folder);
        }
        self.record_availability(|record| record.record_stopped(Timestamp::now()));
        // Stopped on request: the next start in this slot is not a restart.
        let _ = fs::remove_file(self.folder.join(RUNS));
        cgroup::remove_cgroups(&cgroup::instance_group(&self.id, &self.folder));
        self.shared.remove_instance(&self.id);
        stopped
    }

    async fn start_instance(&self) -> Result<RunningInstance, TargetError> {
        // A killed shim leaves its instance behind: kill it, or two would run in one slot.
        if let Some(last) = read_json::<RunningInstance>(&self.folder.join(RUNS)) {
            procfs::kill_session(last.shim).await;
        }
        fs::create_dir_all(&self.folder).map_err(io_error("creating the instance's folder"))?;
        let folders = InstanceFolders::new(&self.id, &self.folder, &self.shared.data);
        folders
            .create()
            .map_err(io_error("creating the instance's folders"))?;
        let port = self
            .shared
            .reserve_port(&self.id)
            .map_err(io_error("finding a free port"))?;
        let secrets = &self.shared.secrets;
        let told = ShimInstructions {
            name: self.id.to_string(),
            cgroup: cgroup::instance_group(&self.id, &self.folder),
            command: process_command(&self.launch)?.command.clone(),
            workdir: self.workdir(),
            env: environment::instance_environment(
                &self.id,
                &self.launch,
                &folders,
                port,
                secrets,
            )?,
            limits: self.launch.limits.clone(),
            grace: self.launch.grace,
            stop_signal: self.launch.stop_signal,
            address: format!("127.0.0.1:{port}"),
            restarts: self.restarts,
        };
        match tokio::time::timeout(START_WITHIN, self.start_shim(&told)).await {
            Ok(told) => told?,
            Err(_) => {
                let within = START_WITHIN.as_secs();
                let late = io::Error::other(format!("not done within {within} s"));
                return Err(io_error("starting the instance")(late));
            }
        }
        let runs = running_instance(&self.folder)
            .or_else(|| read_json(&self.folder.join(RUNS)))
            .ok_or_else(|| {
                io_error("starting the instance")(io::Error::other("the shim left no record of it"))
            })?;
        if let Some(note) = &runs.note {
            tracing::warn!(instance = %self.id, "{note}");
        }
        Ok(runs)
    }

    /// The instance's own code.
    fn workdir(&self) -> PathBuf {
        let own = self.folder.join(APP);
        if own.exists() {
            own
        } else {
            self.shared_code.clone()
        }
    }

    /// Starts a shim and sends its instructions; returns when `runs.json` exists.
    async fn start_shim(&self, told: &ShimInstructions) -> Result<(), TargetError> {
        let (program, arguments) = self.shared.shim.split_first().ok_or_else(|| {
            io_error("starting the shim")(io::Error::other("no shim is configured"))
        })?;
        // It outlives the server and doesn't use its terminal. The runtime reaps it.
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .arg(&self.folder)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("starting the shim"))?;
        crate::open_files::restore_limit(child.id());
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(io_error("starting the shim")(io::Error::other("no pipes")));
        };
        let text = serde_json::to_vec(told)
            .map_err(|error| io_error("sending the spec to the shim")(error.into()))?;
        // A shim that fails may not read all of it; it prints the reason.
        let _ = stdin.write_all(&text).await;
        drop(stdin);
        let mut refusal = String::new();
        stdout
            .take(REFUSAL_BYTES_MAX)
            .read_to_string(&mut refusal)
            .await
            .map_err(io_error("starting the shim"))?;
        let refusal = refusal.trim();
        if refusal.is_empty() {
            return Ok(());
        }
        Err(io_error("starting the instance")(io::Error::other(
            refusal.to_owned(),
        )))
    }

    /// Probes until the instance exits, or a stop was requested and it has been stopped.
    async fn probe_until_ended(&self, runs: &RunningInstance) -> LifeEnd {
        let ready = self.folder.join(READY).exists();
        if ready {
            self.shared.record_ready(&self.id);
            self.record_availability(|record| record.record_ready(Timestamp::now()));
        }
        let mut probing = match ready {
            true => ProbeHistory::new_ready(Instant::now()),
            false => ProbeHistory::new(Instant::now()),
        };
        if !ready {
            let why = "not probed yet".to_owned();
            let phase = InstancePhase::Starting { why };
            self.shared.publish_status(self.running_status(runs, phase));
        }
        let mut wanted = self.wanted.clone();
        let ended = runs.shim.wait_until_ended();
        tokio::pin!(ended);
        loop {
            let asked = self.probe_once(&mut probing, &runs.address);
            let dead = tokio::select! {
                biased;
                () = &mut ended => return self.unplanned_end(),
                () = wait_until_unwanted(&mut wanted) => {
                    self.stop(runs).await;
                    return LifeEnd::Asked(read_json(&self.folder.join(ENDED)));
                }
                (change, dead) = asked => {
                    self.apply_change(runs, change);
                    dead
                }
            };
            if let Some(why) = dead {
                let words = instance_log::exit_reason_lines(
                    &self.folder.join(instance_log::LOG),
                    LAST_WORDS,
                );
                self.stop(runs).await;
                return LifeEnd::Unasked { why, words };
            }
        }
    }

    /// Waits for the next probe and runs it; returns what changed, and the reason for a restart if one is needed.
    async fn probe_once(
        &self,
        probing: &mut ProbeHistory,
        address: &str,
    ) -> (ProbeChange, Option<String>) {
        let health = &self.launch.health;
        tokio::time::sleep(probing.next_wait(health)).await;
        let due = probing.liveness_is_due(health, Instant::now());
        let asked = ProbeTarget {
            at: InstanceAddress {
                address,
                host: self.launch.host.as_deref(),
            },
            workdir: &self.workdir(),
        };
        let ask = async |probe| probe::run_probe(probe, asked, health.timeout).await;
        let liveness = health.liveness.as_ref().filter(|_| due);
        let (ready, alive) = match liveness {
            // The same probe runs only once.
            Some(liveness) if *liveness == health.readiness => {
                let answer = ask(liveness).await;
                (answer.clone(), Some(answer))
            }
            Some(liveness) => {
                let (ready, alive) = tokio::join!(ask(&health.readiness), ask(liveness));
                (ready, Some(alive))
            }
            None => (ask(&health.readiness).await, None),
        };
        let now = Instant::now();
        let last_words =
            || instance_log::last_log_lines(&self.folder.join(instance_log::LOG), 1).pop();
        let change = probing.record_readiness(health, ready, last_words, now);
        let dead = alive.and_then(|alive| probing.record_liveness(health, alive, now));
        (change, dead)
    }

    fn apply_change(&self, runs: &RunningInstance, change: ProbeChange) {
        match change {
            ProbeChange::Nothing => {}
            ProbeChange::Lasting(phase) => {
                self.shared.update_status(self.running_status(runs, phase))
            }
            ProbeChange::Phase(phase) => {
                let marker = self.folder.join(READY);
                // A missing marker costs the next server one probe; a stale one is believed until the first probe.
                let is_ready = phase == InstancePhase::Ready;
                if is_ready {
                    self.shared.record_ready(&self.id);
                    let _ = fs::write(marker, "");
                } else {
                    let _ = fs::remove_file(marker);
                }
                self.shared.publish_status(self.running_status(runs, phase));
                // Written after publishing: routing needn't wait for the disk.
                let now = Timestamp::now();
                self.record_availability(|record| match is_ready {
                    true => record.record_ready(now),
                    false => record.record_unready(now),
                });
            }
        }
    }

    /// Records an unplanned exit at the time it happened.
    fn record_exit(&self) {
        let ended: Option<EndedInstance> = read_json(&self.folder.join(ENDED));
        let at = ended.map_or_else(Timestamp::now, |ended| ended.at);
        self.record_availability(|record| record.record_exited(at));
    }

    fn record_availability(&self, change: impl FnOnce(&mut AvailabilityRecord)) {
        self.shared
            .record_availability(&self.id, &self.folder, change);
    }

    async fn stop(&self, runs: &RunningInstance) {
        self.shared
            .publish_status(self.running_status(runs, InstancePhase::Stopping));
        runs.shim.send_signal(Signal::TERM);
        let patience = self.launch.grace.saturating_add(SHIM_GRACE);
        if tokio::time::timeout(patience, runs.shim.wait_until_ended())
            .await
            .is_err()
        {
            tracing::warn!(instance = %self.id, "its shim doesn't end and is killed");
            runs.shim.send_signal(Signal::KILL);
        }
        // Only needed if the shim was killed.
        procfs::kill_session(runs.shim).await;
    }

    /// The reason, with the last log lines.
    fn unplanned_end(&self) -> LifeEnd {
        let ended: Option<EndedInstance> = read_json(&self.folder.join(ENDED));
        let why = ended.map_or_else(
            || "its shim was killed".to_owned(),
            |ended| ended.describe(),
        );
        let words =
            instance_log::exit_reason_lines(&self.folder.join(instance_log::LOG), LAST_WORDS);
        LifeEnd::Unasked { why, words }
    }

    /// The status without a process.
    fn status(&self, phase: InstancePhase) -> InstanceStatus {
        InstanceStatus {
            id: self.id.clone(),
            phase,
            address: String::new(),
            pid: None,
            restarts: self.restarts,
            since: Timestamp::now(),
            usage: None,
        }
    }

    fn running_status(&self, runs: &RunningInstance, phase: InstancePhase) -> InstanceStatus {
        InstanceStatus {
            address: runs.address.clone(),
            pid: Some(runs.instance.pid),
            since: runs.since,
            ..self.status(phase)
        }
    }
}

/// `exit code 1; last log lines: a | b`
fn with_log_lines(why: &str, label: &str, words: &[String]) -> String {
    if words.is_empty() {
        return why.to_owned();
    }
    format!("{why}; {label}: {}", words.join(" | "))
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> TargetError {
    let what = what.to_owned();
    move |source| TargetError::Io { what, source }
}

/// Waits until a stop is requested. If the target is dropped its tasks are aborted.
async fn wait_until_unwanted(wanted: &mut watch::Receiver<bool>) {
    if wanted.wait_for(|wanted| !wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
