//! One slot of a set: a shim with its instance, probed, and started again when it ends unasked.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use shipway_core::{
    check::Health,
    target::{InstanceId, InstanceStatus, Launch, Phase},
};
use tokio::sync::watch;

use super::{
    cgroup,
    shim::{ENDED, Ended, LOG, RUNS, Runs, TOLD, Told},
    target::Shared,
};
use crate::{checks::probe, target::TargetError};

/// Before the first restart; doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest time before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An instance that ran this long begins with the shortest backoff again.
const SETTLED: Duration = Duration::from_secs(60);
/// Between probes of an instance that isn't ready yet, so that a rollout needn't wait for a whole interval.
const EAGER: Duration = Duration::from_millis(50);
/// A shim that was told to stop has this much longer than the instance's grace.
const SHIM_GRACE: Duration = Duration::from_secs(3);
/// Ends before ever having been ready that make a crash loop.
const CRASHES_FIRST: usize = 3;
/// Ends within [`SETTLED`] that make a crash loop of what has been ready.
const CRASHES_LATER: usize = 5;

/// A slot under supervision.
pub(super) struct Slot {
    pub(super) wanted: watch::Sender<bool>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

/// What supervises a slot.
pub(super) struct Supervisor {
    pub(super) id: InstanceId,
    pub(super) launch: Arc<Launch>,
    pub(super) folder: PathBuf,
    pub(super) workdir: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) wanted: watch::Receiver<bool>,
}

/// How the ends of an instance are remembered.
#[derive(Default)]
struct Crashes {
    ends: VecDeque<Instant>,
    last: String,
    ever_ready: bool,
}

impl Crashes {
    fn add(&mut self, why: String) {
        self.ends.push_back(Instant::now());
        self.last = why;
        while self.ends.front().is_some_and(|end| end.elapsed() > SETTLED)
            && self.ends.len() > CRASHES_FIRST
        {
            self.ends.pop_front();
        }
    }

    fn is_loop(&self) -> bool {
        let lately = self
            .ends
            .iter()
            .filter(|end| end.elapsed() < SETTLED)
            .count();
        if self.ever_ready {
            lately >= CRASHES_LATER
        } else {
            self.ends.len() >= CRASHES_FIRST
        }
    }
}

/// What ended a supervised life.
enum End {
    Unasked(String),
    Asked,
}

impl Supervisor {
    /// Supervises until it is told that the instance is no longer wanted, and then until it is gone.
    pub(super) async fn run(mut self) {
        let mut crashes = Crashes::default();
        let mut restarts = 0;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let begun = Instant::now();
            let ended = match self.find_or_start().await {
                Ok(runs) => self.live(&runs, restarts, &mut crashes).await,
                Err(error) => End::Unasked(error.to_string()),
            };
            let End::Unasked(why) = ended else { break };
            if begun.elapsed() > SETTLED {
                backoff = BACKOFF_FIRST;
            }
            restarts += 1;
            crashes.add(why.clone());
            let crash_loop = crashes.is_loop().then(|| {
                format!(
                    "instance {} has ended {} times, last: {}",
                    self.id.slot,
                    crashes.ends.len(),
                    crashes.last
                )
            });
            self.shared.crash(&self.id, crash_loop);
            let until = Timestamp::now() + backoff;
            self.shared.set(self.status(
                Phase::Backoff { why, until },
                String::new(),
                None,
                restarts,
                Timestamp::now(),
            ));
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = unwanted(&mut self.wanted) => break,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        cgroup::leave(&self.id.to_string());
        self.shared.forget(&self.id);
    }

    /// The instance of the last server, when it still runs; otherwise a new one.
    async fn find_or_start(&self) -> Result<Runs, TargetError> {
        if let Some(runs) = self.running() {
            return Ok(runs);
        }
        self.clean_up_after_shim();
        self.start().await
    }

    fn running(&self) -> Option<Runs> {
        let runs: Runs = serde_json::from_slice(&fs::read(self.folder.join(RUNS)).ok()?).ok()?;
        runs.shim.is_alive().then_some(runs)
    }

