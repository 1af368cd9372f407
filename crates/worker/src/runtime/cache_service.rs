//! `github.actions.results.api.v1.CacheService`: the cache API of the toolkit's version 4.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use serde_json::json;

use super::{
    http_server::{RequestAddress, aside},
    runtime_secret::RuntimeSecret,
    signed_blobs::SignedBlobs,
    twirp::{self, TwirpCode, TwirpError},
};
use crate::cache::{CacheEntry, JobCaches, SaveCacheError, checked_key};

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
struct CreateRequest {
    key: String,
    version: String,
}

#[derive(Deserialize)]
struct FinalizeRequest {
    key: String,
    version: String,
    #[serde(default, alias = "sizeBytes", deserialize_with = "twirp::number")]
    size_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct FindRequest {
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
    pub(super) async fn call(
        self: &Arc<Self>,
        method: &str,
        body: &[u8],
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        match method {
            "CreateCacheEntry" => self.create(twirp::read(body)?, address),
            "FinalizeCacheEntryUpload" => self.finalize(twirp::read(body)?).await,
            "GetCacheEntryDownloadURL" => self.offer(twirp::read(body)?, address).await,
            _ => Err(TwirpError::new(
                TwirpCode::BadRoute,
                format!("there is no {method}"),
            )),
        }
    }

    fn create(
        &self,
        request: CreateRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let CreateRequest { key, version } = request;
        checked_key(&key).map_err(|why| TwirpError::new(TwirpCode::InvalidArgument, why))?;
        let Some(caches) = &self.caches else {
            let answer = json!({ "ok": false, "message": "this run has nowhere to keep caches" });
            return twirp::write(&answer);
        };
        if caches.has(&version, &key) {
            return Err(TwirpError::new(
                TwirpCode::AlreadyExists,
                SaveCacheError::Taken.to_string(),
            ));
        }
        let (upload, signature) = self.blobs.open()?;
        if let Some(given_up) = self.lock().insert((key, version), upload) {
            self.blobs.close(given_up);
        }
        let url = address.of("caches", upload, &signature);
        twirp::write(&json!({ "ok": true, "signed_upload_url": url }))
    }

    async fn finalize(self: &Arc<Self>, request: FinalizeRequest) -> Result<Vec<u8>, TwirpError> {
        let FinalizeRequest {
            key,
            version,
            size_bytes,
        } = request;
        let not_begun = || TwirpError::new(TwirpCode::NotFound, "no upload for this key was begun");
        let upload = self.lock().remove(&(key.clone(), version.clone()));
        let upload = upload.and_then(|upload| self.blobs.close(upload));
        let (upload, caches) = upload.zip(self.caches.clone()).ok_or_else(not_begun)?;
        let entry = aside(move || {
            let invalid = |why: String| TwirpError::new(TwirpCode::InvalidArgument, why);
            let blob = upload.blob();
            let blob = blob.ok_or_else(|| invalid("nothing was uploaded".to_owned()))?;
            let size = blob.metadata()?.len();
            if let Some(said) = size_bytes.filter(|said| *said != size) {
                return Err(invalid(format!("{size} bytes came, not {said}")));
            }
            caches.put(&version, &key, &blob).map_err(refused)
        });
        let entry = entry.await?;
        twirp::write(&json!({ "ok": true, "entry_id": entry.number().to_string() }))
    }

    async fn offer(
        self: &Arc<Self>,
        request: FindRequest,
        address: &RequestAddress,
    ) -> Result<Vec<u8>, TwirpError> {
        let this = Arc::clone(self);
        let found = aside(move || this.find(&request)).await?;
        let Some((entry, path)) = found else {
            return twirp::write(&json!({ "ok": false }));
        };
        let (id, signature) = self.blobs.offer(path)?;
        twirp::write(&json!({
            "ok": true,
            "signed_download_url": address.of("caches", id, &signature),
            "matched_key": entry.key,
        }))
    }

    fn find(&self, request: &FindRequest) -> Result<Option<(CacheEntry, PathBuf)>, TwirpError> {
        let Some(caches) = &self.caches else {
            return Ok(None);
        };
        let found = caches.find(&request.version, &request.key, &request.restore_keys);
        let Some(entry) = found.map_err(|why| TwirpError::new(TwirpCode::InvalidArgument, why))?
        else {
            return Ok(None);
        };
        std::fs::create_dir_all(&self.scratch)?;
        let to = self.scratch.join(RuntimeSecret::random()?.as_str());
        match caches.lend(&entry, &to) {
            Ok(path) => Ok(Some((entry, path))),
            // Another job has evicted the entry meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), u64>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: SaveCacheError) -> TwirpError {
    let code = match &error {
        SaveCacheError::Taken => TwirpCode::AlreadyExists,
        SaveCacheError::TooLarge { .. } | SaveCacheError::Key(_) => TwirpCode::InvalidArgument,
        SaveCacheError::Io(_) => TwirpCode::Internal,
    };
    TwirpError::new(code, error.to_string())
}
