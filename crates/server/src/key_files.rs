//! Keys and tokens of this server in `DATA/keys`, which only the server's user may read.

use std::{fs, io, path::Path};

/// Reads the token that git hooks of this server present, or makes it. It is kept, so that hooks of the last server are known.
pub(crate) fn open_internal_token(data: &Path) -> io::Result<String> {
    use std::os::unix::fs::DirBuilderExt as _;
    let folder = data.join("keys");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let path = folder.join("internal-token");
    if let Ok(token) = fs::read_to_string(&path)
        && token.len() >= 32
    {
        return Ok(token);
    }
    let mut random = [0u8; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let token = shipway_core::ids::Digest::compute(&random).hex().to_owned();
    write_key(&path, token.as_bytes())?;
    Ok(token)
}

/// Writes a key for the server's user alone, durably.
pub(crate) fn write_key(path: &Path, key: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(key)?;
    file.sync_all()
}
