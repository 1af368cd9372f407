//! Files that a job leaves, brought into the blobs: artifacts and reports of tests.
//!
//! # Invariants
//!
//! - A job whose artifact or report is not in the blobs never succeeds.
//! - A blob that is there is read before it is trusted: a damaged one is replaced by the right bytes.
//! - Only the job's own files are read, because [`JobFiles::open_file`] refuses others.
//!
//! # Failure modes
//!
//! A full disk is retried with backoff and up to a limit, and the job's conclusion waits: an operator may free space. All other errors
//! are final.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shipway_core::{access::JobIdentity, ids::Digest};
use shipway_drivers::jobs::{JobFileError, JobFiles};
use shipway_engine::{BlobError, Blobs};
use tokio::time::Instant;

/// The first pause before a file is stored again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Stores files of jobs; knows which of them wait for space.
pub struct FileStorage {
    /// How long a file waits for space.
    wait: Duration,
    /// Files that wait, with the reason.
    waiting: Mutex<BTreeMap<PathBuf, String>>,
}

/// A file that a job has left.
pub(crate) struct JobFile<'a> {
    /// Where the job's files are.
    pub files: &'a dyn JobFiles,
    pub job: &'a JobIdentity,
    /// The file, as the job's journal names it.
    pub path: &'a Path,
    /// `sha256:…` of its bytes.
    pub digest: &'a str,
    /// `the artifact app`
    pub noun: &'a str,
}

