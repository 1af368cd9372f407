//! The endpoints that actions with GitHub's toolkit expect of a runner: artifacts, caches, and blob storage for both.
//!
//! The worker serves them itself, on a loopback port for the duration of its job, so they also work without a server
//! or while it is down. They are started when the first action needs them. Uploads go to the same [`ArtifactStore`] as those
//! of the built-in actions.
//!
//! # Invariants
//!
//! - Every request needs the job's token or a signed URL.
//! - The endpoints neither delay nor outlive the job.

mod artifact_service;
mod artifact_store;
mod artifact_zip;
mod cache_service;
mod http_server;
mod request_address;
mod runtime_secret;
mod signed_blobs;
#[cfg(test)]
mod tests;
mod twirp;

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
};

use sha2::{Digest as _, Sha256};
use shipway_workflow::job::JobSpec;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{http_server::EndpointServices, runtime_secret::RuntimeSecret};
use crate::{
    cache::JobCaches, environment::JobFolders, file_hash, job_inputs::JobInputProvider,
    mask::Masker,
};

pub(crate) use artifact_service::free_path;
pub(crate) use artifact_store::{
    ArtifactEntry, ArtifactNameError, ArtifactStore, RunAttempt, check_name,
};

/// The toolkit refuses to upload to a server that it takes for an older GitHub Enterprise: any except `github.com`,
/// `*.ghe.com` and `*.localhost`.
const SERVER_URL: (&str, &str) = ("GITHUB_SERVER_URL", "https://github.com");

/// Limit for listening addresses: loopback, and the gateway of a container network.
const ADDRESSES_MAX: usize = 8;

/// Why the endpoints for actions are not available.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("containers of this engine don't see this machine")]
    NoGateway,
    #[error("the endpoints for actions can't be served at {address}: {source}")]
    NotServed {
        address: Ipv4Addr,
        source: io::Error,
    },
}

pub(crate) struct RuntimeEndpoints {
    pub(crate) artifact_store: ArtifactStore,
    pub(crate) caches: Option<JobCaches>,
    /// The folder of stored artifacts.
    artifacts: PathBuf,
    /// The folder of unfinished uploads.
    scratch: PathBuf,
    /// The toolkit's ids of run and job.
    ids: (String, String),
    served: Option<RunningServer>,
}

impl RuntimeEndpoints {
    /// Cheap: the endpoints are started by [`Self::endpoint_variables`].
    pub(crate) fn new(
        spec: &JobSpec,
        folders: &JobFolders,
        inputs: &Arc<dyn JobInputProvider>,
    ) -> Self {
        let github = &spec.contexts.github;
        let text = |name: &str| github.get(name).to_text().to_string();
        let attempt = match text("run_attempt").as_str() {
            "" | "1" => RunAttempt::First,
            _ => RunAttempt::Rerun,
        };
        let run = format!("{}/{}", text("repository"), text("run_id"));
        let artifact_store = ArtifactStore::new(&spec.artifacts, inputs.clone(), attempt);
        let caches = JobCaches::for_job(spec);
        Self::with_ids(
            artifact_store,
            caches,
            &run,
            &format!("{run}/{}", spec.key),
            folders,
        )
    }

    fn with_ids(
        artifact_store: ArtifactStore,
        caches: Option<JobCaches>,
        run: &str,
        job: &str,
        folders: &JobFolders,
    ) -> Self {
        Self {
            artifact_store,
            caches,
            artifacts: folders.artifacts.clone(),
            scratch: folders.temp.join("_runtime"),
            ids: (backend_id(run), backend_id(job)),
            served: None,
        }
    }

    /// Separate endpoints for a background step, for the same artifacts and caches.
    pub(crate) fn for_background_step(&self, number: usize) -> Self {
        Self {
            artifact_store: self.artifact_store.clone(),
            caches: self.caches.clone(),
            artifacts: self.artifacts.clone(),
            scratch: self.scratch.join(format!("beside-{number}")),
            ids: self.ids.clone(),
            served: None,
        }
    }

    /// Starts the endpoints and returns the variables that actions find them by. `at` is this machine's address from
    /// the action's point of view. Registers the token as a secret.
    pub(crate) fn endpoint_variables(
        &mut self,
        at: Ipv4Addr,
        masker: &mut Masker,
    ) -> Result<Vec<(String, String)>, EndpointError> {
        let failed = |source| EndpointError::NotServed {
            address: at,
            source,
        };
        if self.served.is_none() {
            let served = self.start_server().map_err(failed)?;
            masker.add(served.token.as_str());
            self.served = Some(served);
        }
        let Some(served) = &mut self.served else {
            return Ok(Vec::new());
        };
        let url = format!("http://{at}:{}/", served.port_at(at).map_err(failed)?);
        // Not `ACTIONS_CACHE_URL`: it stands for the old cache API, which GitHub has shut down.
        let env = [
            ("ACTIONS_RUNTIME_URL", url.as_str()),
            ("ACTIONS_RUNTIME_TOKEN", served.token.as_str()),
            ("ACTIONS_RESULTS_URL", &url),
            ("ACTIONS_CACHE_SERVICE_V2", "true"),
            SERVER_URL,
        ];
        Ok(env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec())
    }

    fn start_server(&self) -> io::Result<RunningServer> {
        let (run, job) = &self.ids;
        let token = RuntimeSecret::new_token(run, job)?;
        let services = EndpointServices::new(self, token.clone());
        let stop = CancellationToken::new();
        let (listeners, effects) = mpsc::channel(ADDRESSES_MAX);
        // A separate thread, so that uploads and the job's output don't block each other.
        let thread = std::thread::Builder::new().name("endpoints".to_owned());
        let thread = thread.spawn({
            let stop = stop.clone();
            move || http_server::serve_until_stopped(effects, services, stop)
        })?;
        Ok(RunningServer {
            token,
            ports: Vec::new(),
            listeners,
            stop,
            thread: Some(thread),
        })
    }
}

/// Running endpoints; stopped when dropped.
struct RunningServer {
    token: RuntimeSecret,
    /// Listening addresses.
    ports: Vec<(Ipv4Addr, u16)>,
    listeners: mpsc::Sender<TcpListener>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl RunningServer {
    /// The port at an address, which is bound on first use.
    fn port_at(&mut self, at: Ipv4Addr) -> io::Result<u16> {
        if let Some((_, port)) = self.ports.iter().find(|(known, _)| *known == at) {
            return Ok(*port);
        }
        let listener = TcpListener::bind((at, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        self.listeners
            .try_send(listener)
            .map_err(io::Error::other)?;
        self.ports.push((at, port));
        Ok(port)
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has only failed a request.
            let _ = thread.join();
        }
    }
}

/// An id in GitHub's format, the same for all jobs of a run.
fn backend_id(name: &str) -> String {
    let hex = file_hash::to_hex(&Sha256::digest(name)[..16]);
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}
