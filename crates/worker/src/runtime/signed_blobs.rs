//! Files behind signed URLs, with the API of Azure's blob storage: put whole or in blocks, read whole or by range.
//!
//! Implements only what the toolkit's clients use: `PUT` of a blob, `comp=block`, `comp=blocklist`, `HEAD`, and `GET`
//! with a range. A signature is valid for one file, either for writing or for reading.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::runtime_secret::RuntimeSecret;
use crate::file_hash;

/// GitHub's limit for caches.
pub(super) const UPLOAD_BYTES_MAX: u64 = 10 << 30;
/// Azure's limit.
const BLOCKS_MAX: usize = 50_000;

/// Open uploads and readable files.
pub(super) struct SignedBlobs {
    /// The folder of uploads.
    folder: PathBuf,
    slots: Mutex<BlobSlots>,
}

#[derive(Default)]
struct BlobSlots {
    next: u64,
    open: HashMap<u64, BlobSlot>,
}

struct BlobSlot {
    signature: RuntimeSecret,
    file: BlobAccess,
}

#[derive(Clone)]
enum BlobAccess {
    /// An upload: the folder for the blob and its blocks.
    Write(PathBuf),
    /// A download: the file.
    Read(PathBuf),
}

/// An error response, with Azure's codes.
#[derive(Debug)]
pub(super) struct BlobResponseError {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) why: String,
}

impl BlobResponseError {
    pub(super) fn new(status: u16, code: &'static str, why: impl Into<String>) -> Self {
        Self {
            status,
            code,
            why: why.into(),
        }
    }
}

impl From<io::Error> for BlobResponseError {
    fn from(error: io::Error) -> Self {
        Self::new(500, "InternalError", error.to_string())
    }
}

impl SignedBlobs {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            slots: Mutex::default(),
        }
    }

    /// Opens an upload; returns its id and signature.
    pub(super) fn open_upload(&self) -> io::Result<(u64, RuntimeSecret)> {
        let mut slots = self.lock_slots();
        let folder = self.folder.join(slots.next.to_string());
        fs::create_dir_all(&folder)?;
        slots.add_slot(BlobAccess::Write(folder))
    }

    /// Makes a file readable; returns its id and signature.
    pub(super) fn sign_readable(&self, path: PathBuf) -> io::Result<(u64, RuntimeSecret)> {
        self.lock_slots().add_slot(BlobAccess::Read(path))
    }

    /// Closes an upload.
    pub(super) fn close_upload(&self, id: u64) -> Option<FinishedUpload> {
        match self.lock_slots().open.remove(&id)?.file {
            BlobAccess::Write(folder) => Some(FinishedUpload { folder }),
            BlobAccess::Read(_) => None,
        }
    }

    /// The path of a file that may be read with this signature.
    pub(super) fn readable_path(
        &self,
        id: u64,
        signature: &str,
    ) -> Result<PathBuf, BlobResponseError> {
        match self.check_signature(id, signature)? {
            BlobAccess::Read(path) => Ok(path),
            BlobAccess::Write(_) => Err(BlobResponseError::new(
                403,
                "AuthorizationPermissionMismatch",
                "this URL is only for writing",
            )),
        }
    }

    fn writable_folder(&self, id: u64, signature: &str) -> Result<PathBuf, BlobResponseError> {
        match self.check_signature(id, signature)? {
            BlobAccess::Write(folder) => Ok(folder),
            BlobAccess::Read(_) => Err(BlobResponseError::new(
                403,
                "AuthorizationPermissionMismatch",
                "this URL is only for reading",
            )),
        }
    }

    fn check_signature(&self, id: u64, signature: &str) -> Result<BlobAccess, BlobResponseError> {
        let slots = self.lock_slots();
        let slot = slots
            .open
            .get(&id)
            .filter(|slot| slot.signature.matches(signature));
        let refused = || {
            BlobResponseError::new(
                403,
                "AuthenticationFailed",
                "the signature is not the one of this file",
            )
        };
        slot.map(|slot| slot.file.clone()).ok_or_else(refused)
    }

    /// Stores a whole blob.
    pub(super) async fn store_blob(
        &self,
        id: u64,
        sig: &str,
        body: Incoming,
    ) -> Result<(), BlobResponseError> {
        let folder = self.writable_folder(id, sig)?;
        write_body(body, &folder.join("whole.part")).await?;
        Ok(fs::rename(folder.join("whole.part"), folder.join("whole"))?)
    }

    /// Stores a block.
    pub(super) async fn store_block(
        &self,
        id: u64,
        sig: &str,
        block: &str,
        body: Incoming,
    ) -> Result<(), BlobResponseError> {
        let folder = self.writable_folder(id, sig)?;
        let name = block_name(block)?;
        // A random name, so that concurrent attempts at one block don't mix.
        let part = folder.join(format!("{name}.{}", RuntimeSecret::random()?.as_str()));
        write_body(body, &part).await?;
        Ok(fs::rename(part, folder.join(name))?)
    }

    /// Joins blocks to a blob, in the order of the list.
    pub(super) async fn store_block_list(
        &self,
        id: u64,
        sig: &str,
        body: Incoming,
    ) -> Result<(), BlobResponseError> {
        let folder = self.writable_folder(id, sig)?;
        let list = http_body_util::Limited::new(body, 8 << 20).collect().await;
        let list = list.map_err(|error| invalid_input(format!("the block list: {error}")))?;
        let list = String::from_utf8(list.to_bytes().to_vec());
        let names =
            parse_block_list(&list.map_err(|_| invalid_input("the block list is not UTF-8"))?)?;
        let joined = tokio::task::spawn_blocking(move || join_blocks(&folder, &names)).await;
        joined.map_err(io::Error::other)?
    }

    fn lock_slots(&self) -> MutexGuard<'_, BlobSlots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobSlots {
    fn add_slot(&mut self, file: BlobAccess) -> io::Result<(u64, RuntimeSecret)> {
        let (id, signature) = (self.next, RuntimeSecret::random()?);
        self.next += 1;
        let slot = BlobSlot {
            signature: signature.clone(),
            file,
        };
        self.open.insert(id, slot);
        Ok((id, signature))
    }
}

