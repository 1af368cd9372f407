//! A process target on a temporary folder, with a real shim (`src/bin/shipway-instance.rs`) and small real services.

#![allow(
    dead_code,
    reason = "several test programs share this, and none uses all of it"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::{
    check::{HealthCheck, HealthProbe},
    ids::{Digest, ReleaseNumber},
    target::{
        InstancePhase, InstanceStatus, ReplicaSetKey, ResourceLimits, ServiceEnvironment, Workload,
        WorkloadCommand, WorkloadProgram,
    },
};
use shipway_engine::{BlobError, Reader};
use shipway_targets::{
    process::{ArtifactSource, ProcessTarget, ProcessTargetOptions},
    target::{ReadinessError, Target, await_ready},
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Serves `/` with its name, `/env` with its environment, `/exit` by exiting; `/ready` and `/live` with 503 while a file named
/// `unready` or `dead` is there.
pub const APP: &str = r#"
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code, body = 200, os.environ["SHIPWAY_INSTANCE"]
        if self.path == "/exit":
            print("asked to exit", flush=True)
            os._exit(3)
        if self.path == "/env":
            body = json.dumps(dict(os.environ))
        if self.path == "/ready" and os.path.exists("unready"):
            code, body = 503, '{"checks": {"database": false, "cache": true}}'
        if self.path == "/live" and os.path.exists("dead"):
            code = 503
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *arguments):
        pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Artifacts in memory.
pub struct Shelf(pub Mutex<BTreeMap<Digest, Vec<u8>>>);

#[async_trait]
impl ArtifactSource for Shelf {
    async fn open(&self, digest: &Digest) -> Result<Reader, BlobError> {
        let bytes = self.0.lock().unwrap().get(digest).cloned();
        let bytes = bytes.ok_or_else(|| BlobError::Missing(digest.clone()))?;
        Ok(Box::pin(std::io::Cursor::new(bytes)))
    }
}

/// A tar with one file of each name and content.
pub fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// The folder of a target; what still runs there when it is dropped is killed.
pub struct Machine {
    folder: tempfile::TempDir,
    root: PathBuf,
    shelf: Arc<Shelf>,
    app: Digest,
}

