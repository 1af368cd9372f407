//! Immutable blobs as files named by their digest: `sha256/ab/cdef…`. Written to a temporary file, fsynced and renamed: a name
//! never refers to an incomplete file.
//!
//! # Removal
//!
//! - The modification time of a file is the time of its last use: it was stored or renewed then.
//! - Storing, renewing and removing a file exclude each other, so that a file that is used is not removed at the same moment.
//! - `removed` has a line for each file before it is removed: a file that is missing without one was lost.

use std::{
    io::{self, BufRead as _, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use shipway_core::{ids::Digest, retention::BlobRecord};
use shipway_engine::{BlobError, Blobs, Reader, StoredBlob};
use tokio::{
    fs::{self, File},
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
};
use uuid::Uuid;

/// Bytes copied per read.
const CHUNK: usize = 256 * 1024;

/// Blobs in a folder.
#[derive(Clone, Debug)]
pub struct FileBlobs {
    root: PathBuf,
    /// Held while a file is renamed to its digest, renewed or removed.
    names: Arc<Mutex<()>>,
}

impl FileBlobs {
    /// Opens the folder, creating it if missing. Incomplete files of a crash are removed.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root.join("sha256"))?;
        let unfinished = root.join("unfinished");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        std::fs::create_dir_all(&unfinished)?;
        Ok(Self {
            root: root.to_owned(),
            names: Arc::default(),
        })
    }

    fn lock_names(&self) -> MutexGuard<'_, ()> {
        // Nothing panics while it is held.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew_file(&self, digest: &Digest) -> io::Result<bool> {
        let _guard = self.lock_names();
        match std::fs::File::open(self.path(digest)) {
            Ok(file) => file.set_modified(SystemTime::now()).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list_files(&self) -> io::Result<Vec<BlobRecord>> {
        let mut blobs = Vec::new();
        for folder in std::fs::read_dir(self.root.join("sha256"))? {
            let folder = folder?;
            for file in std::fs::read_dir(folder.path())? {
                let file = file?;
                let (start, end) = (folder.file_name(), file.file_name());
                let hex = format!("{}{}", start.to_string_lossy(), end.to_string_lossy());
                let Ok(digest) = format!("sha256:{hex}").parse() else {
                    continue;
                };
                blobs.push(blob_record(digest, &file.metadata()?)?);
            }
        }
        Ok(blobs)
    }

    /// Removes a file unless it was used; none if it is missing or stays.
    fn remove_file(
        &self,
        digest: &Digest,
        used_since: Timestamp,
    ) -> io::Result<Option<BlobRecord>> {
        let _guard = self.lock_names();
        let path = self.path(digest);
        let metadata = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        let blob = blob_record(digest.clone(), &metadata)?;
        if blob.used_at >= used_since {
            return Ok(None);
        }
        std::fs::remove_file(path)?;
        Ok(Some(blob))
    }

    fn remove_files(
        &self,
        blobs: &[BlobRecord],
        used_since: Timestamp,
    ) -> io::Result<Vec<BlobRecord>> {
        self.record_removal(blobs)?;
        let mut removed = Vec::new();
        for blob in blobs {
            match self.remove_file(&blob.digest, used_since) {
                Ok(file) => removed.extend(file),
                Err(error) => {
                    tracing::warn!(%error, digest = %blob.digest, "a blob can't be removed")
                }
            }
        }
        Ok(removed)
    }

    fn removed_path(&self) -> PathBuf {
        self.root.join("removed")
    }

    /// Appends a line for each blob, durably.
    fn record_removal(&self, blobs: &[BlobRecord]) -> io::Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let now = Timestamp::now();
        // A crash may have left an incomplete line, which must not become part of the next one.
        let lines = blobs.iter().map(|blob| format!("\n{} {now}", blob.digest));
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.removed_path())?;
        file.write_all(lines.collect::<String>().as_bytes())?;
        file.sync_all()?;
        std::fs::File::open(&self.root)?.sync_all()
    }

    /// When a blob was last removed, if it was.
    fn read_removal(&self, digest: &Digest) -> io::Result<Option<Timestamp>> {
        let file = match std::fs::File::open(self.removed_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let (name, mut removed) = (digest.to_string(), None);
        for line in io::BufReader::new(file).lines() {
            let line = line?;
            let time = line.split_once(' ').filter(|(digest, _)| *digest == name);
            removed = time.and_then(|(_, time)| time.parse().ok()).or(removed);
        }
        Ok(removed)
    }

    /// The error of a blob that isn't there.
    async fn missing_error(&self, digest: &Digest) -> BlobError {
        let (blobs, name) = (self.clone(), digest.clone());
        let read = run_blocking(move || blobs.read_removal(&name)).await;
        match read {
            Ok(Some(at)) => BlobError::Removed {
                digest: digest.clone(),
                at,
            },
            Ok(None) => BlobError::Missing(digest.clone()),
            Err(source) => BlobError::Io {
                what: format!("finding {digest}"),
                source,
            },
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let (folder, name) = digest.hex().split_at(2);
        self.root.join("sha256").join(folder).join(name)
    }

    /// Renames a finished file to its digest, durably. It replaces an existing file, which has the same bytes, is damaged, or
    /// whose name is not durable yet.
    async fn rename_durably(&self, finished: &TemporaryFile, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        let folder = path.parent().expect("a blob is in a folder");
        fs::create_dir_all(folder).await?;
        self.rename_as_used(&finished.0, &path)?;
        sync_folder(folder).await?;
        sync_folder(&self.root.join("sha256")).await
    }

    /// The time is set as well: that of a written file is that of the last tick of the kernel's clock.
    fn rename_as_used(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _guard = self.lock_names();
        std::fs::File::open(from)?.set_modified(SystemTime::now())?;
        std::fs::rename(from, to)
    }

    async fn store_verified(
        &self,
        mut source: Reader,
        expected: Option<&Digest>,
    ) -> Result<StoredBlob, BlobError> {
        let unfinished = TemporaryFile(
            self.root
                .join("unfinished")
                .join(Uuid::now_v7().to_string()),
        );
        let failed = |what: &str| {
            let what = format!("{what} {}", unfinished.0.display());
            move |source| BlobError::Io { what, source }
        };
        let mut file = File::create_new(&unfinished.0)
            .await
            .map_err(failed("creating"))?;
        let (mut hash, mut size, mut chunk) = (Sha256::new(), 0u64, vec![0; CHUNK]);
        loop {
            let count = source
                .read(&mut chunk)
                .await
                .map_err(|source| BlobError::Io {
                    what: "reading the bytes to store".to_owned(),
                    source,
                })?;
            if count == 0 {
                break;
            }
            hash.update(&chunk[..count]);
            size += count as u64;
            file.write_all(&chunk[..count])
                .await
                .map_err(failed("writing"))?;
        }
        let digest = Digest::from_hash(
            hash.finalize()
                .as_slice()
                .try_into()
                .expect("SHA-256 has 32 bytes"),
        );
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(BlobError::Damaged {
                expected: expected.clone(),
                actual: digest,
            });
        }
        file.sync_all().await.map_err(failed("writing"))?;
        self.rename_durably(&unfinished, &digest)
            .await
            .map_err(failed("placing"))?;
        Ok(StoredBlob { digest, size })
    }
}

fn blob_record(digest: Digest, file: &std::fs::Metadata) -> io::Result<BlobRecord> {
    Ok(BlobRecord {
        digest,
        size: file.len(),
        used_at: Timestamp::try_from(file.modified()?).map_err(io::Error::other)?,
    })
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

/// Makes the names in a folder durable.
async fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).await?.sync_all().await
}

