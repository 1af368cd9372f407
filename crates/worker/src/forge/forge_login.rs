//! Login at a private forge: a token in a file, or user name and password in the forge's address.
//!
//! Git gets it as a header for this forge only, through its environment: not on a command line, where every user of
//! the machine could read it, and not in a file. The token file is read for each fetch, so that the token can be
//! replaced.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::forge_error::TokenFileError;
use base64::{Engine as _, engine::general_purpose::STANDARD};

const TOKEN_BYTES_MAX: u64 = 8 << 10;

/// User name for a token without one; forges ignore it.
const NAME: &str = "x-access-token";

/// Login data, or the file that contains it.
#[derive(Clone, Default)]
pub struct ForgeLogin {
    /// `name:password` from the address.
    given: Option<String>,
    file: Option<PathBuf>,
}

impl std::fmt::Debug for ForgeLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl ForgeLogin {
    /// Splits a forge's address into the address without login and the login. For ssh the user name is part of the
    /// address.
    pub(super) fn split_address(forge: &str, file: Option<PathBuf>) -> (String, Self) {
        let found = forge.split_once("://").and_then(|(scheme, rest)| {
            let end = rest.find('/').unwrap_or(rest.len());
            let (user, host) = rest[..end].rsplit_once('@')?;
            let of_web = matches!(scheme, "http" | "https");
            of_web.then(|| {
                (
                    format!("{scheme}://{host}{}", &rest[end..]),
                    percent_decode(user),
                )
            })
        });
        match found {
            Some((address, given)) => {
                let given = Some(given);
                (address, Self { given, file })
            }
            None => (forge.to_owned(), Self { given: None, file }),
        }
    }

    /// The value of the `Authorization` header; `None` without login.
    pub(super) fn authorization_header(&self) -> Result<Option<String>, TokenFileError> {
        Ok(self
            .user_and_password()?
            .map(|pair| format!("Basic {}", STANDARD.encode(pair))))
    }

    /// The source of the login, for messages.
    pub(super) fn describe_source(&self) -> Option<String> {
        match (&self.file, &self.given) {
            (Some(file), _) => Some(format!("the token in {}", file.display())),
            (None, Some(_)) => Some("the name and password in its address".to_owned()),
            (None, None) => None,
        }
    }

    /// `name:password`
    fn user_and_password(&self) -> Result<Option<String>, TokenFileError> {
        let Some(file) = &self.file else {
            return Ok(self.given.clone());
        };
        let token = read_token_file(file)?;
        Ok(Some(if token.contains(':') {
            token
        } else {
            format!("{NAME}:{token}")
        }))
    }

    /// What must be masked.
    fn secrets_to_mask(&self) -> Vec<String> {
        let Ok(Some(pair)) = self.user_and_password() else {
            return Vec::new();
        };
        let password = pair.split_once(':').map_or(pair.as_str(), |(_, it)| it);
        vec![STANDARD.encode(&pair), password.to_owned()]
    }
}

/// What must be masked of a forge's login.
#[must_use]
pub fn secrets_to_mask(source: &shipway_workflow::job::ActionSource) -> Vec<String> {
    let (_, login) = ForgeLogin::split_address(&source.forge, source.token_file.clone());
    login.secrets_to_mask()
}

/// Moves the token from its file into the forge's address if the sandbox is about to hide the file. If the token
/// can't be read, the error is reported when it is used.
pub(crate) fn move_token_into_address(
    source: &mut shipway_workflow::job::ActionSource,
    hidden: &[PathBuf],
) {
    let file = source.token_file.take_if(|file| hidden.contains(file));
    let Some(file) = file else {
        return;
    };
    let (address, _) = ForgeLogin::split_address(&source.forge, None);
    let login = ForgeLogin {
        given: None,
        file: Some(file.clone()),
    };
    match (login.user_and_password(), address.split_once("://")) {
        (Ok(Some(pair)), Some((scheme @ ("http" | "https"), host))) => {
            source.forge = format!("{scheme}://{}@{host}", percent_encode(&pair));
        }
        _ => source.token_file = Some(file),
    }
}

/// Percent-encodes everything except the colon between name and password.
fn percent_encode(pair: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    pair.bytes().map(one).collect()
}

/// Reads a token file: one line with a token or `name:token`. Errors never contain the file's contents.
pub fn read_token_file(file: &Path) -> Result<String, TokenFileError> {
    let path = || file.to_owned();
    let unreadable = |source| TokenFileError::Unreadable {
        path: path(),
        source,
    };
    let opened = fs::File::open(file).map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(TokenFileError::NotAFile(path()));
    }
    if about.permissions().mode() & 0o077 != 0 {
        return Err(TokenFileError::ReadableByOthers(path()));
    }
    let mut text = String::new();
    let mut limited = opened.take(TOKEN_BYTES_MAX);
    limited.read_to_string(&mut text).map_err(unreadable)?;
    let token = text.trim();
    if token.is_empty() || token.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(TokenFileError::NotOneLine(path()));
    }
    Ok(token.to_owned())
}

/// Percent-decodes.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3);
        let byte = digits
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_whose_file_is_about_to_be_hidden_is_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "me:p@ss/w0rd").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let source = shipway_workflow::job::ActionSource {
            forge: "https://forge.example/x".to_owned(),
            token_file: Some(file.clone()),
            ..Default::default()
        };
        let mut seen = source.clone();
        move_token_into_address(&mut seen, &[]);
        assert_eq!(seen, source, "it stays where it is");
        move_token_into_address(&mut seen, &[file]);
        assert_eq!(seen.token_file, None);
        let (address, login) = ForgeLogin::split_address(&seen.forge, None);
        assert_eq!(address, "https://forge.example/x");
        assert_eq!(
            login.user_and_password().unwrap(),
            Some("me:p@ss/w0rd".to_owned())
        );
    }

    #[test]
    fn names_and_passwords_are_taken_out_of_addresses() {
        for (address, bare, given) in [
            ("https://host", "https://host", None),
            ("https://u:p%40@host/x@y", "https://host/x@y", Some("u:p@")),
            ("git@host:", "git@host:", None),
            ("ssh://git@host/x", "ssh://git@host/x", None),
            ("/srv/git", "/srv/git", None),
        ] {
            let (shown, login) = ForgeLogin::split_address(address, None);
            assert_eq!((shown.as_str(), login.given.as_deref()), (bare, given));
        }
    }

    #[test]
    fn a_token_is_one_line_of_a_file_that_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let write = |text: &str, mode: u32| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        let header = || {
            ForgeLogin::split_address("https://x", Some(file.clone()))
                .1
                .authorization_header()
        };
        assert!(header().unwrap_err().to_string().contains("token"));
        write("hunter2\n", 0o600);
        let encoded = STANDARD.encode("x-access-token:hunter2");
        assert_eq!(header().unwrap(), Some(format!("Basic {encoded}")));
        write("me:hunter2", 0o600);
        let encoded = STANDARD.encode("me:hunter2");
        assert_eq!(header().unwrap(), Some(format!("Basic {encoded}")));
        for (text, mode, expected) in [
            ("hunter2", 0o644, "chmod 600"),
            ("", 0o600, "not one line"),
            ("hunter2\nmore", 0o600, "not one line"),
        ] {
            write(text, mode);
            let why = header().unwrap_err().to_string();
            assert!(why.contains(expected) && !why.contains("hunter2"), "{why}");
        }
    }
}
