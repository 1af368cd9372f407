//! Immutable blobs as files named by their digest: `sha256/ab/cdef…`. Written to a temporary file, fsynced and renamed: a name
//! never refers to an incomplete file.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use shipway_core::ids::Digest;
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
        })
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
        fs::rename(&finished.0, &path).await?;
        sync_folder(folder).await?;
        sync_folder(&self.root.join("sha256")).await
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
                Err(BlobError::Missing(digest.clone()))
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
