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
    artifact_store::{ArtifactEntry, ArtifactStore, checked_name},
    artifact_zip,
    http_server::{RequestAddress, aside},
    signed_blobs::{FinishedUpload, SignedBlobs},
    twirp::{self, TwirpCode, TwirpError},
};
use crate::{
    actions::artifact_tar::{self, WrittenTar},
    file_hash,
};

pub(super) struct ArtifactService {
    shelf: ArtifactStore,
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
struct CreateRequest {
    name: String,
    #[serde(default, alias = "mimeType")]
    mime_type: Option<String>,
}

#[derive(Deserialize)]
struct FinalizeRequest {
    name: String,
    #[serde(default, deserialize_with = "twirp::number")]
    size: Option<u64>,
    #[serde(default)]
    hash: Option<String>,
}

#[derive(Deserialize)]
struct ListRequest {
    #[serde(default, alias = "nameFilter")]
    name_filter: Option<String>,
    #[serde(default, alias = "idFilter", deserialize_with = "twirp::number")]
    id_filter: Option<u64>,
}

#[derive(Deserialize)]
struct NameRequest {
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
        shelf: ArtifactStore,
        blobs: Arc<SignedBlobs>,
        folders: (PathBuf, PathBuf),
        ids: (String, String),
    ) -> Self {
        let (kept, scratch) = folders;
        Self {
            shelf,
            blobs,
            kept,
            scratch,
            ids,
            begun: Mutex::default(),
        }
    }

    /// Handles a call; `address` is the base of URLs in the response.
    pub(super) async fn call(
        self: &Arc<Self>,
        method: &str,
        body: &[u8],
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        match method {
            "CreateArtifact" => self.create(&twirp::read(body)?, address),
            "FinalizeArtifact" => self.finalize(twirp::read(body)?).await,
            "ListArtifacts" => self.list(&twirp::read(body)?),
            "GetSignedArtifactURL" => self.offer(twirp::read(body)?, address).await,
            "DeleteArtifact" => self.delete(&twirp::read(body)?),
            _ => Err(TwirpError::new(
                TwirpCode::BadRoute,
                format!("there is no {method}"),
            )),
        }
    }

    fn create(
        &self,
        request: &CreateRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let invalid = |why| TwirpError::new(TwirpCode::InvalidArgument, why);
        let name = checked_name(&request.name).map_err(invalid)?.to_owned();
        if !self.shelf.is_free(&name) {
            let why = "an artifact with this name already exists on the workflow run";
            return Err(TwirpError::new(TwirpCode::AlreadyExists, why));
        }
        let form = match request.mime_type.as_deref() {
            None | Some("" | "application/zip") => UploadFormat::Zip,
            Some(_) => UploadFormat::File,
        };
        let (upload, signature) = self.blobs.open()?;
        let begun = PendingUpload { upload, form };
        if let Some(given_up) = self.lock().insert(name, begun) {
            self.blobs.close(given_up.upload);
        }
        twirp::write(&serde_json::json!({
            "ok": true,
            "signed_upload_url": address.of("artifacts", upload, &signature),
        }))
    }

    async fn finalize(self: &Arc<Self>, request: FinalizeRequest) -> Result<Vec<u8>, TwirpError> {
        let begun = self.lock().remove(&request.name);
        let not_begun = || TwirpError::new(TwirpCode::NotFound, "no upload of this name was begun");
        let begun = begun.ok_or_else(not_begun)?;
        let upload = self.blobs.close(begun.upload).ok_or_else(not_begun)?;
        let this = Arc::clone(self);
        let kept = aside(move || this.keep(&upload, begun.form, &request)).await?;
        twirp::write(&serde_json::json!({ "ok": true, "artifact_id": kept.id().to_string() }))
    }

