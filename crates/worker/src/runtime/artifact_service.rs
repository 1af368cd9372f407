//! `github.actions.results.api.v1.ArtifactService`: the artifact API of the toolkit's version 4.
//!
//! An upload is a zip, or a single file; finalizing converts it to a tar. A download is a zip, created when its URL
//! is requested.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    artifact_store::{ArtifactEntry, ArtifactNameError, ArtifactStore, check_name},
    artifact_zip,
    request_address::RequestAddress,
    signed_blobs::{FinishedUpload, SignedBlobs},
    twirp::{self, TwirpCode, TwirpError, run_blocking_call},
};
use crate::{
    artifact_tar::{self, ArtifactError, WrittenTar},
    file_hash,
    path_error::PathError,
};

pub(super) struct ArtifactService {
    artifact_store: ArtifactStore,
    blobs: Arc<SignedBlobs>,
    /// The folder of stored artifacts.
    kept: PathBuf,
    /// The folder of created zips.
    scratch: PathBuf,
    ids: (String, String),
    /// Unfinished uploads by artifact name.
    begun: Mutex<HashMap<String, PendingUpload>>,
}

struct PendingUpload {
    upload: u64,
    form: UploadFormat,
}

/// The format of an upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UploadFormat {
    Zip,
    /// A single file.
    File,
}

#[derive(Deserialize)]
struct CreateArtifactRequest {
    name: String,
    #[serde(default, alias = "mimeType")]
    mime_type: Option<String>,
}

#[derive(Deserialize)]
struct FinalizeArtifactRequest {
    name: String,
    #[serde(default, deserialize_with = "twirp::deserialize_number")]
    size: Option<u64>,
    #[serde(default)]
    hash: Option<String>,
}

#[derive(Deserialize)]
struct ListArtifactsRequest {
    #[serde(default, alias = "nameFilter")]
    name_filter: Option<String>,
    #[serde(
        default,
        alias = "idFilter",
        deserialize_with = "twirp::deserialize_number"
    )]
    id_filter: Option<u64>,
}

#[derive(Deserialize)]
struct ArtifactNameRequest {
    name: String,
}

#[derive(Serialize)]
struct ArtifactListing {
    workflow_run_backend_id: String,
    workflow_job_run_backend_id: String,
    database_id: String,
    name: String,
    size: String,
    created_at: String,
}

impl ArtifactService {
    pub(super) fn new(
        artifact_store: ArtifactStore,
        blobs: Arc<SignedBlobs>,
        folders: (PathBuf, PathBuf),
        ids: (String, String),
    ) -> Self {
        let (kept, scratch) = folders;
        Self {
            artifact_store,
            blobs,
            kept,
            scratch,
            ids,
            begun: Mutex::default(),
        }
    }

    /// Handles a call; `address` is the base of URLs in the response.
    pub(super) async fn handle_call(
        self: &Arc<Self>,
        method: &str,
        body: &[u8],
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        match method {
            "CreateArtifact" => self.create_upload(&twirp::parse_request(body)?, address),
            "FinalizeArtifact" => self.finalize_upload(twirp::parse_request(body)?).await,
            "ListArtifacts" => self.list_artifacts(&twirp::parse_request(body)?),
            "GetSignedArtifactURL" => {
                self.sign_download(twirp::parse_request(body)?, address)
                    .await
            }
            "DeleteArtifact" => self.delete_artifact(&twirp::parse_request(body)?),
            _ => Err(TwirpError::new(
                TwirpCode::BadRoute,
                format!("no such method: {method}"),
            )),
        }
    }

    fn create_upload(
        &self,
        request: &CreateArtifactRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let invalid = |error: ArtifactNameError| {
            TwirpError::new(TwirpCode::InvalidArgument, error.to_string())
        };
        let name = check_name(&request.name).map_err(invalid)?.to_owned();
        if !self.artifact_store.is_name_free(&name) {
            let why = "an artifact with this name already exists on the workflow run";
            return Err(TwirpError::new(TwirpCode::AlreadyExists, why));
        }
        let form = match request.mime_type.as_deref() {
            None | Some("" | "application/zip") => UploadFormat::Zip,
            Some(_) => UploadFormat::File,
        };
        let (upload, signature) = self.blobs.open_upload()?;
        let begun = PendingUpload { upload, form };
        if let Some(given_up) = self.lock_uploads().insert(name, begun) {
            self.blobs.close_upload(given_up.upload);
        }
        twirp::serialize_response(&serde_json::json!({
            "ok": true,
            "signed_upload_url": address.signed_url("artifacts", upload, &signature),
        }))
    }

    async fn finalize_upload(
        self: &Arc<Self>,
        request: FinalizeArtifactRequest,
    ) -> Result<Vec<u8>, TwirpError> {
        let begun = self.lock_uploads().remove(&request.name);
        let not_begun =
            || TwirpError::new(TwirpCode::NotFound, "no upload of this name was started");
        let begun = begun.ok_or_else(not_begun)?;
        let upload = self
            .blobs
            .close_upload(begun.upload)
            .ok_or_else(not_begun)?;
        let this = Arc::clone(self);
        let kept =
            run_blocking_call(move || this.store_upload(&upload, begun.form, &request)).await?;
        twirp::serialize_response(
            &serde_json::json!({ "ok": true, "artifact_id": kept.id().to_string() }),
        )
    }

