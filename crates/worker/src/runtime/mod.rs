//! The endpoints that actions written with GitHub's toolkit expect of a runner: artifacts, caches, and the storage behind both.
//!
//! The worker serves them itself, on a loopback port of its own and for the length of its job, so they are there in a run
//! without a server and when the server is down. Nothing is begun until an action needs it. What is uploaded here and what the
//! built-in actions store is the same: one [`Shelf`] of artifacts.
//!
//! What it must never do: answer somebody who doesn't show the job's token or a signed address, keep the job waiting, or
//! outlive it.

mod artifacts;
mod blobs;
mod caches;
mod serve;
mod shelf;
#[cfg(test)]
mod tests;
mod token;
mod twirp;
mod zip;

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    thread::JoinHandle,
};

use sha2::{Digest as _, Sha256};
use shipway_workflow::job::JobSpec;
use tokio_util::sync::CancellationToken;

use self::{serve::Services, token::Secret};
use crate::{cache::Caches, environment::Folders, hash, mask::Masker};

pub(crate) use artifacts::place;
pub(crate) use shelf::{Kept, Shelf, checked_name};

/// The toolkit refuses to store anything for a server that it takes for an older GitHub Enterprise: every one that isn't
/// called `github.com`, `*.ghe.com` or `*.localhost`.
const SERVER_URL: (&str, &str) = ("GITHUB_SERVER_URL", "https://github.com");

/// The endpoints of a job.
pub(crate) struct Runtime {
    /// The artifacts within reach.
    pub(crate) shelf: Shelf,
    /// The caches within reach.
    pub(crate) caches: Option<Caches>,
    /// Where artifacts are kept.
    artifacts: PathBuf,
    /// Where uploads lie until they are done.
    scratch: PathBuf,
    /// What the toolkit calls the run and the job.
    ids: (String, String),
    served: Option<Served>,
}

impl Runtime {
    /// Costs nothing: the endpoints come up when their addresses are asked for.
    pub(crate) fn new(spec: &JobSpec, folders: &Folders) -> Self {
        let github = &spec.contexts.github;
        let text = |name: &str| github.get(name).to_text().to_string();
        let again = !matches!(text("run_attempt").as_str(), "" | "1");
        let run = format!("{}/{}", text("repository"), text("run_id"));
        let shelf = Shelf::new(&spec.artifacts, again);
        let caches = Caches::of(spec);
        Self::of(shelf, caches, &run, &format!("{run}/{}", spec.key), folders)
    }

    fn of(shelf: Shelf, caches: Option<Caches>, run: &str, job: &str, folders: &Folders) -> Self {
        Self {
            shelf,
            caches,
            artifacts: folders.artifacts.clone(),
            scratch: folders.temp.join("_runtime"),
            ids: (id_of(run), id_of(job)),
            served: None,
        }
    }

    /// The variables that actions find the endpoints by: for actions only, as GitHub's runner does it. Its token is masked
    /// from now on.
    pub(crate) fn env(&mut self, masker: &mut Masker) -> Result<Vec<(String, String)>, String> {
        if self.served.is_none() {
            let served = self.start();
            let served = served
                .map_err(|error| format!("the endpoints for actions can't be served: {error}"))?;
            masker.add(served.token.as_str());
            self.served = Some(served);
        }
        let served = self.served.as_ref().map(|served| {
            let (url, token) = (served.url.as_str(), served.token.as_str());
            [
                ("ACTIONS_RUNTIME_URL", url),
                ("ACTIONS_RUNTIME_TOKEN", token),
                ("ACTIONS_RESULTS_URL", url),
                ("ACTIONS_CACHE_URL", url),
                ("ACTIONS_CACHE_SERVICE_V2", "true"),
                SERVER_URL,
            ]
        });
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Ok(served.into_iter().flatten().map(owned).collect())
    }

    fn start(&self) -> io::Result<Served> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://127.0.0.1:{}/", listener.local_addr()?.port());
        let (run, job) = &self.ids;
        let token = Secret::token(run, job)?;
        let services = Services::new(self, &url, token.clone());
        let stop = CancellationToken::new();
        // A thread of its own: uploads don't hold up the log, and the log no uploads.
        let thread = std::thread::Builder::new().name("endpoints".to_owned());
        let thread = thread.spawn({
            let stop = stop.clone();
            move || serve::run(listener, services, stop)
        })?;
        Ok(Served {
            url,
            token,
            stop,
            thread: Some(thread),
        })
    }
}

/// Endpoints that are up, until this is dropped.
struct Served {
    url: String,
    token: Secret,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It says nothing when it ends, and a panic there was one of its requests' end.
            let _ = thread.join();
        }
    }
}

/// In the form of GitHub's ids. The same for all jobs of a run.
fn id_of(name: &str) -> String {
    let hex = hash::hex(&Sha256::digest(name)[..16]);
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}