    /// Converts an upload to an artifact and stores it.
    fn keep(
        &self,
        upload: &FinishedUpload,
        form: UploadFormat,
        request: &FinalizeRequest,
    ) -> Result<ArtifactEntry, TwirpError> {
        let invalid = |why: String| {
            let name = &request.name;
            TwirpError::new(
                TwirpCode::InvalidArgument,
                format!("the artifact {name}: {why}"),
            )
        };
        let blob = upload.blob();
        let blob = blob.ok_or_else(|| invalid("nothing was uploaded".to_owned()))?;
        let size = blob.metadata()?.len();
        if let Some(said) = request.size.filter(|said| *said != size) {
            return Err(invalid(format!("{size} bytes came, not {said}")));
        }
        if let Some(said) = request.hash.as_deref().filter(|said| !said.is_empty()) {
            let found = format!("sha256:{}", file_hash::hex(&file_hash::of_file(&blob)?));
            if found != said {
                return Err(invalid(format!("what came is {found}, not {said}")));
            }
        }
        let to = place(&self.kept, &request.name);
        let written = match form {
            UploadFormat::Zip => artifact_zip::to_tar(&blob, &to),
            UploadFormat::File => alone(&blob, &request.name, &to),
        };
        let WrittenTar { digest, size } = written.map_err(|why| {
            // Don't leave an incomplete artifact.
            let _ = std::fs::remove_file(&to);
            invalid(why)
        })?;
        Ok(self.shelf.put(request.name.clone(), to, digest, size))
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<u8>, TwirpError> {
        let (run, job) = &self.ids;
        let wanted = |kept: &ArtifactEntry| {
            let name = request.name_filter.as_ref();
            name.is_none_or(|name| *name == kept.name)
                && request.id_filter.is_none_or(|id| id == kept.id())
        };
        let all = self.shelf.all().into_iter().filter(wanted);
        // Without digests: clients would compare them with the zip, but they are those of the tar.
        let listed = all.map(|kept| ArtifactListing {
            workflow_run_backend_id: run.clone(),
            workflow_job_run_backend_id: job.clone(),
            database_id: kept.id().to_string(),
            size: kept.size.to_string(),
            created_at: kept.at.to_string(),
            name: kept.name,
        });
        twirp::write(&serde_json::json!({ "artifacts": listed.collect::<Vec<_>>() }))
    }

    async fn offer(
        self: &Arc<Self>,
        request: NameRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let kept = self.shelf.get(&request.name).ok_or_else(not_there)?;
        let this = Arc::clone(self);
        let zip = aside(move || this.zipped(&kept)).await?;
        let (id, signature) = self.blobs.offer(zip)?;
        let url = address.of("artifacts", id, &signature);
        twirp::write(&serde_json::json!({ "signed_url": url }))
    }

    /// The artifact as a zip, created once.
    fn zipped(&self, kept: &ArtifactEntry) -> Result<PathBuf, TwirpError> {
        let zip = self.scratch.join(format!("{}.zip", kept.id()));
        if zip.exists() {
            return Ok(zip);
        }
        let unique = super::runtime_secret::RuntimeSecret::random()?;
        let folder = self.scratch.join(unique.as_str());
        let part = folder.with_extension("part");
        std::fs::create_dir_all(&self.scratch)?;
        let made = artifact_zip::of_tar(&kept.path, &kept.digest, &folder, &part);
        made.map_err(|why| {
            let name = &kept.name;
            TwirpError::new(
                TwirpCode::Internal,
                format!("the artifact {name} can't be read: {why}"),
            )
        })?;
        std::fs::rename(part, &zip)?;
        Ok(zip)
    }

    fn delete(&self, request: &NameRequest) -> Result<Vec<u8>, TwirpError> {
        let gone = self.shelf.remove(&request.name).ok_or_else(not_there)?;
        twirp::write(&serde_json::json!({ "ok": true, "artifact_id": gone.id().to_string() }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, PendingUpload>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_there() -> TwirpError {
    TwirpError::new(TwirpCode::NotFound, "there is no artifact of this name")
}

/// Writes a tar with one file.
fn alone(file: &Path, name: &str, to: &Path) -> Result<WrittenTar, String> {
    let open = File::open(file).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size, file) = open.map_err(|error| error.to_string())?;
    let mut builder = artifact_tar::TarWriter::create(to)?;
    builder.file(Path::new(name), 0o644, size, file)?;
    builder.finish()
}

/// A new path for an artifact. Never an existing one, which the journal may refer to.
pub(crate) fn place(folder: &Path, name: &str) -> PathBuf {
    let mut path = folder.join(format!("{name}.tar"));
    for number in 2.. {
        if !path.exists() {
            break;
        }
        path = folder.join(format!("{name}.{number}.tar"));
    }
    path
}
