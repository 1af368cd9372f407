//! Encrypts values for the log with a key of `DATA/keys`, and decrypts them.
//!
//! # Why
//!
//! The log is append-only, readable through the API, and exported. It contains secrets and password hashes only in sealed form.
//!
//! # Failure modes
//!
//! - The key file is lost: nothing sealed with it can be opened, and users must set the values again. A backup of the log without
//!   `keys/` has no secrets.
//! - A crash while a key is added: the file is replaced in one rename, so it has the old keys or all of them.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::RwLock,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use rustix::rand::{GetRandomFlags, getrandom};
use shipway_core::sealed_value::{SealedValue, SealingKeyId};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// The keys of this server. The newest seals, all of them open.
pub(crate) struct SealingKeys {
    file: PathBuf,
    /// In the order of their ids; never empty.
    keys: RwLock<Vec<SealingKey>>,
}

struct SealingKey {
    id: SealingKeyId,
    cipher: XChaCha20Poly1305,
    hex: String,
}

/// A sealed value that can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsealError {
    #[error(
        "it was encrypted with the key {key}, which is not in {file}: restore that file from a backup, or set the value again"
    )]
    MissingKey { key: SealingKeyId, file: String },
    #[error("it is damaged, or was encrypted for another purpose: set the value again")]
    Damaged,
}