/// A temporary file that is removed unless it was renamed.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // Fails after the rename; otherwise the next start removes it as well.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[async_trait]
impl Blobs for FileBlobs {
    async fn put(&self, source: Reader) -> Result<StoredBlob, BlobError> {
        self.store_verified(source, None).await
    }

    async fn put_expecting(
        &self,
        source: Reader,
        expected: &Digest,
    ) -> Result<StoredBlob, BlobError> {
        self.store_verified(source, Some(expected)).await
    }

    async fn open(&self, digest: &Digest) -> Result<Reader, BlobError> {
        match File::open(self.path(digest)).await {
            Ok(file) => Ok(Box::pin(VerifiedReader {
                file,
                hash: Sha256::new(),
                expected: digest.clone(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.missing_error(digest).await)
            }
            Err(source) => Err(BlobError::Io {
                what: format!("opening {digest}"),
                source,
            }),
        }
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match fs::metadata(self.path(digest)).await {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Io {
                what: format!("finding {digest}"),
                source,
            }),
        }
    }

    async fn file(&self, digest: &Digest) -> Result<PathBuf, BlobError> {
        let mut reader = self.open(digest).await?;
        let read = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
        match read {
            Ok(_) => Ok(self.path(digest)),
            Err(error) => Err(read_error(error, digest)),
        }
    }

    async fn renew(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.renew_file(digest).map_err(|source| BlobError::Io {
            what: format!("renewing {digest}"),
            source,
        })
    }

    async fn list(&self) -> Result<Vec<BlobRecord>, BlobError> {
        let blobs = self.clone();
        let listed = run_blocking(move || blobs.list_files()).await;
        listed.map_err(|source| BlobError::Io {
            what: "listing the blobs".to_owned(),
            source,
        })
    }

    async fn remove_unused(
        &self,
        blobs: Vec<BlobRecord>,
        used_since: Timestamp,
    ) -> Result<Vec<BlobRecord>, BlobError> {
        let files = self.clone();
        let removed = run_blocking(move || files.remove_files(&blobs, used_since)).await;
        removed.map_err(|source| BlobError::Io {
            what: "recording which blobs are removed".to_owned(),
            source,
        })
    }

    async fn delete(&self, digest: &Digest) -> Result<(), BlobError> {
        match fs::remove_file(self.path(digest)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::Io {
                what: format!("deleting {digest}"),
                source: error,
            }),
            _ => Ok(()),
        }
    }
}

/// The error of a verified reader at the end of damaged bytes.
#[derive(Debug, thiserror::Error)]
#[error("the bytes are {0}")]
struct OtherBytes(Digest);

fn read_error(error: io::Error, expected: &Digest) -> BlobError {
    let actual = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<OtherBytes>())
        .map(|other| other.0.clone());
    match actual {
        Some(actual) => BlobError::Damaged {
            expected: expected.clone(),
            actual,
        },
        None => BlobError::Io {
            what: format!("reading {expected}"),
            source: error,
        },
    }
}

/// Reads a file and fails at its end if the bytes don't match the digest.
struct VerifiedReader {
    file: File,
    hash: Sha256,
    expected: Digest,
}

impl AsyncRead for VerifiedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.file).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = &polled {
            let new = &buffer.filled()[before..];
            if new.is_empty() && buffer.remaining() > 0 {
                let hash = self.hash.clone().finalize();
                let actual =
                    Digest::from_hash(hash.as_slice().try_into().expect("SHA-256 has 32 bytes"));
                if actual != self.expected {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        OtherBytes(actual),
                    )));
                }
            } else {
                self.hash.update(new);
            }
        }
        polled
    }
}