    /// A shim that was killed leaves its instance behind: it goes too, or two would run in one slot.
    fn clean_up_after_shim(&self) {
        let runs: Option<Runs> = fs::read(self.folder.join(RUNS))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(group) = runs
            .filter(|runs| runs.instance.is_alive())
            .and_then(|runs| runs.instance.as_pid())
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        for name in [RUNS, ENDED, TOLD] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    async fn start(&self) -> Result<Runs, TargetError> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| TargetError::Io { what, source }
        };
        fs::create_dir_all(&self.folder).map_err(io("making the instance's folder"))?;
        let address = free_address().map_err(io("looking for a free port"))?;
        let told = Told {
            name: self.id.to_string(),
            command: self.launch.command.clone(),
            workdir: self.workdir.clone(),
            env: self.environment(&address)?,
            limits: self.launch.limits.clone(),
            grace: self.launch.grace,
            address,
        };
        write_private(&self.folder.join(TOLD), &told)
            .map_err(io("telling the instance what to do"))?;
        let mut words = self.shared.shim.iter();
        let program = words.next().ok_or_else(|| {
            io("starting the shim")(std::io::Error::other("no shim is configured"))
        })?;
        let mut command = tokio::process::Command::new(program);
        command.args(words).arg(&self.folder);
        // A group of its own: what is meant for the server's terminal is not meant for it. It outlives the server.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .kill_on_drop(false);
        let mut child = command.spawn().map_err(io("starting the shim"))?;
        let runs = self.await_runs(&mut child).await;
        // Reaped when it ends, so that it doesn't stay as a zombie of this server.
        tokio::spawn(async move { child.wait().await });
        runs
    }

    /// The shim writes down what runs within milliseconds.
    async fn await_runs(&self, child: &mut tokio::process::Child) -> Result<Runs, TargetError> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let path = self.folder.join(RUNS);
        loop {
            if let Some(runs) = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            {
                return Ok(runs);
            }
            let gone = matches!(child.try_wait(), Ok(Some(_)));
            if gone || Instant::now() > deadline {
                let why = self
                    .last_words()
                    .unwrap_or_else(|| "it said nothing".to_owned());
                return Err(TargetError::Io {
                    what: "starting the instance".to_owned(),
                    source: std::io::Error::other(why),
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A clean environment: nothing of the server's leaks in.
    fn environment(&self, address: &str) -> Result<BTreeMap<String, String>, TargetError> {
        let place = &self.id.set.place;
        let port = address.rsplit(':').next().unwrap_or_default();
        let path =
            std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let mut env = BTreeMap::from([
            ("PATH", path),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", self.workdir.display().to_string()),
            ("HOST", "127.0.0.1".to_owned()),
            ("SHIPWAY_SERVICE", place.service.to_string()),
            ("SHIPWAY_ENVIRONMENT", place.environment.to_string()),
            ("SHIPWAY_RELEASE", self.id.set.release.0.to_string()),
            ("SHIPWAY_INSTANCE", self.id.to_string()),
        ])
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<BTreeMap<_, _>>();
        for (name, value) in &self.launch.env {
            env.insert(name.clone(), self.shared.expand(place, value)?);
        }
        env.insert("PORT".to_owned(), port.to_owned());
        Ok(env)
    }

    /// Probes until it ends, or is not wanted any more and has been stopped.
    async fn live(&self, runs: &Runs, restarts: u32, crashes: &mut Crashes) -> End {
        let health = self.launch.health.clone();
        let mut probing = Probing::new();
        let mut wanted = self.wanted.clone();
        let starting = Phase::Starting {
            why: "not asked yet".to_owned(),
        };
        self.shared.set(self.status(
            starting,
            runs.address.clone(),
            Some(runs.instance.pid),
            restarts,
            runs.since,
        ));
        loop {
            let asked = async {
                tokio::time::sleep(probing.wait(&health)).await;
                let ready = probe::ask(
                    &health.readiness,
                    &runs.address,
                    &self.workdir,
                    health.timeout,
                )
                .await;
                let alive = match &health.liveness {
                    Some(liveness) => {
                        probe::ask(liveness, &runs.address, &self.workdir, health.timeout).await
                    }
                    None => Ok(()),
                };
                (ready, alive)
            };
            let (ready, alive) = tokio::select! {
                () = runs.shim.ended() => return End::Unasked(self.how_it_ended()),
                () = unwanted(&mut wanted) => {
                    self.stop(runs, restarts).await;
                    return End::Asked;
                }
                asked = asked => asked,
            };
            if let Some(phase) = probing.take(&health, ready) {
                crashes.ever_ready |= phase == Phase::Ready;
                self.shared.set(self.status(
                    phase,
                    runs.address.clone(),
                    Some(runs.instance.pid),
                    restarts,
                    runs.since,
                ));
            }
            if let Some(why) = probing.is_dead(&health, alive, runs.since) {
                self.stop(runs, restarts).await;
                return End::Unasked(format!("liveness: {why}"));
            }
        }
    }

    async fn stop(&self, runs: &Runs, restarts: u32) {
        self.shared.set(self.status(
            Phase::Stopping,
            runs.address.clone(),
            Some(runs.instance.pid),
            restarts,
            runs.since,
        ));
        let Some(shim) = runs.shim.as_pid().filter(|_| runs.shim.is_alive()) else {
            return;
        };
        // Gone in this moment is as good.
        let _ = rustix::process::kill_process(shim, rustix::process::Signal::TERM);
        if tokio::time::timeout(self.launch.grace + SHIM_GRACE, runs.shim.ended())
            .await
            .is_err()
        {
            let _ = rustix::process::kill_process(shim, rustix::process::Signal::KILL);
        }
        self.clean_up_after_shim();
    }

    /// In words, with the last line of the log.
    fn how_it_ended(&self) -> String {
        let ended: Option<Ended> = fs::read(self.folder.join(ENDED))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let how = ended.map_or_else(
            || "its shim was killed".to_owned(),
            |ended| ended.sentence(),
        );
        match self.last_words() {
            Some(words) => format!("{how}; last log line: {words}"),
            None => how,
        }
    }

    fn last_words(&self) -> Option<String> {
        last_line(&self.folder.join(LOG))
    }

    fn status(
        &self,
        phase: Phase,
        address: String,
        pid: Option<u32>,
        restarts: u32,
        since: Timestamp,
    ) -> InstanceStatus {
        InstanceStatus {
            id: self.id.clone(),
            phase,
            address,
            pid,
            restarts,
            since,
            usage: None,
        }
    }
}

/// Answers in a row, and what follows from them.
struct Probing {
    ready: bool,
    good: u32,
    bad: u32,
    dead: u32,
    asked: u32,
    said: String,
}

impl Probing {
    fn new() -> Self {
        Self {
            ready: false,
            good: 0,
            bad: 0,
            dead: 0,
            asked: 0,
            said: String::new(),
        }
    }

    /// Eager at first, then less and less, never slower than the interval.
    fn wait(&mut self, health: &Health) -> Duration {
        self.asked += 1;
        if self.ready {
            return health.interval;
        }
        let eager = if self.asked == 1 {
            Duration::ZERO
        } else {
            EAGER.saturating_mul(1 + self.asked / 20)
        };
        eager.min(health.interval)
    }

    /// The phase, when it or its reason has changed.
    fn take(&mut self, health: &Health, answer: Result<(), String>) -> Option<Phase> {
        match answer {
            Ok(()) => {
                (self.good, self.bad) = (self.good + 1, 0);
                if !self.ready && self.good >= health.healthy_after {
                    self.ready = true;
                    self.said.clear();
                    return Some(Phase::Ready);
                }
                None
            }
            Err(why) => {
                (self.good, self.bad) = (0, self.bad + 1);
                let turned = self.ready && self.bad >= health.unhealthy_after;
                let again = !self.ready && self.said != why;
                if turned {
                    self.ready = false;
                }
                if turned || again {
                    self.said.clone_from(&why);
                    return Some(if turned {
                        Phase::Unready { why }
                    } else {
                        Phase::Starting { why }
                    });
                }
                None
            }
        }
    }

    fn is_dead(
        &mut self,
        health: &Health,
        answer: Result<(), String>,
        since: Timestamp,
    ) -> Option<String> {
        let young = Timestamp::now().duration_since(since)
            < jiff::SignedDuration::try_from(health.start_period).unwrap_or_default();
        match answer {
            Ok(()) => self.dead = 0,
            Err(_) if young => {}
            Err(why) => {
                self.dead += 1;
                if self.dead >= health.unhealthy_after {
                    return Some(why);
                }
            }
        }
        None
    }
}

/// Returns when the instance is no longer wanted, or nobody is there any more to want it.
async fn unwanted(wanted: &mut watch::Receiver<bool>) {
    // A target that is dropped wants nothing more of this task; the instance itself goes on.
    if wanted.wait_for(|wanted| !wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A port that nobody uses at this moment. Should somebody take it first, the instance says so, ends, and gets another.
fn free_address() -> std::io::Result<String> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.to_string())
}

fn write_private(path: &Path, value: &impl serde::Serialize) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&serde_json::to_vec(value)?)
}

/// The last line of a file, shortened.
fn last_line(path: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(4_096)))
        .ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(200).collect())
}