impl SealingKeys {
    /// Reads `sealing-keys` in `folder`, or makes it with a first key.
    ///
    /// # Errors
    /// The file can't be read or written, or is not a list of keys.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let file = folder.join("sealing-keys");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let keys: Option<Vec<_>> = text.lines().map(parse_key).collect();
        let keys = keys.ok_or_else(|| {
            let why = format!("{} is not a list of keys", file.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        let is_new = keys.is_empty();
        let keys = Self {
            file,
            keys: RwLock::new(keys),
        };
        if is_new {
            keys.add_key()?;
        }
        Ok(keys)
    }

    /// Adds a key that seals from now on. It is on the disk before it is used.
    ///
    /// # Errors
    /// The file can't be written; the keys are as before.
    pub(crate) fn add_key(&self) -> io::Result<SealingKeyId> {
        let mut keys = self.keys.write().unwrap_or_else(|it| it.into_inner());
        let mut random = [0u8; KEY_BYTES];
        fill_random(&mut random)?;
        let id = SealingKeyId(keys.last().map_or(1, |key| key.id.0 + 1));
        let key = SealingKey::new(id, &random);
        let lines = keys.iter().chain([&key]);
        let text: String = lines
            .map(|key| format!("{} {}\n", key.id, key.hex))
            .collect();
        replace_file(&self.file, text.as_bytes())?;
        keys.push(key);
        Ok(id)
    }

    /// The key that seals.
    pub(crate) fn newest(&self) -> SealingKeyId {
        let keys = self.keys.read().unwrap_or_else(|it| it.into_inner());
        keys.last().expect("a first key is made at the start").id
    }

    /// Encrypts `value`. Only the same `purpose` opens it again.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn seal(&self, purpose: &str, value: &[u8]) -> io::Result<SealedValue> {
        let keys = self.keys.read().unwrap_or_else(|it| it.into_inner());
        let key = keys.last().expect("a first key is made at the start");
        let mut sealed = vec![0u8; NONCE_BYTES];
        fill_random(&mut sealed)?;
        let nonce = *XNonce::from_slice(&sealed);
        let payload = Payload {
            msg: value,
            aad: purpose.as_bytes(),
        };
        let text = key.cipher.encrypt(&nonce, payload);
        sealed.extend(text.expect("the value is far below the cipher's limit of 256 GiB"));
        Ok(SealedValue {
            key: key.id,
            data: STANDARD.encode(sealed),
        })
    }

    /// Decrypts `value`.
    ///
    /// # Errors
    /// Its key is missing, it is damaged, or it was sealed for another purpose.
    pub(crate) fn unseal(
        &self,
        purpose: &str,
        value: &SealedValue,
    ) -> Result<Vec<u8>, UnsealError> {
        let keys = self.keys.read().unwrap_or_else(|it| it.into_inner());
        let key = keys.iter().find(|key| key.id == value.key);
        let key = key.ok_or_else(|| UnsealError::MissingKey {
            key: value.key,
            file: self.file.display().to_string(),
        })?;
        let data = STANDARD.decode(&value.data);
        let data = data.map_err(|_| UnsealError::Damaged)?;
        let (nonce, text) = data
            .split_at_checked(NONCE_BYTES)
            .ok_or(UnsealError::Damaged)?;
        let payload = Payload {
            msg: text,
            aad: purpose.as_bytes(),
        };
        let opened = key.cipher.decrypt(XNonce::from_slice(nonce), payload);
        opened.map_err(|_| UnsealError::Damaged)
    }
}

impl SealingKey {
    fn new(id: SealingKeyId, bytes: &[u8; KEY_BYTES]) -> Self {
        Self {
            id,
            cipher: XChaCha20Poly1305::new(bytes.into()),
            hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// `k1 0011…`: an id and 32 bytes in hexadecimal.
fn parse_key(line: &str) -> Option<SealingKey> {
    let (id, hex) = line.split_once(' ')?;
    let id = SealingKeyId(id.strip_prefix('k')?.parse().ok()?);
    let mut bytes = [0u8; KEY_BYTES];
    if hex.len() != 2 * KEY_BYTES || !hex.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(SealingKey::new(id, &bytes))
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let count = getrandom(&mut *bytes, GetRandomFlags::empty())?;
    if count == bytes.len() {
        return Ok(());
    }
    Err(io::Error::other("the system returned too few random bytes"))
}

/// Replaces a file of keys in one step, durably.
fn replace_file(file: &Path, text: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let new = file.with_extension("new");
    let mut written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    written.write_all(text)?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_value_is_opened_for_its_purpose_only_and_after_a_rotation_too() {
        let folder = tempfile::tempdir().unwrap();
        let keys = SealingKeys::open(folder.path()).unwrap();
        let sealed = keys.seal("secret shop A", b"pass").unwrap();
        assert!(!format!("{sealed:?} {}", sealed.data).contains("pass"));
        assert_ne!(sealed, keys.seal("secret shop A", b"pass").unwrap());
        assert_eq!(keys.add_key().unwrap(), SealingKeyId(2));
        let later = keys.seal("secret shop A", b"pass").unwrap();
        assert_eq!((sealed.key.0, later.key.0, keys.newest().0), (1, 2, 2));
        let keys = SealingKeys::open(folder.path()).unwrap();
        for value in [&sealed, &later] {
            assert_eq!(keys.unseal("secret shop A", value).unwrap(), b"pass");
            let other = keys.unseal("secret shop B", value);
            assert!(matches!(other, Err(UnsealError::Damaged)));
        }
        let mode = fs::metadata(folder.path().join("sealing-keys")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_value_a_missing_key_and_a_damaged_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let keys = SealingKeys::open(folder.path()).unwrap();
        let sealed = keys.seal("a", b"").unwrap();
        assert_eq!(keys.unseal("a", &sealed).unwrap(), b"");
        for data in ["", "%", "AAAA", &sealed.data.replace('=', "")[4..]] {
            let damaged = SealedValue {
                data: data.to_owned(),
                ..sealed.clone()
            };
            let opened = keys.unseal("a", &damaged);
            assert!(matches!(opened, Err(UnsealError::Damaged)), "{data}");
        }
        let other = SealedValue {
            key: SealingKeyId(9),
            ..sealed
        };
        let error = keys.unseal("a", &other).unwrap_err().to_string();
        assert!(
            error.contains("k9") && error.contains("sealing-keys"),
            "{error}"
        );
        fs::write(folder.path().join("sealing-keys"), "k1 zz\n").unwrap();
        assert!(SealingKeys::open(folder.path()).is_err());
    }
}