impl Machine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("instances");
        Self::with_root(folder, root)
    }

    pub fn with_root(folder: tempfile::TempDir, root: PathBuf) -> Self {
        let tar = tar_of(&[("app.py", APP)]);
        let app = Digest::compute(&tar);
        let shelf = Arc::new(Shelf(Mutex::new([(app.clone(), tar)].into())));
        Self {
            folder,
            root,
            shelf,
            app,
        }
    }

    /// Puts another artifact on the shelf.
    pub fn add_artifact(&self, tar: Vec<u8>) -> Digest {
        let digest = Digest::compute(&tar);
        self.shelf.0.lock().unwrap().insert(digest.clone(), tar);
        digest
    }

    /// Loses all artifacts.
    pub fn lose_artifacts(&self) {
        self.shelf.0.lock().unwrap().clear();
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A place for files of a test that no instance looks at by itself.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The log of the first instance of a set.
    pub fn log_path(&self, set: &ReplicaSetKey) -> PathBuf {
        self.set_folder(set).join("1").join("log")
    }

    pub fn set_folder(&self, set: &ReplicaSetKey) -> PathBuf {
        let ReplicaSetKey { place, release } = set;
        let name = format!("{}.{}.{}", place.service, place.environment, release.0);
        self.root.join(name)
    }

    /// What a server does when it starts.
    pub async fn open(&self) -> ProcessTarget {
        ProcessTarget::open(ProcessTargetOptions {
            root: self.root.clone(),
            data: self.scratch("data"),
            shim: vec![env!("CARGO_BIN_EXE_shipway-instance").into()],
            artifacts: self.shelf.clone(),
            secrets: Arc::new(|set: &ReplicaSetKey, name: &str| {
                let known = set.place.service.as_str() == "shop" && name == "TOKEN";
                known.then(|| "s3cr3t-value".to_owned())
            }),
        })
        .await
        .unwrap()
    }

    /// The app of another artifact.
    pub fn app_from(&self, artifact: Digest) -> Workload {
        let command = "exec python3 app.py".to_owned();
        Workload {
            program: WorkloadProgram::Command(WorkloadCommand { artifact, command }),
            ..self.app()
        }
    }

    /// A command in the folder of the app, asked over HTTP.
    pub fn launch(&self, command: &str) -> Workload {
        Workload {
            program: WorkloadProgram::Command(WorkloadCommand {
                artifact: self.app.clone(),
                command: command.to_owned(),
            }),
            env: BTreeMap::new(),
            health: HealthCheck {
                readiness: http("/ready"),
                liveness: None,
                interval: Duration::from_millis(100),
                timeout: Duration::from_secs(5),
                healthy_after: 1,
                unhealthy_after: 2,
                start_period: Duration::ZERO,
            },
            limits: ResourceLimits::default(),
            grace: Duration::from_secs(20),
            stop_signal: Default::default(),
            host: None,
            url: Some("http://shop.localhost:8080/".to_owned()),
        }
    }

    pub fn app(&self) -> Workload {
        self.launch("exec python3 app.py")
    }

    /// How often an instance was started in a slot, by its log.
    pub fn starts(&self, set: &ReplicaSetKey, slot: u32) -> usize {
        let log = self.set_folder(set).join(slot.to_string()).join("log");
        let text = fs::read_to_string(log).unwrap_or_default();
        text.matches("shipway: started ").count()
    }

    fn runs(&self) -> Vec<serde_json::Value> {
        let folders = |path: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let slots = folders(&self.root)
            .into_iter()
            .flat_map(|set| folders(&set));
        slots
            .filter_map(|slot| serde_json::from_slice(&fs::read(slot.join("runs.json")).ok()?).ok())
            .collect()
    }

    /// The pid of the shim of a slot.
    pub fn shim(&self, set: &ReplicaSetKey, slot: u32) -> u32 {
        let runs = self.set_folder(set).join(slot.to_string());
        let runs: serde_json::Value =
            serde_json::from_slice(&fs::read(runs.join("runs.json")).unwrap()).unwrap();
        u32::try_from(runs["shim"]["pid"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for runs in self.runs() {
            let pid = |of: &str| u32::try_from(runs[of]["pid"].as_u64().unwrap_or(0)).unwrap();
            let (shim, instance) = (pid("shim"), pid("instance"));
            if start_time(shim) == runs["shim"]["start_time"].as_u64() {
                kill(shim);
            }
            if start_time(instance) == runs["instance"]["start_time"].as_u64() {
                let _ = rustix::process::kill_process_group(
                    to_pid(instance),
                    rustix::process::Signal::KILL,
                );
            }
        }
    }
}

pub fn http(path: &str) -> HealthProbe {
    HealthProbe::Http {
        path: path.to_owned(),
        status: None,
        headers: BTreeMap::new(),
    }
}

pub fn set(release: u32) -> ReplicaSetKey {
    ReplicaSetKey {
        place: ServiceEnvironment {
            service: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
        },
        release: ReleaseNumber(release),
    }
}

pub async fn ready(
    target: &ProcessTarget,
    set: &ReplicaSetKey,
    count: u32,
) -> Result<(), ReadinessError> {
    await_ready(target, set, count, PATIENCE, &CancellationToken::new()).await
}

/// Waits until the instances are as wanted.
pub async fn until(
    target: &ProcessTarget,
    what: &str,
    wanted: impl Fn(&[InstanceStatus]) -> bool,
) -> Vec<InstanceStatus> {
    let mut changes = target.watch();
    let reached = async {
        loop {
            changes.borrow_and_update();
            let instances = target.instances();
            if wanted(&instances) {
                return instances;
            }
            changes.changed().await.unwrap();
        }
    };
    match tokio::time::timeout(PATIENCE, reached).await {
        Ok(instances) => instances,
        Err(_) => panic!("never {what}: {:#?}", target.instances()),
    }
}

/// Waits for something that nobody tells of.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, reached).await;
    assert!(in_time.is_ok(), "never: {what}");
}

pub fn pids(target: &ProcessTarget) -> Vec<u32> {
    let statuses = target.instances();
    statuses
        .iter()
        .map(|status| status.pid.expect("it runs"))
        .collect()
}

pub fn is_backoff(status: &InstanceStatus) -> bool {
    matches!(status.phase, InstancePhase::Backoff { .. })
}

fn to_pid(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

pub fn kill(pid: u32) {
    let _ = rustix::process::kill_process(to_pid(pid), rustix::process::Signal::KILL);
}

/// Whether a process is there and not only waits to be reaped.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

/// The number that a service has written to a file.
pub async fn number_in(path: &Path) -> u32 {
    let number = || fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    eventually("a number in a file", || number().is_some()).await;
    number().unwrap()
}

/// The body of an answer to a plain GET.
pub async fn get(address: &str, path: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned()))
}
