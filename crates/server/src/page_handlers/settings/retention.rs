//! The settings of retention.

use std::{path::Path, sync::Arc};

use axum::extract::FromRef;
use serde::Deserialize;
use shipway_core::access::Verb;
use shipway_engine::Clock;
use shipway_pages::{RetentionResult, RetentionSettingsPage, SettingsLink, StoredFiles};

use super::{NoQuery, PageError, SettingsForms, SettingsPage, SettingsVisit};
use crate::{
    api::{ApiError, Caller},
    app::AppState,
    capabilities::DataFolder,
    retention::{CollectedRepositories, FilePruner, count_files},
};

/// The page of retention.
pub(super) struct RetentionSettings {
    pruner: FilePruner,
    data: DataFolder,
    clock: Arc<dyn Clock>,
}

impl FromRef<AppState> for RetentionSettings {
    fn from_ref(app: &AppState) -> Self {
        Self {
            pruner: FromRef::from_ref(app),
            data: FromRef::from_ref(app),
            clock: FromRef::from_ref(app),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RetentionAction {
    Preview,
    Prune,
}

/// The fields of all forms.
#[derive(Deserialize)]
pub(super) struct RetentionForm {
    action: RetentionAction,
}

impl RetentionSettings {
    async fn stored_files(&self) -> Result<StoredFiles, ApiError> {
        let blobs = self.pruner.blobs.list().await;
        let blobs = blobs.map_err(|error| ApiError::conflict(error.to_string()))?;
        let data = self.data.0.clone();
        let measured = tokio::task::spawn_blocking(move || measure_folder(&data)).await;
        let (log_bytes, free_bytes) = measured.unwrap_or_default();
        Ok(StoredFiles {
            blobs: count_files(blobs.iter().map(|blob| blob.size)),
            log_bytes,
            free_bytes,
        })
    }
}

/// The bytes of the log, and the free bytes.
fn measure_folder(data: &Path) -> (u64, Option<u64>) {
    let files = ["shipway.db", "shipway.db-wal"].into_iter();
    let sizes = files.filter_map(|name| std::fs::metadata(data.join(name)).ok());
    let disk = rustix::fs::statvfs(data).ok();
    let free = disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    (sizes.map(|file| file.len()).sum(), free)
}

impl SettingsPage for RetentionSettings {
    const LINK: SettingsLink = SettingsLink {
        address: "/settings/retention",
        title: "Retention",
    };
    const VERB: Verb = Verb::Prune;
    type Query = NoQuery;
    type Shown = RetentionResult;

    async fn to_html(
        &self,
        visit: SettingsVisit<'_, NoQuery, RetentionResult>,
    ) -> Result<String, PageError> {
        let page = RetentionSettingsPage {
            frame: visit.frame,
            policy: self.pruner.policy,
            stored: self.stored_files().await?,
            last: self.pruner.last_removal(),
            result: visit.shown,
            now: self.clock.now(),
        };
        Ok(page.to_html())
    }
}

impl SettingsForms for RetentionSettings {
    type Form = RetentionForm;

    fn require_sender(caller: &Caller, _form: &RetentionForm) -> Result<(), ApiError> {
        Self::require_visitor(caller)
    }

    async fn apply_form(
        &self,
        _caller: &Caller,
        form: RetentionForm,
    ) -> Result<Option<RetentionResult>, ApiError> {
        Ok(Some(match form.action {
            RetentionAction::Preview => RetentionResult::Preview(self.pruner.preview().await?),
            RetentionAction::Prune => {
                let removed = self.pruner.prune(CollectedRepositories::All).await?;
                RetentionResult::Removed(removed)
            }
        }))
    }
}