    /// Converts an upload to an artifact and stores it.
    fn store_upload(
        &self,
        upload: &FinishedUpload,
        form: UploadFormat,
        request: &FinalizeArtifactRequest,
    ) -> Result<ArtifactEntry, TwirpError> {
        let invalid = |why: String| {
            let name = &request.name;
            TwirpError::new(
                TwirpCode::InvalidArgument,
                format!("the artifact {name}: {why}"),
            )
        };
        let blob = upload.blob_path();
        let blob = blob.ok_or_else(|| invalid("nothing was uploaded".to_owned()))?;
        let size = blob.metadata()?.len();
        if let Some(said) = request.size.filter(|said| *said != size) {
            return Err(invalid(format!("{size} bytes received, not {said}")));
        }
        if let Some(said) = request.hash.as_deref().filter(|said| !said.is_empty()) {
            let found = format!(
                "sha256:{}",
                file_hash::to_hex(&file_hash::hash_file(&blob)?)
            );
            if found != said {
                return Err(invalid(format!(
                    "the received bytes are {found}, not {said}"
                )));
            }
        }
        let to = free_path(&self.kept, &request.name);
        let written = match form {
            UploadFormat::Zip => artifact_zip::zip_to_tar(&blob, &to),
            UploadFormat::File => write_single_file_tar(&blob, &request.name, &to),
        };
        let WrittenTar { digest, size } = written.map_err(|why| {
            // Don't leave an incomplete artifact.
            let _ = std::fs::remove_file(&to);
            invalid(why.to_string())
        })?;
        Ok(self
            .artifact_store
            .add_artifact(request.name.clone(), to, digest, size))
    }

    fn list_artifacts(&self, request: &ListArtifactsRequest) -> Result<Vec<u8>, TwirpError> {
        let (run, job) = &self.ids;
        let wanted = |kept: &ArtifactEntry| {
            let name = request.name_filter.as_ref();
            name.is_none_or(|name| *name == kept.name)
                && request.id_filter.is_none_or(|id| id == kept.id())
        };
        let all = self
            .artifact_store
            .list_artifacts()
            .into_iter()
            .filter(wanted);
        // Without digests: clients would compare them with the zip, but they are those of the tar.
        let listed = all.map(|kept| ArtifactListing {
            workflow_run_backend_id: run.clone(),
            workflow_job_run_backend_id: job.clone(),
            database_id: kept.id().to_string(),
            size: kept.size.to_string(),
            created_at: kept.at.to_string(),
            name: kept.name,
        });
        twirp::serialize_response(&serde_json::json!({ "artifacts": listed.collect::<Vec<_>>() }))
    }

    async fn sign_download(
        self: &Arc<Self>,
        request: ArtifactNameRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let kept = self
            .artifact_store
            .find_artifact(&request.name)
            .ok_or_else(unknown_artifact)?;
        let tar = self.artifact_store.tar_file(&kept).await;
        let tar = tar.map_err(|error| unreadable_artifact(&kept, &error))?;
        let this = Arc::clone(self);
        let zip = run_blocking_call(move || this.zip_artifact(&kept, &tar)).await?;
        let (id, signature) = self.blobs.sign_readable(zip)?;
        let url = address.signed_url("artifacts", id, &signature);
        twirp::serialize_response(&serde_json::json!({ "signed_url": url }))
    }

    /// The artifact as a zip, created once.
    fn zip_artifact(&self, kept: &ArtifactEntry, tar: &Path) -> Result<PathBuf, TwirpError> {
        let zip = self.scratch.join(format!("{}.zip", kept.id()));
        if zip.exists() {
            return Ok(zip);
        }
        let unique = super::runtime_secret::RuntimeSecret::random()?;
        let folder = self.scratch.join(unique.as_str());
        let part = folder.with_extension("part");
        std::fs::create_dir_all(&self.scratch)?;
        let made = artifact_zip::tar_to_zip(tar, &kept.digest, &folder, &part);
        made.map_err(|why| unreadable_artifact(kept, &why))?;
        std::fs::rename(part, &zip)?;
        Ok(zip)
    }

    fn delete_artifact(&self, request: &ArtifactNameRequest) -> Result<Vec<u8>, TwirpError> {
        let gone = self
            .artifact_store
            .remove_artifact(&request.name)
            .ok_or_else(unknown_artifact)?;
        twirp::serialize_response(
            &serde_json::json!({ "ok": true, "artifact_id": gone.id().to_string() }),
        )
    }

    fn lock_uploads(&self) -> std::sync::MutexGuard<'_, HashMap<String, PendingUpload>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown_artifact() -> TwirpError {
    TwirpError::new(TwirpCode::NotFound, "no artifact of this name")
}

fn unreadable_artifact(kept: &ArtifactEntry, why: &dyn std::fmt::Display) -> TwirpError {
    let name = &kept.name;
    TwirpError::new(
        TwirpCode::Internal,
        format!("the artifact {name} can't be read: {why}"),
    )
}

/// Writes a tar with one file.
fn write_single_file_tar(file: &Path, name: &str, to: &Path) -> Result<WrittenTar, ArtifactError> {
    let open = File::open(file).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size, file) = open.map_err(PathError::at(file))?;
    let mut builder = artifact_tar::TarWriter::create(to)?;
    builder.add_file(Path::new(name), 0o644, size, file)?;
    builder.finish()
}

/// A new path for an artifact. Never an existing one, which the journal may refer to.
pub(crate) fn free_path(folder: &Path, name: &str) -> PathBuf {
    let mut path = folder.join(format!("{name}.tar"));
    for number in 2.. {
        if !path.exists() {
            break;
        }
        path = folder.join(format!("{name}.{number}.tar"));
    }
    path
}
