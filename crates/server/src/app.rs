//! The state of the HTTP handlers. The wiring builds it (`start.rs`); everything below the handlers takes single capabilities or groups
//! of them ([`crate::capabilities`]).

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use shipway_drivers::{git::GitRepositories, jobs::JobExecutor};
use shipway_engine::{Blobs, Clock, Store};

use crate::{
    capabilities::{ClientTokens, JobInputs, ReleaseObservations, ServerAddresses, Workloads},
    delivery_engines::DeliveryEngines,
    environment_status::StatusSources,
    file_storage::FileStorage,
    keyed_requests::KeyedRequestRunner,
    push::PushReceiver,
    retention::FilePruner,
    test_reports::TestReports,
};

/// Everything that requests may be about.
pub struct App {
    /// The log.
    pub(crate) store: Arc<dyn Store>,
    /// Artifacts.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engines: Arc<DeliveryEngines>,
    /// Requests that carry an `Idempotency-Key`.
    pub(crate) keyed_requests: KeyedRequestRunner,
    pub(crate) workloads: Workloads,
    /// Git repositories.
    pub(crate) repos: Arc<GitRepositories>,
    pub(crate) pushes: PushReceiver,
    /// Removes old files.
    pub(crate) pruner: FilePruner,
    /// Where jobs run.
    pub(crate) job_executor: Arc<dyn JobExecutor>,
    pub(crate) job_inputs: JobInputs,
    /// Artifacts and reports on their way into the blobs.
    pub(crate) storing: Arc<FileStorage>,
    pub(crate) test_reports: TestReports,
    pub(crate) observations: ReleaseObservations,
    pub(crate) server_addresses: ServerAddresses,
    /// The `shipway` binary.
    pub(crate) exe: PathBuf,
    /// The data directory.
    pub(crate) data: PathBuf,
    pub(crate) client_tokens: ClientTokens,
}

impl App {
    /// Where the API is, as people and workers reach it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.server_addresses.url
    }

    /// Where the proxy is, as people reach it.
    #[must_use]
    pub fn proxy_url(&self) -> &str {
        &self.server_addresses.proxy_url
    }

    /// Now, as the engines see it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn status_sources(&self) -> StatusSources<'_> {
        StatusSources {
            log: &*self.store,
            engines: &self.engines,
            workloads: &self.workloads,
            live_evidence: &self.observations.live_evidence,
            proxy_address: self.server_addresses.proxy_address,
        }
    }
}