/// A closed upload; its files are removed when it is dropped.
pub(super) struct FinishedUpload {
    folder: PathBuf,
}

impl FinishedUpload {
    /// The blob; `None` if the upload is incomplete.
    pub(super) fn blob_path(&self) -> Option<PathBuf> {
        let path = self.folder.join("whole");
        path.is_file().then_some(path)
    }
}

impl Drop for FinishedUpload {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn invalid_input(why: impl Into<String>) -> BlobResponseError {
    BlobResponseError::new(400, "InvalidInput", why)
}

/// Block ids are arbitrary bytes in base64, which may contain `/`.
fn block_name(id: &str) -> Result<String, BlobResponseError> {
    let bytes = STANDARD
        .decode(id)
        .ok()
        .filter(|bytes| !bytes.is_empty() && bytes.len() <= 64);
    let bytes = bytes.ok_or_else(|| invalid_input("a block id is 1 to 64 bytes as base64"))?;
    Ok(file_hash::to_hex(&bytes))
}

/// Parses `<BlockList><Latest>ID</Latest>…</BlockList>` to file names.
fn parse_block_list(xml: &str) -> Result<Vec<String>, BlobResponseError> {
    let mut names = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let Some(end) = rest.find('>') else { break };
        let (tag, inner) = (&rest[..end], &rest[end + 1..]);
        if matches!(tag, "Latest" | "Uncommitted" | "Committed") {
            let id = inner.split('<').next().unwrap_or_default();
            names.push(block_name(id.trim())?);
        }
        rest = inner;
    }
    if names.len() > BLOCKS_MAX {
        return Err(BlobResponseError::new(
            400,
            "BlockListTooLong",
            "too many blocks",
        ));
    }
    Ok(names)
}

