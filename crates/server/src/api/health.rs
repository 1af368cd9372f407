//! Whether the server is well, and its descriptions: the schema of `shipway.yaml` and that of the API.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use shipway_api::{HealthReport, ReadinessChecks, ReadinessReasons, ReadinessReport};
use shipway_core::{
    access::{Resource, Verb},
    target::RouterKind,
};
use shipway_engine::{Clock, Store, StoreError};

use super::{ApiError, Caller};
use crate::{
    capabilities::{DataFolder, Workloads},
    file_storage::FileStorage,
};

/// Whether the process answers.
pub(crate) async fn healthz(State(clock): State<Arc<dyn Clock>>) -> Json<HealthReport> {
    Json(HealthReport {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timestamp: clock.now(),
    })
}

/// Whether the store, the data plane and the disk are well; with the reason of each check that fails.
pub(crate) async fn readyz(
    State(store): State<Arc<dyn Store>>,
    State(workloads): State<Workloads>,
    State(storing): State<Arc<FileStorage>>,
    State(data): State<DataFolder>,
) -> (StatusCode, Json<ReadinessReport>) {
    let unhealthy = workloads.targets.unhealthy_routers().await;
    let proxy = unhealthy.first().map(|router| match router {
        RouterKind::Proxy => "the proxy does not respond on its control socket".to_owned(),
        RouterKind::Service
        | RouterKind::Istio
        | RouterKind::GatewayApi
        | RouterKind::ReplicaRatio => format!("the router {router} does not respond"),
    });
    let reasons = ReadinessReasons {
        store: check_store(&*store)
            .await
            .err()
            .map(|error| error.to_string()),
        proxy,
        disk: check_disk(&data.0).err().map(|error| error.to_string()),
        artifacts: storing.delay_reason(),
    };
    let is_ready = reasons == ReadinessReasons::default();
    let report = ReadinessReport {
        ready: is_ready,
        checks: ReadinessChecks {
            store: reasons.store.is_none(),
            proxy: reasons.proxy.is_none(),
            disk: reasons.disk.is_none(),
            artifacts: reasons.artifacts.is_none(),
        },
        reasons: (!is_ready).then_some(reasons),
    };
    let status = match is_ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report))
}

/// Whether events can be read and appended.
async fn check_store(store: &dyn Store) -> Result<(), StoreError> {
    store.row("service", "none").await?;
    store.check_appends().await
}

/// Free space below this many bytes is not well.
const DISK_BYTES_MIN: u64 = 64 << 20;

/// Why the data directory has no room.
#[derive(Debug, thiserror::Error)]
enum DiskError {
    #[error("{}: {error}", path.display())]
    Unreadable {
        path: PathBuf,
        error: rustix::io::Errno,
    },
    #[error("only {free_mib} MiB are free at {}, less than {} MiB: free some space", path.display(), DISK_BYTES_MIN >> 20)]
    Full { path: PathBuf, free_mib: u64 },
}

fn check_disk(data: &Path) -> Result<(), DiskError> {
    let path = data.to_owned();
    let found = match rustix::fs::statvfs(&path) {
        Ok(found) => found,
        Err(error) => return Err(DiskError::Unreadable { path, error }),
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free >= DISK_BYTES_MIN {
        return Ok(());
    }
    let free_mib = free >> 20;
    Err(DiskError::Full { path, free_mib })
}

/// The JSON Schema of `shipway.yaml`.
pub(crate) async fn schema() -> Response {
    Json(shipway_core::config::schema()).into_response()
}

/// The description of the API.
pub(crate) async fn document(caller: Caller, text: String) -> Result<Response, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