/// Why a file is not in the blobs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// The journal names a digest that is none.
    #[error(transparent)]
    Digest(#[from] shipway_core::ids::ParseIdError),
    /// It can't be opened.
    #[error(transparent)]
    File(#[from] JobFileError),
    /// The blobs refuse it.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl StorageError {
    /// Whether the same may succeed later: space is freed, files are closed.
    fn is_temporary(&self) -> bool {
        let (Self::Blob(BlobError::Io { source, .. })
        | Self::File(JobFileError::Unreadable { source, .. })) = self
        else {
            return false;
        };
        let open_files = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory
        ) || open_files
            .iter()
            .any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

impl FileStorage {
    /// Files wait for space for at most `wait`.
    #[must_use]
    pub fn new(wait: Duration) -> Self {
        Self {
            wait,
            waiting: Mutex::default(),
        }
    }

    /// Why a file waits for space, while one does.
    pub fn delay_reason(&self) -> Option<String> {
        self.waiting().values().next().cloned()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a file, again and again while the reason may go away. `on_wait` is called with the reason when it begins to wait.
    pub(crate) async fn store<F: Future<Output = ()> + Send>(
        &self,
        blobs: &dyn Blobs,
        file: &JobFile<'_>,
        on_wait: impl FnOnce(String) -> F + Send,
    ) -> Result<Digest, StorageError> {
        let mut on_wait = Some(on_wait);
        let deadline = Instant::now() + self.wait;
        let mut pause = PAUSE_MIN.min(self.wait);
        let _waiting = WaitingFile(self, file.path);
        loop {
            let error = match store_once(blobs, file).await {
                Ok(digest) => return Ok(digest),
                Err(error) => error,
            };
            if !error.is_temporary() || Instant::now() >= deadline {
                return Err(error);
            }
            let (noun, left) = (file.noun, deadline - Instant::now());
            let left = left.as_secs().max(1);
            let reason = format!("{noun} can't be stored: {error}; retrying for up to {left} s");
            tracing::warn!(noun, %error, left_s = left, "a file of a job can't be stored yet");
            self.waiting().insert(file.path.to_owned(), reason.clone());
            if let Some(on_wait) = on_wait.take() {
                on_wait(reason).await;
            }
            tokio::time::sleep(pause.min(deadline - Instant::now())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Ends a file's waiting when it is stored, refused or no longer wanted.
struct WaitingFile<'a>(&'a FileStorage, &'a Path);

impl Drop for WaitingFile<'_> {
    fn drop(&mut self) {
        self.0.waiting().remove(self.1);
    }
}

async fn store_once(blobs: &dyn Blobs, file: &JobFile<'_>) -> Result<Digest, StorageError> {
    let digest: Digest = file.digest.parse()?;
    // After a crash the journal is read again, and the blob is there already.
    match blobs.file(&digest).await {
        // A blob that was removed at this moment is stored again.
        Ok(_) if blobs.renew(&digest).await? => return Ok(digest),
        Ok(_) => {}
        Err(BlobError::Damaged { actual, .. }) => {
            tracing::warn!(%digest, %actual, noun = file.noun, "a damaged blob is replaced");
        }
        Err(BlobError::Missing(_) | BlobError::Removed { .. } | BlobError::Io { .. }) => {}
    }
    let bytes = file.files.open_file(file.job, file.path).await?;
    Ok(blobs.put_expecting(bytes, &digest).await?.digest)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use shipway_core::retention::BlobRecord;
    use shipway_engine::{Reader, StoredBlob};
    use shipway_store::FileBlobs;

    use super::*;

    /// Blobs on a disk that is full for the first writes.
    struct FullDisk {
        blobs: FileBlobs,
        full: AtomicUsize,
        error: io::ErrorKind,
    }

    #[async_trait]
    impl Blobs for FullDisk {
        async fn put(&self, source: Reader) -> Result<StoredBlob, BlobError> {
            self.blobs.put(source).await
        }
        async fn put_expecting(
            &self,
            source: Reader,
            expected: &Digest,
        ) -> Result<StoredBlob, BlobError> {
            let left = self.full.load(Ordering::Relaxed);
            if left > 0 {
                self.full.store(left - 1, Ordering::Relaxed);
                return Err(BlobError::Io {
                    what: "writing".to_owned(),
                    source: self.error.into(),
                });
            }
            self.blobs.put_expecting(source, expected).await
        }
        async fn open(&self, digest: &Digest) -> Result<Reader, BlobError> {
            self.blobs.open(digest).await
        }
        async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
            self.blobs.size(digest).await
        }
        async fn file(&self, digest: &Digest) -> Result<PathBuf, BlobError> {
            self.blobs.file(digest).await
        }
        async fn renew(&self, digest: &Digest) -> Result<bool, BlobError> {
            self.blobs.renew(digest).await
        }
        async fn list(&self) -> Result<Vec<BlobRecord>, BlobError> {
            self.blobs.list().await
        }
        async fn remove_unused(
            &self,
            blobs: Vec<BlobRecord>,
            used_since: jiff::Timestamp,
        ) -> Result<Vec<BlobRecord>, BlobError> {
            self.blobs.remove_unused(blobs, used_since).await
        }
        async fn delete(&self, digest: &Digest) -> Result<(), BlobError> {
            self.blobs.delete(digest).await
        }
    }

    /// Files of a job on this machine.
    struct FilesOfJob;

    #[async_trait]
    impl JobFiles for FilesOfJob {
        async fn open_file(&self, _: &JobIdentity, path: &Path) -> Result<Reader, JobFileError> {
            match tokio::fs::File::open(path).await {
                Ok(file) => Ok(Box::pin(file)),
                Err(source) => Err(JobFileError::Unreadable {
                    path: path.to_owned(),
                    source,
                }),
            }
        }
    }

    struct Setup {
        root: tempfile::TempDir,
        disk: FullDisk,
    }

    impl Setup {
        fn new(full: usize, error: io::ErrorKind) -> Self {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("job")).unwrap();
            std::fs::write(root.path().join("job/app.tar"), "right").unwrap();
            let blobs = FileBlobs::open(&root.path().join("blobs")).unwrap();
            let full = full.into();
            let disk = FullDisk { blobs, full, error };
            Self { root, disk }
        }

        async fn store(&self, wait: Duration, path: &str) -> (Result<Digest, StorageError>, usize) {
            let storage = FileStorage::new(wait);
            let waits = AtomicUsize::new(0);
            let file = JobFile {
                files: &FilesOfJob,
                job: &JobIdentity {
                    run: "shop/r1".parse().unwrap(),
                    key: "build".parse().unwrap(),
                    attempt: 1,
                },
                path: &self.root.path().join(path),
                digest: &Digest::compute(b"right").to_string(),
                noun: "the artifact app",
            };
            let stored = storage
                .store(&self.disk, &file, |reason: String| {
                    assert!(
                        reason.starts_with("the artifact app can't be stored"),
                        "{reason}"
                    );
                    assert_eq!(storage.delay_reason(), Some(reason));
                    waits.fetch_add(1, Ordering::Relaxed);
                    std::future::ready(())
                })
                .await;
            assert_eq!(storage.delay_reason(), None);
            (stored, waits.into_inner())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_waits_for_space_and_is_stored_when_there_is_some() {
        let setup = Setup::new(5, io::ErrorKind::StorageFull);
        let (stored, waits) = setup.store(Duration::from_secs(900), "job/app.tar").await;
        assert_eq!(stored.unwrap(), Digest::compute(b"right"));
        assert_eq!(waits, 1, "it is told once");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_space_ends_and_other_errors_are_final() {
        let setup = Setup::new(usize::MAX, io::ErrorKind::StorageFull);
        let begun = Instant::now();
        let (stored, _) = setup.store(Duration::from_secs(60), "job/app.tar").await;
        assert!(matches!(stored, Err(StorageError::Blob(_))), "{stored:?}");
        assert!((60..62).contains(&begun.elapsed().as_secs()));
        let setup = Setup::new(1, io::ErrorKind::PermissionDenied);
        let (stored, waits) = setup.store(Duration::from_secs(60), "job/app.tar").await;
        assert!(stored.is_err() && waits == 0);
    }

    #[tokio::test]
    async fn a_damaged_blob_is_replaced_by_the_right_bytes() {
        let setup = Setup::new(0, io::ErrorKind::Other);
        let digest = Digest::compute(b"right");
        let store = async || setup.store(Duration::ZERO, "job/app.tar").await.0;
        store().await.unwrap();
        let path = setup.disk.file(&digest).await.unwrap();
        std::fs::write(&path, "wrong").unwrap();
        assert!(setup.disk.file(&digest).await.is_err());
        store().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"right");
    }
}
