//! The file through which a debug shell gets the spec of its job.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    str::FromStr,
};

use serde::Serialize;

/// The name of such a file, `shell-….json` with at least 6 letters and digits in between, so that it leads nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShellFileName(String);

/// The name is not one of such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is called shell-….json")]
pub struct InvalidShellFileName;

impl FromStr for ShellFileName {
    type Err = InvalidShellFileName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let random = name
            .strip_prefix("shell-")
            .and_then(|rest| rest.strip_suffix(".json"));
        let is_plain =
            |text: &str| text.len() >= 6 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        match random {
            Some(random) if is_plain(random) => Ok(Self(name.to_owned())),
            _ => Err(InvalidShellFileName),
        }
    }
}

impl ShellFileName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Fills an existing file. It is not created here: that the caller could create it proves its access.
pub(super) fn fill_private_file(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default())
        .open(path)?;
    let found = file.metadata()?;
    let is_private = std::os::unix::fs::MetadataExt::mode(&found) & 0o077 == 0;
    if !found.is_file() || found.len() > 0 || !is_private {
        let why = "it must be an empty file that only its owner may read";
        return Err(io::Error::other(why));
    }
    serde_json::to_writer(&mut file, content)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_plain_names_of_files_are_taken() {
        assert!("shell-a1B2c3.json".parse::<ShellFileName>().is_ok());
        for bad in [
            "shell-.json",
            "shell-a.json",
            "shell-../../x.json",
            "job.json",
            "journal.jsonl",
            "shell-a1b2c3.json/x",
        ] {
            assert!(bad.parse::<ShellFileName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_empty_private_file_that_is_there_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shell-abcdef.json");
        let lay = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(
            fill_private_file(&path, &"secret").is_err(),
            "it isn't made"
        );
        assert!(!path.exists());
        for (text, mode) in [("", 0o644), ("there", 0o600)] {
            lay(text, mode);
            assert!(
                fill_private_file(&path, &"secret").is_err(),
                "{text:?} {mode:o}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let link = folder.path().join("shell-ghijkl.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        lay("", 0o600);
        assert!(fill_private_file(&link, &"secret").is_err());
        fill_private_file(&path, &"secret").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\"secret\"");
    }
}
