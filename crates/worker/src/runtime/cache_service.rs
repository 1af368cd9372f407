//! `github.actions.results.api.v1.CacheService`: the cache API of the toolkit's version 4.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use serde_json::json;

use super::{
    request_address::RequestAddress,
    runtime_secret::RuntimeSecret,
    signed_blobs::SignedBlobs,
    twirp::{self, TwirpCode, TwirpError, run_blocking_call},
};
use crate::cache::{CacheEntry, JobCaches, SaveCacheError, check_key};

pub(super) struct CacheService {
    /// `None` if the job has no cache store.
    caches: Option<JobCaches>,
    blobs: Arc<SignedBlobs>,
    /// The folder that entries are linked to for downloads.
    scratch: PathBuf,
    /// Unfinished uploads by key and version.
    begun: Mutex<HashMap<(String, String), u64>>,
}

#[derive(Deserialize)]
struct CreateCacheRequest {
    key: String,
    version: String,
}

#[derive(Deserialize)]
struct FinalizeCacheRequest {
    key: String,
    version: String,
    #[serde(
        default,
        alias = "sizeBytes",
        deserialize_with = "twirp::deserialize_number"
    )]
    size_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct FindCacheRequest {
    key: String,
    version: String,
    #[serde(default, alias = "restoreKeys")]
    restore_keys: Vec<String>,
}

impl CacheService {
    pub(super) fn new(
        caches: Option<JobCaches>,
        blobs: Arc<SignedBlobs>,
        scratch: PathBuf,
    ) -> Self {
        Self {
            caches,
            blobs,
            scratch,
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
            "CreateCacheEntry" => self.create_upload(twirp::parse_request(body)?, address),
            "FinalizeCacheEntryUpload" => self.finalize_upload(twirp::parse_request(body)?).await,
            "GetCacheEntryDownloadURL" => {
                self.sign_download(twirp::parse_request(body)?, address)
                    .await
            }
            _ => Err(TwirpError::new(
                TwirpCode::BadRoute,
                format!("no such method: {method}"),
            )),
        }
    }

    fn create_upload(
        &self,
        request: CreateCacheRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let CreateCacheRequest { key, version } = request;
        check_key(&key)
            .map_err(|error| TwirpError::new(TwirpCode::InvalidArgument, error.to_string()))?;
        let Some(caches) = &self.caches else {
            let answer = json!({ "ok": false, "message": "this run has no cache storage" });
            return twirp::serialize_response(&answer);
        };
        if caches.has_entry(&version, &key) {
            return Err(TwirpError::new(
                TwirpCode::AlreadyExists,
                SaveCacheError::Taken.to_string(),
            ));
        }
        let (upload, signature) = self.blobs.open_upload()?;
        if let Some(given_up) = self.lock_uploads().insert((key, version), upload) {
            self.blobs.close_upload(given_up);
        }
        let url = address.signed_url("caches", upload, &signature);
        twirp::serialize_response(&json!({ "ok": true, "signed_upload_url": url }))
    }

    async fn finalize_upload(
        self: &Arc<Self>,
        request: FinalizeCacheRequest,
    ) -> Result<Vec<u8>, TwirpError> {
        let FinalizeCacheRequest {
            key,
            version,
            size_bytes,
        } = request;
        let not_begun =
            || TwirpError::new(TwirpCode::NotFound, "no upload for this key was started");
        let upload = self.lock_uploads().remove(&(key.clone(), version.clone()));
        let upload = upload.and_then(|upload| self.blobs.close_upload(upload));
        let (upload, caches) = upload.zip(self.caches.clone()).ok_or_else(not_begun)?;
        let entry = run_blocking_call(move || {
            let invalid = |why: String| TwirpError::new(TwirpCode::InvalidArgument, why);
            let blob = upload.blob_path();
            let blob = blob.ok_or_else(|| invalid("nothing was uploaded".to_owned()))?;
            let size = blob.metadata()?.len();
            if let Some(said) = size_bytes.filter(|said| *said != size) {
                return Err(invalid(format!("{size} bytes received, not {said}")));
            }
            caches
                .save_entry(&version, &key, &blob)
                .map_err(twirp_error)
        });
        let entry = entry.await?;
        twirp::serialize_response(
            &json!({ "ok": true, "entry_id": entry.numeric_id().to_string() }),
        )
    }

    async fn sign_download(
        self: &Arc<Self>,
        request: FindCacheRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let this = Arc::clone(self);
        let found = run_blocking_call(move || this.find_entry(&request)).await?;
        let Some((entry, path)) = found else {
            return twirp::serialize_response(&json!({ "ok": false }));
        };
        let (id, signature) = self.blobs.sign_readable(path)?;
        twirp::serialize_response(&json!({
            "ok": true,
            "signed_download_url": address.signed_url("caches", id, &signature),
            "matched_key": entry.key,
        }))
    }

    fn find_entry(
        &self,
        request: &FindCacheRequest,
    ) -> Result<Option<(CacheEntry, PathBuf)>, TwirpError> {
        let Some(caches) = &self.caches else {
            return Ok(None);
        };
        let found = caches.find_entry(&request.version, &request.key, &request.restore_keys);
        let Some(entry) = found
            .map_err(|error| TwirpError::new(TwirpCode::InvalidArgument, error.to_string()))?
        else {
            return Ok(None);
        };
        std::fs::create_dir_all(&self.scratch)?;
        let to = self.scratch.join(RuntimeSecret::random()?.as_str());
        match caches.link_entry(&entry, &to) {
            Ok(path) => Ok(Some((entry, path))),
            // Another job has evicted the entry meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn lock_uploads(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), u64>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn twirp_error(error: SaveCacheError) -> TwirpError {
    let code = match &error {
        SaveCacheError::Taken => TwirpCode::AlreadyExists,
        SaveCacheError::TooLarge { .. } | SaveCacheError::Key(_) => TwirpCode::InvalidArgument,
        SaveCacheError::Io(_) => TwirpCode::Internal,
    };
    TwirpError::new(code, error.to_string())
}