/// Writes a request's body to a file.
async fn write_body(mut body: Incoming, path: &Path) -> Result<(), BlobResponseError> {
    let mut file = File::create(path)?;
    let mut size = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| invalid_input(format!("the upload was interrupted: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        size += data.len() as u64;
        if size > UPLOAD_BYTES_MAX {
            drop(file);
            let _ = fs::remove_file(path);
            return Err(too_large_error());
        }
        file.write_all(&data)?;
    }
    Ok(())
}

fn too_large_error() -> BlobResponseError {
    let why = format!("at most {UPLOAD_BYTES_MAX} bytes are taken");
    BlobResponseError::new(413, "RequestBodyTooLarge", why)
}

/// Joins blocks. `io::copy` uses copy_file_range, which shares extents where the file system can.
fn join_blocks(folder: &Path, names: &[String]) -> Result<(), BlobResponseError> {
    let part = folder.join("whole.part");
    let mut whole = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&part)?;
    let mut size = 0;
    for name in names {
        let block = File::open(folder.join(name)).map_err(|_| {
            BlobResponseError::new(400, "InvalidBlockList", "a block of the list is missing")
        })?;
        size += block.metadata()?.len();
        if size > UPLOAD_BYTES_MAX {
            return Err(too_large_error());
        }
        io::copy(&mut &block, &mut whole)?;
    }
    drop(whole);
    fs::rename(part, folder.join("whole"))?;
    for name in names {
        // Fails for a block that is listed twice.
        let _ = fs::remove_file(folder.join(name));
    }
    Ok(())
}

/// Parses `bytes=FROM-TO`; `None` (the whole file) for other text.
pub(super) fn parse_range(
    header: Option<&str>,
    length: u64,
) -> Result<Option<(u64, u64)>, BlobResponseError> {
    let Some((from, to)) = header
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .and_then(|text| text.split_once('-'))
    else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let found = match (number(from), number(to)) {
        (Some(from), to) => Some((from, to.unwrap_or(u64::MAX).min(length.saturating_sub(1)))),
        (None, Some(last)) if from.is_empty() => {
            Some((length.saturating_sub(last), length.saturating_sub(1)))
        }
        _ => return Ok(None),
    };
    match found {
        Some((from, to)) if from <= to && from < length => Ok(Some((from, to))),
        _ => Err(BlobResponseError::new(
            416,
            "InvalidRange",
            format!("the file has {length} bytes"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lists_are_read_and_names_stay_names() {
        let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><BlockList><Latest>YWI=</Latest><Uncommitted>Li4vLi4vYQ==</Uncommitted></BlockList>";
        assert_eq!(parse_block_list(xml).unwrap(), ["6162", "2e2e2f2e2e2f61"]);
        assert_eq!(
            parse_block_list("<BlockList/>").unwrap(),
            Vec::<String>::new()
        );
        assert!(parse_block_list("<Latest>../x</Latest>").is_err());
    }

    #[test]
    fn ranges_are_http_s() {
        for (header, expected) in [
            (None, Ok(None)),
            (Some("bytes=0-3"), Ok(Some((0, 3)))),
            (Some("bytes=2-"), Ok(Some((2, 9)))),
            (Some("bytes=2-100"), Ok(Some((2, 9)))),
            (Some("bytes=-4"), Ok(Some((6, 9)))),
            (Some("lines=1-2"), Ok(None)),
            (Some("bytes=10-"), Err(416)),
            (Some("bytes=3-2"), Err(416)),
        ] {
            let found = parse_range(header, 10).map_err(|refusal| refusal.status);
            assert_eq!(found, expected, "{header:?}");
        }
    }

    #[test]
    fn a_signature_is_for_one_file_and_one_use() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = SignedBlobs::new(folder.path().to_owned());
        let (write, writes) = blobs.open_upload().unwrap();
        let (read, reads) = blobs.sign_readable("/etc/hostname".into()).unwrap();
        assert!(blobs.writable_folder(write, writes.as_str()).is_ok());
        assert!(blobs.readable_path(read, reads.as_str()).is_ok());
        for refused in [
            blobs.readable_path(write, writes.as_str()),
            blobs.writable_folder(read, reads.as_str()),
            blobs.writable_folder(write, reads.as_str()),
            blobs.readable_path(read, ""),
            blobs.readable_path(99, reads.as_str()),
        ] {
            assert_eq!(refused.unwrap_err().status, 403);
        }
        drop(blobs.close_upload(write).unwrap());
        assert!(blobs.writable_folder(write, writes.as_str()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
