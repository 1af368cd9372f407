//! Access tokens of `shipway login`, by server, in `~/.config/shipway/credentials.json`, which only its user may read.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

/// Tokens by the URL of their server.
type SavedTokens = BTreeMap<String, String>;

fn credentials_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    base.map(|base| base.join("shipway").join("credentials.json"))
}

fn read_all() -> SavedTokens {
    let text = credentials_file().and_then(|file| fs::read(file).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn server_key(server: &str) -> &str {
    server.trim_end_matches('/')
}

/// The token for a server, if its user has signed in there.
pub fn read_token(server: &str) -> Option<String> {
    read_all().remove(server_key(server))
}

/// Saves the token for a server in place of an earlier one.
pub fn save_token(server: &str, token: &str) -> io::Result<PathBuf> {
    let mut all = read_all();
    all.insert(server_key(server).to_owned(), token.to_owned());
    write_all(&all)
}

/// Removes the token for a server.
pub fn remove_token(server: &str) -> io::Result<()> {
    let mut all = read_all();
    match all.remove(server_key(server)) {
        Some(_) => write_all(&all).map(drop),
        None => Ok(()),
    }
}

fn write_all(all: &SavedTokens) -> io::Result<PathBuf> {
    let file = credentials_file()
        .ok_or_else(|| io::Error::other("there is no home directory for credentials"))?;
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let new = file.with_extension("new");
    let mut written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    written.write_all(&serde_json::to_vec_pretty(all).map_err(io::Error::other)?)?;
    written.sync_all()?;
    fs::rename(&new, &file)?;
    Ok(file)
}
